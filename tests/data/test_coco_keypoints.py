"""Keypoints of COCO files, from the file to batches and back."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data.coco_keypoints import mirrored

NAMES = ["nose", "left_eye", "right_eye"]
SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]
STATED = [5, 4, 2, 3, 3, 1, 0, 0, 0]  # x, y, visibility: in COCO's files these are pixels


@pytest.fixture
def write(tmp_path):
    """Writes a COCO file with a person per list of keypoints, and a ball that has none; returns its path."""

    def function(*keypoints, names=NAMES, **more):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / "a.png")
        square = {"image_id": 4, "segmentation": SQUARE, "bbox": [1, 1, 8, 8]}
        people = [{"id": i, "category_id": 1, "keypoints": stated, **square} for i, stated in enumerate(keypoints)]
        content = {
            "images": [{"id": 4, "file_name": "a.png", "height": 20, "width": 30}],
            "annotations": [*people, {"id": 90, "category_id": 2, **square}],
            "categories": [{"id": 1, "name": "person", "keypoints": names}, {"id": 2, "name": "ball"}],
            **more,
        }
        path = tmp_path / "people.json"
        path.write_text(json.dumps(content))
        return path

    return function


def test_points_are_at_the_centres_of_their_pixels(write, tmp_path, assert_round_trip):
    reader = data.open(write(STATED, None))
    [field] = reader.fields
    assert field == data.Points("keypoints", (3, 3), mirrored=(0, 2, 1), names=tuple(NAMES))
    sample = reader[0]
    expected = np.zeros((3, 3, 3), np.float32)
    expected[0, :2] = [[5.5, 4.5, 2], [3.5, 3.5, 1]]
    np.testing.assert_array_equal(sample["keypoints"], expected)
    assert sample["keypoints"].dtype == np.float32 and sample["labels"].tolist() == [1, 1, 2]
    assert_round_trip(reader, tmp_path / "out.json")
    stated = json.loads((tmp_path / "out.json").read_text())
    assert [a["keypoints"] for a in stated["annotations"]] == [STATED, [0] * 9, [0] * 9]
    assert [a["num_keypoints"] for a in stated["annotations"]] == [2, 0, 0]


def test_left_and_right_change_places_in_mirrored_batches(write):
    reader = data.open(write(STATED))
    [(_, y)] = data.batches(
        reader, (20, 30), batch_size=1, max_instances=2, augment=data.Augment(flip=1), backend="numpy", shuffle=False
    )
    np.testing.assert_allclose(y["keypoints"][0, 0], [[24.5, 4.5, 2], [0, 0, 0], [26.5, 3.5, 1]])


def test_other_readers_of_the_same_file_have_none(write, tmp_path):
    path = write(STATED)
    reader = data.Coco(path, tmp_path / "images")
    assert reader.fields == () and "keypoints" not in reader[0]


def test_the_layout_of_the_download(write, tmp_path):
    path = write(STATED)
    for part in ("train2017", "val2017"):
        (tmp_path / "coco" / "annotations").mkdir(parents=True, exist_ok=True)
        (tmp_path / "coco" / part).mkdir()
        Image.open(tmp_path / "images" / "a.png").save(tmp_path / "coco" / part / "a.png")
        (tmp_path / "coco" / "annotations" / f"person_keypoints_{part}.json").write_text(path.read_text())
    train, val = data.splits(tmp_path / "coco")
    assert len(train.fields) == 1 and val[0]["keypoints"].shape == (2, 3, 3)
    instances = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    instances.write_text(path.read_text())
    assert data.open(tmp_path / "coco", "train").fields == ()  # the file of the instances task comes first


def test_a_point_outside_is_not_labelled(write):
    sample = data.open(write([30, 4, 2, 29, 19, 2, -1, 3, 1]))[0]
    np.testing.assert_array_equal(sample["keypoints"][0], [[0, 0, 0], [29.5, 19.5, 2], [0, 0, 0]])


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ([1, 2, 2], "are not 9 numbers"),
        ("many", "are not 9 numbers"),
        ([1, 2, 3, *STATED[3:]], "visibility that is not 0, 1 or 2"),
        ([float("nan"), *STATED[1:]], "not finite"),
        ([10**400, *STATED[1:]], "not finite"),
        (["5", *STATED[1:]], "not numbers"),
    ],
)
def test_faulty_keypoints_are_named(write, stated, reason):
    reader = data.open(write(stated, STATED))
    assert reader[0]["labels"].tolist() == [1, 2]
    assert list(reader.dropped) == [0] and reason in reader.dropped[0]


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([{"id": 1, "name": "person"}, {"id": 2, "name": "ball"}], "has no category with keypoints"),
        (
            [{"id": 1, "name": "a", "keypoints": ["x"]}, {"id": 2, "name": "b", "keypoints": ["y"]}],
            "'a' and 'b' have diff",
        ),
        ([{"id": 1, "name": "a", "keypoints": [3]}, {"id": 2, "name": "b"}], "are no list of names"),
        ([{"id": 1, "name": "a", "keypoints": ["x", "X"]}, {"id": 2, "name": "b"}], "two keypoints of the same name"),
    ],
)
def test_categories_that_do_not_fit(write, tmp_path, categories, reason):
    path = write(categories=categories)
    with pytest.raises(data.DataError, match=reason):
        data.Coco(path, tmp_path / "images", keypoints=True)


def test_pairs_of_names():
    assert mirrored(["Left Wrist", "head", "right wrist", "left_ear"]) == (2, 1, 0, 3)
    with pytest.raises(ValueError, match="3 points need as many names, not 1"):
        data.Points("keypoints", (3, 3), names=("nose",))


@pytest.mark.parametrize("write_other", [data.write_tfrecord, data.write_yolo])
def test_files_that_hold_no_keypoints_say_so(write, tmp_path, caplog, write_other):
    reader = data.open(write(STATED))
    write_other(reader, tmp_path / "out" / "people")
    assert "keypoints left out" in caplog.text
