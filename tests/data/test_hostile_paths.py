"""Paths that lead to FIFOs, sockets and devices, and names in annotation files that lead out of their folder."""

import json
import os
import signal
import socket
import struct

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data, history
from keras_maskrcnn.cli import line_file
from keras_maskrcnn.data import idx, paths, tf_messages
from keras_maskrcnn.data.video import frames
from keras_maskrcnn.inference.export import opened
from keras_maskrcnn.weights import files, keras_file, preset_folder

REASON = "is not a regular file"


@pytest.fixture(autouse=True)
def at_most_ten_seconds():
    """Ends a test that hangs in the opening of a FIFO."""

    def expired(*_):
        raise TimeoutError("the test hangs")

    signal.signal(signal.SIGALRM, expired)
    signal.alarm(10)
    yield
    signal.alarm(0)


def assert_refused(function, *arguments, reason=REASON):
    with pytest.raises(data.DataError) as caught:
        function(*arguments)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


OPENINGS = {
    "a.png": data.read_image,
    "a.tif": data.read_image,
    "a.npy": data.read_image,
    "a.json": lambda path: data.Coco(path, path.parent),
    "lvis.json": lambda path: data.Lvis(path, path.parent),
    "via.json": data.Via,
    "labelme.json": lambda path: data.LabelMe(path.parent),
    "panoptic.json": lambda path: data.CocoPanoptic(path, path.parent, path.parent),
    "data.yaml": data.open,
    "classes.txt": data.open,
    "train.record": data.TfRecord,
    "b.record": data.open,
    "label_map.pbtxt": tf_messages.read_label_map,
    "table.csv": lambda path: data.OpenImages(path, path.parent, path.parent),
    "images.idx": lambda path: idx.read_idx(path, 3),
    "a.mp4": lambda path: next(frames(path)),
    "a.pth": files.read,
    "a.safetensors": files.read,
    "a.keras": keras_file.check,
    "a.weights.h5": keras_file.check,
    "a.onnx": opened,
    "a.tflite": opened,
    "config.json": preset_folder._json,
    "history.csv": history.read,
    "shard.jsonl": line_file.LineFile,
    "lines.jsonl": lambda path: list(line_file.read_lines(path)),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_fifo_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert_refused(OPENINGS[name], tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.json", "a.npy", "a.keras", "a.pth", "images.idx"])
def test_a_device_without_end_is_refused(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/zero")
    assert_refused(OPENINGS[name], tmp_path / name)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets have 100 characters at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.png")
        assert_refused(data.read_image, "a.png")


def test_a_fifo_behind_a_url_is_refused(tmp_path):
    os.mkfifo(tmp_path / "train.record")
    assert_refused(data.TfRecord, f"file://{tmp_path}/train.record")


def test_a_path_with_a_null_character():
    assert_refused(data.read_image, "a\0.png", reason="null")


def test_a_fifo_among_images_is_left_out_and_named(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in "ab":
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    os.mkfifo(tmp_path / "images" / "b.png")
    dataset = data.open(tmp_path)
    assert len(dataset) == 2 and len(dataset[0]["masks"]) == 1
    assert_refused(dataset.__getitem__, 1)
    (tmp_path / "labels" / "b.txt").unlink()
    os.mkfifo(tmp_path / "labels" / "b.txt")
    assert_refused(data.open, tmp_path)


@pytest.fixture
def places(tmp_path):
    """A folder `images` with `a.png` and a link to a folder elsewhere, and an image outside, `secret.png`."""
    for name in ("images", "elsewhere/inner"):
        (tmp_path / name).mkdir(parents=True)
    for path in ("images/a.png", "secret.png", "elsewhere/b.png", "elsewhere/a.png", "elsewhere/inner/c.png"):
        Image.new("RGB", (8, 8), (9, 9, 9) if path == "images/a.png" else (200, 0, 0)).save(tmp_path / path)
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    return tmp_path


OUTSIDE = ["../secret.png", "a/../../secret.png", "{root}/secret.png", "link/../../secret.png"]
POLYGON = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 4, "height": 4}}
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def coco(root, name, **options):
    content = {
        "images": [{"id": 1, "file_name": name, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "ant"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE}],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return data.Coco(root / "coco.json", root / "images", **options)


def via(root, name, **options):
    (root / "via.json").write_text(json.dumps({"1": {"filename": name, "regions": [POLYGON]}}))
    return data.Via(root / "via.json", root / "images", **options)


def panoptic(root, name, **options):
    (root / "panoptic").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (1, 0, 0)).save(root / "panoptic" / "a.png")
    segment = {"id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": name}],
        "categories": [{"id": 1, "name": "ant", "isthing": 1}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return data.CocoPanoptic(root / "panoptic.json", root / "images", **options)


@pytest.mark.parametrize("reader", [coco, via, panoptic])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_the_folder_of_images(places, reader, name):
    name = name.format(root=places)
    reason = "which is outside the folder of images (read it with allow_outside=True)"
    assert_refused(lambda: reader(places, name)[0], reason=reason)


@pytest.mark.parametrize("reader", [coco, via, panoptic])
@pytest.mark.parametrize("name", ["../secret.png", "{root}/secret.png"])
def test_a_name_that_may_lead_out(places, reader, name):
    sample = reader(places, name.format(root=places), allow_outside=True)[0]
    assert (sample["image"] == (200, 0, 0)).all()


@pytest.mark.parametrize("reader", [coco, via, panoptic])
@pytest.mark.parametrize("name", ["link/../a.png", "./a.png", "none/../a.png"])
def test_dots_are_resolved_before_links(places, reader, name):
    """`link/..` would be the folder `elsewhere` to the operating system, where there is another a.png."""
    assert (reader(places, name)[0]["image"] == 9).all()


@pytest.mark.parametrize("reader", [coco, via, panoptic])
def test_links_in_the_folder_are_followed(places, reader):
    (places / "images" / "photo.png").symlink_to(places / "secret.png")
    for name in ("photo.png", "link/c.png"):
        assert (reader(places, name)[0]["image"] == (200, 0, 0)).all()
    (places / "images").rename(places / "moved")
    (places / "images").symlink_to(places / "moved")
    assert (reader(places, "a.png")[0]["image"] == 9).all()


def test_the_mask_of_an_open_images_table(places):
    (places / "images" / "0a.jpg").write_bytes((places / "images" / "a.png").read_bytes())
    for name in ("../secret.png", f"{places}/secret.png"):
        (places / "table.csv").write_text(f"MaskPath,ImageID,LabelName\n{name},0a,/m/0cat\n")
        dataset = data.OpenImages(places / "table.csv", places / "images", places / "elsewhere")
        assert_refused(dataset.__getitem__, 0, reason=f"{paths.OUTSIDE}")


@pytest.mark.parametrize("name", ["../../secret", "{root}/secret"])
def test_a_list_of_names(places, name):
    (places / "train.txt").write_text(name.format(root=places) + "\n")
    for reader, folder in ((data.Nuclei, "stage1_train"), (data.PennFudan, "PNGImages")):
        (places / folder).mkdir()
        assert_refused(reader, places, reason=paths.OUTSIDE)
    for folder in ("SegmentationObject", "ImageSets/Segmentation"):
        (places / folder).mkdir(parents=True)
    (places / "train.txt").rename(places / "ImageSets" / "Segmentation" / "train.txt")
    assert_refused(data.Voc, places, reason=paths.OUTSIDE)


def test_lvis_names_no_option_that_it_lacks(places):
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    content = {
        "images": [{"id": 1, "coco_url": "http://a/../../x", "height": 8, "width": 8, **lists}],
        "categories": [{"id": 1, "name": "ant"}],
        "annotations": [],
    }
    content["images"][0]["coco_url"] = "http://a/../secret.png"
    (places / "lvis.json").write_text(json.dumps(content))
    with pytest.raises(data.DataError, match=r"which is outside the folder of images$"):
        data.Lvis(places / "lvis.json", places / "images")


def labelme(root, name):
    (root / "json").mkdir(exist_ok=True)
    shape = {"label": "ant", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
    (root / "json" / "a.json").write_text(json.dumps({"imagePath": name, "shapes": [shape]}))
    return data.LabelMe(root / "json")


@pytest.mark.parametrize("name", ["../images/a.png", r"..\images\a.png", "../json/../images/a.png"])
def test_labelme_writes_the_path_to_a_folder_beside(places, name):
    assert (labelme(places, name)[0]["image"] == 9).all()


@pytest.mark.parametrize("name", ["../../{name}/images/a.png", "{root}/images/a.png", "../../secret.png"])
def test_labelme_reads_nothing_from_further_away(places, name):
    dataset = labelme(places, name.format(root=places, name=places.name))
    assert_refused(dataset.__getitem__, 0, reason="no such file")
    Image.new("RGB", (8, 8), (5, 5, 5)).save(places / "json" / name.split("/")[-1])
    assert (labelme(places, name.format(root=places, name=places.name))[0]["image"] == 5).all()


def test_labelme_prefers_the_image_next_to_its_file(places):
    dataset = labelme(places, "../images/a.png")
    Image.new("RGB", (8, 8), (5, 5, 5)).save(places / "json" / "a.png")
    assert (labelme(places, "../images/a.png")[0]["image"] == 5).all()
    assert (dataset[0]["image"] == 9).all()


def test_a_data_yaml_says_where_the_images_are(places):
    for folder in ("data/images/train", "data/labels/train", "config"):
        (places / folder).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(places / "data" / "images" / "train" / "a.png")
    (places / "data" / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    for path in (f"path: {places}/data\ntrain: images/train", f"train: {places}/data/images/train"):
        (places / "config" / "data.yaml").write_text(f"{path}\nnames: [ant]\n")
        assert len(data.open(places / "config" / "data.yaml", "train")[0]["masks"]) == 1
    (places / "config" / "data.yaml").write_text("path: ../data\ntrain: images/train\nnames: [ant]\n")
    assert len(data.open(places / "config", "train")) == 1
    for folder in ("/", str(places), ".."):
        (places / "config" / "data.yaml").write_text(f"train: {folder}\nnames: [ant]\n")
        assert_refused(data.open, places / "config", reason="which holds the folder of the file itself")


def test_a_name_of_any_length(places):
    for name in ("x" * 300, "y/" * 5000, "z" * 10**6):
        for reader in (coco, via, panoptic, labelme):
            dataset = reader(places, name)
            with pytest.raises(data.DataError) as caught:
                dataset[0]
            assert len(str(caught.value)) < 4000 and "\n" not in str(caught.value)


def test_an_idx_header_is_not_read_from_a_device(tmp_path):
    (tmp_path / "images").write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3))
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "images", 1), np.zeros(3))
