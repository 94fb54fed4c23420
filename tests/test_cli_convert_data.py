"""`convert-data` as a user runs it: three formats, all splits, bad input left out or an error."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.cli import main


@pytest.fixture
def photos(tmp_path):
    """A COCO folder with two splits, of three and one photos."""
    for split, names in (("train", "abc"), ("val", "d")):
        (tmp_path / "in" / split).mkdir(parents=True)
        images = [{"id": i, "file_name": f"{name}.png", "height": 40, "width": 60} for i, name in enumerate(names)]
        box = {"category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 10, 1, 10, 10, 1, 10]]}
        annotations = [{"id": i, "image_id": i, **box} for i in range(len(names))]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "pear"}]}
        for name in names:
            pixels = np.random.default_rng(ord(name)).integers(0, 255, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "in" / split / f"{name}.png")
        (tmp_path / "in" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "in" / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path / "in"


def converted(capsys, *words, code=0):
    """What a run prints, on stdout and stderr."""
    assert main(["convert-data", *map(str, words)]) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("out", "words", "files"),
    [
        ("x.json", [], ["x_train.json", "x_val.json"]),
        ("x", ["--format", "coco"], ["x/train.json", "x/val.json"]),
        ("x.tfrecord", ["--shards", "1"], ["x_train.tfrecord-00000-of-00001", "x_val.tfrecord-00000-of-00001"]),
        ("x", ["--format", "tfrecord"], ["x/train.tfrecord-00000-of-00001", "x/val.tfrecord-00000-of-00001"]),
        ("x/data.yaml", [], ["x/data.yaml", "x/images/train/a.png", "x/labels/val/d.txt"]),
        ("x", ["--format", "yolo"], ["x/data.yaml", "x/images/train/a.png", "x/labels/val/d.txt"]),
    ],
)
def test_all_splits_are_written(photos, tmp_path, capsys, out, words, files):
    (tmp_path / "out").mkdir()
    printed = converted(capsys, photos, tmp_path / "out" / out, *words).out
    assert all((tmp_path / "out" / file).is_file() for file in files), sorted((tmp_path / "out").rglob("*"))
    assert "3 images" in printed and "1 image" in printed
    if out != "x.json" and words != ["--format", "coco"]:  # whose images stay where they are
        train, val = data.splits(tmp_path / "out" / ("x" if (tmp_path / "out" / "x").is_dir() else ""))
        assert (len(train), len(val), train.class_names) == (3, 1, ["pear"])
        np.testing.assert_array_equal(val[0]["masks"], data.open(photos, "val")[0]["masks"])


def test_one_split(photos, tmp_path, capsys):
    printed = converted(capsys, photos, "--split", "val", "--output", tmp_path / "x.json").out
    assert f"{tmp_path / 'x.json'}: 1 image in {photos / 'val'}" in printed and "--annotations" in printed
    converted(capsys, photos, tmp_path / "x.record", "--split", "train", "--shards", 3)
    assert len(data.TfRecord(tmp_path / "x.record")) == 3 and len(list(tmp_path.glob("x.record-*"))) == 3


def test_yolo_says_what_it_joins_and_measures(photos, tmp_path, capsys):
    path = photos / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"].append([20, 20, 30, 20, 30, 30, 20, 30])
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1})
    path.write_text(json.dumps(content))
    printed = converted(capsys, photos, tmp_path / "x", "--format", "yolo", "--split", "val").out
    assert "1 image, 1 instance" in printed and "mean 1.0000, least 1.0000" in printed
    assert "1 of several parts and 0 with holes" in printed and "1 crowd left out" in printed


@pytest.mark.parametrize(("kind", "out"), [("coco", "x.json"), ("yolo", "x"), ("tfrecord", "x")])
def test_bad_input_is_listed_or_stops(photos, tmp_path, capsys, kind, out):
    content = (photos / "train" / "b.png").read_bytes()
    (photos / "train" / "b.png").write_bytes(content[: len(content) // 2])
    found = converted(capsys, photos, tmp_path / out, "--format", kind, "--split", "train")
    assert "2 images" in found.out and "left out, of images and annotations: 1" in found.err and "b.png" in found.err
    strict = converted(capsys, photos, tmp_path / "strict" / out, "--format", kind, "--strict", code=2)
    assert "error: " in strict.err and "b.png: cannot be read as an image" in strict.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["x.txt"], "x.txt: give --format coco, yolo or tfrecord"),
        ([], "give one OUT"),
        (["x.json", "--output", "y.json"], "give OUT or --output, not both"),
        (["x.json", "--shards", "2"], "--shards is for --format tfrecord"),
        (["x.json", "--split", "none"], "holds the splits train, val"),
    ],
)
def test_arguments_that_do_not_fit(photos, capsys, words, reason):
    assert reason in converted(capsys, photos, *words, code=2).err


@pytest.mark.parametrize("kind", ["coco", "yolo", "tfrecord"])
def test_conversion_needs_no_keras(photos, tmp_path, kind):
    code = "import sys; from keras_maskrcnn.cli import main; main(sys.argv[1:]); sys.exit('keras' in sys.modules)"
    words = ["convert-data", photos, tmp_path / "out", "--format", kind]
    answer = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert answer.returncode == 0 and "images" in answer.stdout, answer.stderr


def test_the_next_command_can_be_copied(photos, tmp_path, capsys):
    spaced = photos.rename(tmp_path / "my photos")
    words = shlex.split(converted(capsys, spaced, tmp_path / "the file.json", "--split", "train").out.splitlines()[-1])
    options = {"--annotations": tmp_path / "the file.json", "--images": spaced / "train", "--output": "runs/mine"}
    assert words == ["next:", "python", "train/coco.py", *(str(word) for pair in options.items() for word in pair)]
