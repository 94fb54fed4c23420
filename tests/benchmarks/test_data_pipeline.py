import json

import data_pipeline
import pytest
from PIL import Image

SIZES = ((30, 40), (40, 30), (36, 48), (30, 90), (10, 10))  # height, width
TRIANGLE = {"segmentation": [[2, 1, 9, 1, 9, 8]], "bbox": [2, 1, 7, 7], "category_id": 1, "iscrowd": 0}


@pytest.fixture
def folder(tmp_path):
    """Five pictures in COCO's layout; the first has two objects, one of them a crowd, the second one."""
    crowd = {**TRIANGLE, "segmentation": {"counts": [0, 300, 900], "size": [30, 40]}, "iscrowd": 1}
    images = [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate(SIZES)]
    annotations = [
        {"id": i, "image_id": image, **annotation}
        for i, (image, annotation) in enumerate([(0, TRIANGLE), (0, crowd), (1, TRIANGLE)])
    ]
    for name in ("annotations", "train"):
        (tmp_path / name).mkdir()
    for image in images:
        Image.new("RGB", (image["width"], image["height"]), (9, 90, 200)).save(tmp_path / "train" / image["file_name"])
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "triangle"}]}
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return tmp_path


def test_wide_pictures_and_tall_ones():
    records = [{"height": height, "width": width} for height, width in SIZES]
    assert data_pipeline.by_shape(records, 99) == [[0, 2, 3, 4], [1]]
    assert data_pipeline.by_shape(records, 1) == [[0], []]


@pytest.mark.parametrize("side", [data_pipeline.ours, data_pipeline.peer])
def test_an_epoch_by_hand(folder, side):
    if side is data_pipeline.peer:
        pytest.importorskip("torchvision")
    epoch, repeats = side(folder, "train", 5)
    # 800 x 1067, 1067 x 800, 800 x 1067, 448 x 1344, 800 x 800, of which each may be a pixel less.
    expected = data_pipeline.facts(5, 3, 3 * 800 * 1067 + 448 * 1344 + 800 * 800)
    assert data_pipeline.check(epoch(), expected) is None and repeats == 1
    assert epoch()["instances"] == 3


def test_unequal_work_is_told():
    facts = data_pipeline.facts(4, 9, 3e6)
    assert data_pipeline.check(facts, facts) is None
    assert data_pipeline.check(facts, {**facts, "instances": 8}) == "ours made 9 instances, the peer 8"
    assert "3.0 megapixels, the peer 3.1" in data_pipeline.check(facts, {**facts, "megapixels": 3.1})


def test_times_of_a_picture():
    facts = {"ours": {"pictures": 100}, "peer": {"pictures": 100}}
    row = {"ours": {"median": 2.0}, "peer": {"median": 5.0}, "facts": facts}
    assert list(data_pipeline.per_picture(row)) == [
        "ours: 20.0 ms a picture, 50.0 images/s",
        "peer: 50.0 ms a picture, 20.0 images/s",
    ]
    assert len(list(data_pipeline.per_picture({**row, "peer": None}))) == 1


def test_a_folder_that_is_missing_is_named_in_one_line(tmp_path, run_here):
    run = run_here("data_pipeline", "--data", tmp_path)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("instances_train.json: no such annotation file")
