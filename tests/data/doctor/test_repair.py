"""A repaired COCO file: what is changed and listed, and that nothing is overwritten."""

import csv

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data.doctor import repair


def changes_in(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["image"].rpartition("/")[2], row["place"], row["change"]) for row in csv.DictReader(file)]


def faulty(coco_set):
    rectangle = coco_set.rectangle
    run = {"size": [40, 60], "counts": [400, 800, 1200]}
    first = [
        rectangle(5, 5, 20, 20, bbox=[5, 5, 23, 20]),
        rectangle(5, 5, 20, 20),
        rectangle(30, 5, 20, 20, bbox=[30, 5, 0, 20]),
        rectangle(10, 0, 20, 40, segmentation=run, iscrowd=1),
    ]
    pictures = [coco_set.noise(seed) for seed in (0, 1, 0, 2)]
    path = coco_set([first, [rectangle(2, 2, 30, 20)], [rectangle(2, 2, 30, 20)], []], pictures)
    (path / "images" / "4.png").write_bytes(b"broken")
    return path


def test_a_repaired_file_has_no_faults_and_lists_the_changes(coco_set, tmp_path):
    path, output = faulty(coco_set), tmp_path / "out" / "fixed.json"
    before = (path / "set.json").read_bytes()
    ((written, listed, folder, count),) = repair(data.inspect(path), output)
    assert (written, folder) == (output, path / "images") and (path / "set.json").read_bytes() == before
    assert sorted(changes_in(listed)) == [
        ("1.png", "annotation 1", "box of the mask, 3.0 pixels off"),
        ("1.png", "annotation 2", "left out: instance 0 again"),
        ("1.png", "annotation 3", "left out: its box has no width"),
        ("1.png", "annotation 4", "run lengths compressed"),
        ("3.png", "image", f"left out: the same pixels as {path / 'images' / '1.png'} in all"),
        ("4.png", "image", "left out: cannot be read as an image (cannot identify image file "
         f"'{path / 'images' / '4.png'}')"),
    ]  # fmt: skip
    assert count == 6
    repaired = data.Coco(output, folder)
    assert len(repaired) == 2
    np.testing.assert_array_equal(repaired[0]["boxes"], [[5, 5, 25, 25], [10, 0, 30, 40]])
    np.testing.assert_array_equal(repaired[0]["crowd"], [False, True])
    codes = {kind.code for kind in data.inspect(repaired).findings.kinds() if kind.level != "note"}
    assert codes == {"unlisted"}  # the images that are left out are still in the folder


def test_no_file_is_overwritten(coco_set, tmp_path):
    report = data.inspect(faulty(coco_set))
    for name in ("fixed.json", "fixed_changes.csv"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(data.DataError, match=f"{name}: exists already"):
            repair(report, tmp_path / "fixed.json")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_each_set_has_its_file_and_copies_leave_the_later_one(coco_set, tmp_path):
    rectangle, paths = coco_set.rectangle, []
    for name, seeds in (("train", (0, 1)), ("val", (1, 2))):
        pictures = [coco_set.noise(seed) for seed in seeds]
        paths.append(coco_set([[rectangle(2, 2, 30, 20)]] * 2, pictures, name=name))
    done = []
    written = repair(data.inspect(*paths), tmp_path / "out.json", lambda *numbers: done.append(numbers))
    assert [row[0].name for row in written] == ["out_train_all.json", "out_val_all.json"]
    assert [len(data.Coco(output, folder)) for output, _, folder, _ in written] == [2, 1]
    assert done[-1] == (3, 4)


def test_data_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="is no image file"):
        repair(data.inspect(data.Shapes(2)), tmp_path / "out.json")


def test_keypoints_survive_a_bad_record(coco_set, tmp_path):
    person = {"id": 1, "name": "person", "keypoints": ["left_eye", "right_eye"]}
    points = {"keypoints": [6, 6, 2, 20, 6, 1], "num_keypoints": 2}
    bad = coco_set.rectangle(2, 2, 30, 20, image_id=99, **points)
    path = coco_set([[coco_set.rectangle(5, 5, 20, 20, **points)], [bad]], categories=[person])
    report = data.inspect(path)
    [(output, *_)] = repair(report, tmp_path / "fixed.json")
    fixed = data.Coco(output, path / "images", keypoints=True, allow_outside=True)
    np.testing.assert_array_equal(fixed[0]["keypoints"], [[[6.5, 6.5, 2], [20.5, 6.5, 1]]])  # centres of pixels
