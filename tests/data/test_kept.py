"""The index of a large file is kept: equal to the first one, made anew where the file changed, no reason to fail."""

import json
import logging
import os
import pickle

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import coco_file, kept

SQUARE = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "bbox": [2, 1, 4, 3]}
FLAT = {**SQUARE, "bbox": [2, 1, 0, 3]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder in which the index of any file is kept."""
    monkeypatch.setenv("KMR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(kept, "MIN_BYTES", 0)
    return tmp_path / "kept"


@pytest.fixture
def count_scans(monkeypatch):
    """List that grows by one path for each file that is scanned."""
    scans, scanned = [], coco_file._scanned

    def counted(path, options):
        scans.append(path)
        return scanned(path, options)

    monkeypatch.setattr(coco_file, "_scanned", counted)
    return scans


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], key)


def test_the_second_opening_reads_the_index_only(coco_folder, folder, count_scans):
    annotations = [SQUARE, FLAT, {**SQUARE, "category_id": 7, "image_id": 1}, {**SQUARE, "iscrowd": 1}]
    path, images = coco_folder(annotations, images=("a.png", "b.png", "ö.png"))
    assert coco_file.kept_index(path, coco_file.Options()) is None
    first, second = data.Coco(path, images), data.Coco(path, images)
    assert len(count_scans) == 1 and coco_file.kept_index(path, coco_file.Options()).image_ids == [0, 1, 2]
    assert first.dropped == second.dropped == {11: "its box has no width"}
    assert (first.class_names, first.category_ids) == (second.class_names, second.category_ids)
    assert [dict(image) for image in first.images] == list(second.images) and second.images[-1]["file_name"] == "ö.png"
    for position in range(3):
        same(first[position], second[position])
        assert first.coco_annotations(position) == second.coco_annotations(position)
    assert second.labels_at(0).tolist() == [1, 1] and second.labels_at(1).tolist() == [2]
    assert data.open(path).class_names == first.class_names and len(count_scans) == 1


def test_the_options_that_change_an_index_have_their_own(coco_folder, folder, count_scans):
    record = {"id": 0, "file_name": "../one.png", "height": 8, "width": 10}
    path, images = coco_folder([SQUARE], records=[record])
    data.Coco(path, images, allow_outside=True)
    with pytest.raises(data.DataError, match="outside the folder"):
        data.Coco(path, images)


def test_a_changed_file_is_scanned_again(coco_folder, folder, count_scans):
    path, images = coco_folder([SQUARE])
    before = data.Coco(path, images)
    coco_folder([SQUARE, SQUARE])
    os.utime(path, ns=(0, 0))
    assert len(data.Coco(path, images)[0]["labels"]) == 2 and len(count_scans) == 2
    with pytest.raises(data.DataError, match="has been changed since it was opened"):
        before[0]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("length", [0, 100, 1000])
def test_a_damaged_index_is_made_again(coco_folder, folder, count_scans, length):
    path, images = coco_folder([SQUARE])
    data.Coco(path, images)
    (file,) = folder.iterdir()
    assert file.stat().st_size > 1000
    os.truncate(file, length)
    for _ in range(2):
        assert len(data.Coco(path, images)[0]["labels"]) == 1
    assert len(count_scans) == 2


def test_without_a_place_to_write_it_works(coco_folder, folder, monkeypatch, caplog):
    folder.write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING):
        assert len(data.Coco(*coco_folder([SQUARE]))[0]["labels"]) == 1
    assert "cannot be kept" in caplog.text
    monkeypatch.delenv("KMR_CACHE")
    monkeypatch.setattr("pathlib.Path.expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(data.Coco(*coco_folder([SQUARE]))[0]["labels"]) == 1


def test_a_failed_write_leaves_no_part(coco_folder, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    data.Coco(*coco_folder([SQUARE]))
    assert list(folder.iterdir()) == []


def test_names_and_ids_may_be_any_text(coco_folder, folder):
    path, images = coco_folder([{**SQUARE, "image_id": "ä"}])
    content = json.loads(path.read_text())
    content["images"][0]["id"], content["categories"][1]["name"] = "ä", "斑馬"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    for _ in range(2):
        coco = data.Coco(path, images)
        assert coco.class_names[0] == "斑馬" and coco[0]["image_id"] == "ä" and len(coco.coco_annotations("ä")) == 1


def test_small_files_have_no_index(coco_folder, folder, monkeypatch):
    monkeypatch.setattr(kept, "MIN_BYTES", 2**24)
    data.Coco(*coco_folder([SQUARE]))
    assert not folder.exists()


def test_a_reader_can_be_sent_to_another_process(coco_folder):
    coco = data.Coco(*coco_folder([SQUARE]))
    same(pickle.loads(pickle.dumps(coco))[0], coco[0])


def test_keypoints_have_an_index_of_their_own(coco_folder, folder, count_scans):
    names = ["left_eye", "right_eye"]
    categories = [{"id": 3, "name": "zebra", "keypoints": names}]
    annotations = [{**SQUARE, "keypoints": [1, 1, 2, 3, 2, 1]}, {**SQUARE, "keypoints": [1, 1, 9, 0, 0, 0]}, SQUARE]
    path, images = coco_folder(annotations, categories=categories)
    assert data.Coco(path, images).dropped == {} and data.Coco(path, images).fields == ()
    for _ in range(2):  # the index of either kind tells that there are keypoints
        found = data.open(path)
        assert list(found.dropped) == [11] and found.fields[0].names == tuple(names)
        assert found.labels_at(0).tolist() == [1, 1] and found[0]["keypoints"][0].tolist() == [
            [1.5, 1.5, 2],
            [3.5, 2.5, 1],
        ]
    assert len(data.Coco(path, images)[0]["labels"]) == 3 and len(count_scans) == 2
    same(pickle.loads(pickle.dumps(found))[0], found[0])


def test_lvis_has_an_index_of_its_own(coco_folder, folder, count_scans):
    record = {"id": 0, "file_name": "old.png", "coco_url": "http://a/val2017/one.png", "height": 8, "width": 10}
    record |= {"neg_category_ids": [7], "not_exhaustive_category_ids": [3]}
    path, images = coco_folder([SQUARE], records=[record])
    assert data.Coco(path, images).images[0]["file_name"] == "old.png"
    for _ in range(2):
        found = data.open(path)
        assert type(found) is data.Lvis and found[0]["source"] == str(images / "one.png")
        assert found.absent_at(0).tolist() == [2] and found.incomplete_at(0).tolist() == [1]
    assert len(count_scans) == 2
