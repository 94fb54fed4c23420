"""Annotations and arrays with values of other types than the format has: one line that names the file."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data import coco_keypoints, id_masks, tf_messages
from keras_maskrcnn.data.video import VideoWriter, frames
from keras_maskrcnn.pickles.npy import UnreadableFileError, read_objects

SQUARE = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 4, "height": 4}}
SHAPE = {"label": "ant", "points": [[1, 1], [5, 1], [5, 5]]}
IMAGE = np.zeros((8, 8, 3), np.uint8)
IDS = np.eye(8, dtype=np.uint8)


def assert_data_error(function, reason):
    with pytest.raises(data.DataError) as caught:
        function()
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def written(folder, content):
    Image.fromarray(IMAGE).save(folder / "a.png")
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


@pytest.mark.parametrize("regions", [3.5, 1, True, "ab", [3], [[]], {"0": "a"}])
def test_regions_of_via(tmp_path, regions):
    path = written(tmp_path, {"a": {"filename": "a.png", "regions": regions}})
    assert_data_error(lambda: data.Via(path), "has a region" if isinstance(regions, list | dict) else "has regions")


@pytest.mark.parametrize("key", ["region_attributes", "shape_attributes"])
@pytest.mark.parametrize("value", [3.5, "ab", [[1]], [{}]])
def test_attributes_of_via(tmp_path, key, value):
    path = written(tmp_path, {"a": {"filename": "a.png", "regions": [{**SQUARE, key: value}]}})
    assert_data_error(lambda: data.Via(path), "has a region that is not a dict, or whose attributes are none")


@pytest.mark.parametrize("change", [{"group_id": [1]}, {"group_id": 1.5}, {"points": 5}, {"points": {}}])
def test_shapes_of_labelme(tmp_path, change):
    written(tmp_path, {"imagePath": "a.png", "shapes": [SHAPE, {**SHAPE, **change}]})
    dataset = data.LabelMe(tmp_path)
    if "group_id" in change:
        assert list(dataset.dropped.values()) == ["its group_id is neither a number nor a text"]
    assert len(dataset[0]["masks"]) == 1


def test_a_circle_of_labelme_of_any_size(tmp_path):
    circle = {"label": "ant", "shape_type": "circle", "points": [[1, 1], [1e300, -1e300]]}
    written(tmp_path, {"imagePath": "a.png", "shapes": [SHAPE, circle]})
    dataset = data.LabelMe(tmp_path)
    assert len(dataset[0]["masks"]) == 1 and len(dataset.dropped) == 1


def panoptic(folder, segments, category=None):
    (folder / "a").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (1, 0, 0)).save(folder / "a" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "ant", "isthing": 1} if category is None else category],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    return data.CocoPanoptic(written(folder, content), folder)


@pytest.mark.parametrize("segments", [5, "ab", [3], [None], [{"id": 1, "category_id": [1]}]])
def test_segments_of_coco_panoptic(tmp_path, segments):
    assert_data_error(lambda: panoptic(tmp_path, segments)[0], "its segments_info is damaged")


@pytest.mark.parametrize("segment", [{}, {"id": "1", "category_id": 1}, {"id": 1}, {"id": 1, "category_id": 2}])
def test_a_segment_of_an_unknown_category(tmp_path, segment):
    assert_data_error(lambda: panoptic(tmp_path, [segment])[0], "which is not listed")


@pytest.mark.parametrize("category", [{"id": 1, "isthing": 1}, {"id": 1, "name": "a"}, {"id": [1], "name": "a"}, 3])
def test_categories_of_coco_panoptic(tmp_path, category):
    assert_data_error(lambda: panoptic(tmp_path, [], category), "is no COCO panoptic file")


def test_names_of_keypoints_change_sides_in_pairs():
    names = ["left_eye", "right_eye", "\0_eye", "nose", "leftright", "rightleft", "lef"]
    assert coco_keypoints.mirrored(names) == (1, 0, 2, 3, 5, 4, 6)


def test_a_label_map_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "a.pbtxt").write_text("item { unknown " + "{ a " * 5000)
    assert_data_error(lambda: tf_messages.read_label_map(tmp_path / "a.pbtxt"), "cannot be read as a label map")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": None}, "Arrays: "),
        ({"masks": 3}, "Arrays: "),
        ({"labels": 3}, "Arrays: "),
        ({"labels": [3], "class_names": None}, "Arrays: "),
        ({"labels": [[["a"]]], "class_names": None}, "Arrays: "),
        ({"labels": [[[1]] * 8]}, "Arrays[0]: "),
        ({"labels": [[None] * 8]}, "Arrays[0]: "),
        ({"labels": [[1e300] * 8]}, "Arrays[0]: "),
        ({"labels": [5]}, "Arrays[0]: "),
        ({"labels": [["b"] * 8]}, "Arrays[0]: the label 'b' is not one of a"),
        ({"images": [[[1], [2, 3]]]}, "Arrays"),
        ({"masks": [[["x", "y"]]]}, "Arrays[0]: "),
        ({"masks": [object()]}, "Arrays[0]: "),
    ],
)
def test_arrays_and_labels_of_other_types(changes, reason):
    parts = {"images": [IMAGE], "masks": [IDS], "labels": [[1]], "class_names": ["a"], **changes}
    assert_data_error(lambda: data.Arrays(**parts)[0], reason)


def test_a_mask_of_another_size_is_not_decoded(tmp_path, monkeypatch):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    reason = "the mask has shape [20, 30], its image [8, 8]"
    assert_data_error(lambda: id_masks.read_ids(tmp_path / "a.png", [(8, 8)]), reason)


def test_an_error_without_words_is_named(tmp_path, monkeypatch):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")

    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", out_of_memory)
    assert_data_error(lambda: data.read_image(tmp_path / "a.png"), "cannot be read as an image (MemoryError)")


def test_one_image_cannot_be_divided(tmp_path):
    path = written(tmp_path, {"a": {"filename": "a.png", "regions": [SQUARE]}})
    assert_data_error(lambda: data.splits(path), f"{path}: a data set of one image cannot be divided")
    assert_data_error(lambda: data.held_out(data.Via(path)), "Via: a data set of one image cannot be divided")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="/proc/self/mem is the file")
def test_a_file_that_gives_an_error_when_it_is_read(tmp_path):
    (tmp_path / "a.json").symlink_to("/proc/self/mem")
    assert_data_error(lambda: data.open(tmp_path), "cannot be read (Input/output error)")


def test_the_metadata_of_a_video_are_not_text(tmp_path):
    pytest.importorskip("av", reason="the extra video is not installed")
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    writer.add(np.zeros((40, 64, 3), np.uint8))
    writer.close()
    content = (tmp_path / "a.mp4").read_bytes()
    assert b"VideoHandler" in content
    (tmp_path / "a.mp4").write_bytes(content.replace(b"VideoHandler", b"Vide\x80Handler"))
    assert len(list(frames(tmp_path / "a.mp4"))) == 1
    (tmp_path / "a.mp4").write_bytes(content.replace(b"avc1", b"\xff\xffzz"))
    assert_data_error(lambda: next(frames(tmp_path / "a.mp4")), "has a video stream of an unknown codec")


def test_objects_are_read_from_files_only(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(UnreadableFileError, match="is not a regular file"):
        read_objects(tmp_path / "a.npy")
