"""Image and category ids of `predict --json`, with a model that finds one object of each class in every image."""

import json
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.cli import main, predict
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections


class OneOfEach:
    class_names: ClassVar = ["cat", "dog"]
    image_type, schema = data.ImageType(), OUTPUTS

    def detect_each(self, images, **options):
        for image in images:
            height, width = image.shape[:2]
            boxes = np.float32([[0, 0, width, height]] * 2)
            yield Detections({"boxes": boxes, "labels": np.int32([1, 2]), "scores": np.float32([0.9, 0.8])}, OUTPUTS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of images whose names collide, and the current directory."""
    monkeypatch.setattr(predict, "load", lambda path: OneOfEach())
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "b/x.jpg", "same.jpg", "same.png", "5.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10)).save(path)
    return tmp_path


def results(*inputs, annotations=None, code=0):
    arguments = ["predict", "--model", "none", *map(str, inputs), "--output", "out", "--json", "found.json"]
    assert main([*arguments, *(["--annotations", str(annotations)] if annotations else [])]) == code
    with open("found.json") as file:
        return json.load(file)


def coco_file(folder, *images, categories=((7, "dog"), (3, "cat")), size=(10, 20)):
    """A COCO file of (id, file name) pairs without annotations."""
    content = {
        "images": [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in images],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_images_of_equal_names_have_different_ids(folder):
    found = results("a/x.jpg", "b/x.jpg", "same.jpg", "same.png")
    ids = {result["image_id"]: result["file_name"] for result in found}
    assert ids == {"x": "a/x.jpg", "x_2": "b/x.jpg", "same": "same.jpg", "same_2": "same.png"}
    assert all((folder / "out" / f"{name}.png").is_file() for name in ids)
    assert len(found) == 8


def test_a_number_as_file_name_is_not_the_id_of_another_image(folder):
    assert {result["image_id"] for result in results("5.jpg")} == {"5"}


def test_ids_are_those_of_a_coco_file(folder):
    path = coco_file(folder, (13, "5.jpg"), (5, "other.jpg"), (21, "a/x.jpg"), (22, "b/x.jpg"))
    found = results("5.jpg", "a", folder / "b" / "x.jpg", annotations=path)
    assert [result["image_id"] for result in found] == [13, 13, 21, 21, 22, 22]
    assert [(result["category_id"], result["category_name"]) for result in found[:2]] == [(3, "cat"), (7, "dog")]


def test_the_folder_of_a_file_decides_which_image_it_is(folder, monkeypatch):
    path = coco_file(folder, (1, "x.jpg"), (22, "b/x.jpg"))
    monkeypatch.chdir(folder / "b")
    assert {result["image_id"] for result in results("x.jpg", annotations=path)} == {22}


def test_a_coco_file_may_have_absolute_names(folder):
    path = coco_file(folder, (1, str(folder / "a" / "x.jpg")), (2, "../elsewhere/x.jpg"))
    assert {result["image_id"] for result in results("a/x.jpg", annotations=path)} == {1}


def test_files_that_a_coco_file_does_not_list_once_are_named(folder, capsys):
    path = coco_file(folder, (1, "same.png"), (2, "x.jpg"), (3, "5.jpg"), (4, "5.jpg"))
    found = results("same.png", "same.jpg", "a/x.jpg", "b/x.jpg", "5.jpg", annotations=path, code=2)
    assert {result["image_id"] for result in found} == {1, 2}
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"error: same.jpg: {path} lists no such image",
        f"error: b/x.jpg: has the file name of a/x.jpg in {path}",
        f"error: 5.jpg: {path} lists 2 images of this file name",
    ]


def test_classes_without_a_category_are_left_out(folder, capsys):
    found = results("5.jpg", annotations=coco_file(folder, (1, "5.jpg"), categories=((4, "dog"), (5, "cow"))))
    assert [(result["category_id"], result["category_name"]) for result in found] == [(4, "dog")]
    assert "not in the COCO results, because instances.json has no such category: cat\n" in capsys.readouterr().out


@pytest.mark.parametrize("names", [["horse", "cow"], None])
def test_classes_that_do_not_fit_are_an_error(names, folder, monkeypatch, capsys):
    monkeypatch.setattr(OneOfEach, "class_names", names)
    path = coco_file(folder, (1, "5.jpg"))
    arguments = ["predict", "--model", "none", "5.jpg", "--output", "out", "--json", "found.json"]
    assert main([*arguments, "--annotations", str(path)]) == 2
    shown = ", ".join(names) if names else "no class names"
    assert capsys.readouterr().err == f"error: {path}: the categories are cat, dog, the model has {shown}\n"


def test_the_image_has_the_size_in_the_coco_file(folder, capsys):
    """A photo with an EXIF orientation is read so that it fits the annotations."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 10)).save(folder / "turned.jpg", exif=turned)
    for size in ((10, 20), (20, 10)):
        path = coco_file(folder, (1, "turned.jpg"), size=size)
        assert results("turned.jpg", annotations=path)[0]["bbox"] == [0, 0, size[1], size[0]]
    assert results("turned.jpg", annotations=coco_file(folder, (1, "turned.jpg"), size=(7, 9)), code=2) == []
    assert capsys.readouterr().err == "error: turned.jpg: is 20 x 10 pixels, but 9 x 7 in the COCO file\n"


def test_annotations_without_json_are_an_error(folder, capsys):
    path = coco_file(folder, (1, "5.jpg"))
    assert main(["predict", "--model", "m", "5.jpg", "--output", "out", "--annotations", str(path)]) == 2
    assert capsys.readouterr().err == "error: --annotations sets the ids in --json, which is not given\n"
