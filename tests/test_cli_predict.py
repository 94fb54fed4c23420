"""Inputs and results of `predict`, with a model that finds each bright rectangle of an image."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn.cli import main, predict
from keras_maskrcnn.data.image_type import RGB, ImageType
from keras_maskrcnn.data.run_lengths import decode
from keras_maskrcnn.evaluation import encode_mask
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, Output

SCHEMA = (*OUTPUTS, Output("masks", "box_masks"))
LEVELS = (250, 200, 150)  # of the rectangles' red channel: objects 1 (dog), 2 (cat), 3 (cat)


class Rectangles:
    """Finds each rectangle of one of the `LEVELS`; notes the options that it is called with."""

    class_names, schema, image_type = ("cat", "dog"), SCHEMA, RGB
    called = None

    def detect_each(self, images, **options):
        type(self).called = options
        for image in images:
            masks = np.stack([np.abs(image[..., 0].astype(int) - level) < 12 for level in LEVELS])
            there = masks.any(axis=(1, 2))
            boxes = [
                [*np.argwhere(mask).min(axis=0)[::-1], *(np.argwhere(mask).max(axis=0) + 1)[::-1]]
                for mask in masks[there]
            ]
            arrays = {
                "boxes": np.float32(boxes).reshape(-1, 4),
                "labels": np.int32([2, 1, 1])[there],
                "scores": np.float32([0.9, 0.8, 0.7])[there],
                "masks": masks[there],
            }
            yield Detections(arrays, SCHEMA)


def scene():
    """30 x 40 pixels: a dog of 10 x 8, a cat of 4 x 5 that overlaps nothing, and one of 2 x 2."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[2:12, 3:11, 0], image[20:24, 30:35, 0], image[27:29, 1:3, 0] = LEVELS
    return image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory: photos with a folder inside, and files that are not read."""
    monkeypatch.setattr(predict, "load", lambda path: Rectangles())
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.png", "photos/b.png", "photos/more/c.png"):
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene()).save(name)
    for name in ("photos/phone.heic", "photos/notes.txt", "photos/README"):
        pathlib.Path(name).write_text("not an image")
    return tmp_path


def run(*words, code=0):
    assert main(["predict", *map(str, words), "--model", "none", "--output", "out"]) == code


@pytest.mark.parametrize("image_type", [ImageType(2), ImageType(4, "uint16")])
def test_cut_outs_of_other_images_are_shown_as_overlays_are(folder, monkeypatch, image_type):
    monkeypatch.setattr(Rectangles, "image_type", image_type)
    levels = scene()[..., :1].repeat(image_type.channels, axis=2)
    np.save("cells.npy", levels.astype(image_type.dtype))
    run("cells.npy", "--cutouts", "--no-overlays")
    cut = Image.open("out/cutouts/cells_001.png")
    assert cut.mode == "RGBA" and cut.size == (8, 10)


def test_files_that_are_not_read_are_listed(folder, capsys):
    run("photos")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line for line in printed.out.splitlines() if line.startswith("skipped")] == [
        "skipped: photos/README: has no ending of an image or video",
        "skipped: photos/more: is a folder; --recursive reads it",
        "skipped: photos/notes.txt: .txt is no ending of an image or video",
        "skipped: photos/phone.heic: .heic is not read; convert it to JPEG or PNG",
    ]
    assert printed.out.endswith("2 images done, 0 failed, 4 skipped\n")


def test_folders_inside_folders(folder, capsys):
    run("photos", "--recursive")
    assert "[3/3] photos/more/c.png: 3 objects -> out/c.png" in capsys.readouterr().out


def test_a_link_to_a_folder_that_contains_it_is_not_followed(folder, capsys):
    pathlib.Path("photos/more/up").symlink_to(folder / "photos")
    run("photos", "--recursive")
    printed = capsys.readouterr().out
    assert "skipped: photos/more/up: is a link to a folder that contains it\n" in printed
    assert "3 images done, 0 failed, 4 skipped\n" in printed


def test_a_named_file_that_cannot_be_read_is_an_error(folder, capsys):
    run("photos/phone.heic", "photos/a.png", "nowhere*.png", code=2)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "error: photos/phone.heic: .heic is not read; convert it to JPEG or PNG",
        "error: nowhere*.png: no file matches this pattern",
    ]
    assert printed.out.endswith("1 image done, 2 failed\n")


def test_patterns_and_lists_on_stdin(folder, capsys, monkeypatch):
    run("photos/**/?.png")
    assert "3 images done, 0 failed\n" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/a.png\n\nphotos/gone.png\nphotos/more\n"))
    run("-", code=2)
    printed = capsys.readouterr()
    assert printed.err == "error: photos/gone.png: no such file or folder\n"
    assert "[1] photos/a.png: 3 objects" in printed.out and "2 images done, 1 failed" in printed.out


def test_rows_of_the_table_by_hand(folder):
    run("photos/a.png", "--csv", "out/found.csv", "--no-overlays")
    with open("out/found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["class"], row["score"]) for row in rows] == [
        ("1", "dog", "0.9000"),
        ("2", "cat", "0.8000"),
        ("3", "cat", "0.7000"),
    ]
    dog = rows[0]
    assert [dog[name] for name in ("file", "frame", "x1", "y1", "x2", "y2")] == [
        "photos/a.png", "", "3.00", "2.00", "11.00", "12.00",
    ]  # fmt: skip
    assert (dog["area"], dog["centroid_x"], dog["centroid_y"]) == ("80", "7.00", "7.00")
    # √(4 · 80 / π); π / 8 · (2 · 10 + 2 · 8 + 4 · 17 / √2)
    assert (dog["equivalent_diameter"], dog["circumference"]) == ("10.09", "33.02")
    assert not pathlib.Path("out/a.png").exists()


def test_id_images_and_cut_outs(folder):
    run("photos/a.png", "--ids", "--cutouts", "--json", "found.json")
    ids = Image.open("out/ids/a.png")
    assert ids.mode.startswith("I;16")
    masks = [scene()[..., 0] == level for level in LEVELS]
    for number, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(np.asarray(ids) == number, mask)
    cut = np.asarray(Image.open("out/cutouts/a_002.png"))
    assert cut.shape == (4, 5, 4) and (cut[..., 3] == 255).all() and (cut[..., 0] == 200).all()
    found = json.loads(pathlib.Path("found.json").read_text())
    assert [result["segmentation"] for result in found] == [encode_mask(mask) for mask in masks]
    assert decode([found[0]["segmentation"]], (30, 40)).sum() == 80


def test_the_higher_score_is_visible_where_objects_overlap(folder, monkeypatch):
    def detect_each(self, images, **options):
        for image in images:
            masks = np.zeros((2, *image.shape[:2]), bool)
            masks[0, :10], masks[1, 5:15] = True, True
            boxes = np.float32([[0, 0, 40, 10], [0, 5, 40, 15]])
            arrays = {"boxes": boxes, "labels": np.int32([1, 1]), "scores": np.float32([0.9, 0.8]), "masks": masks}
            yield Detections(arrays, SCHEMA)

    monkeypatch.setattr(Rectangles, "detect_each", detect_each)
    run("photos/a.png", "--ids")
    assert np.asarray(Image.open("out/ids/a.png"))[:, 0].tolist() == [1] * 10 + [2] * 5 + [0] * 15


def test_an_image_is_not_replaced_by_its_overlay(folder, capsys):
    before = pathlib.Path("photos/a.png").read_bytes()
    assert main(["predict", "photos/a.png", "--model", "none", "--output", "photos"]) == 2
    reason = "its overlay would replace it; give another folder as --output"
    assert capsys.readouterr().err == f"error: photos/a.png: {reason}\n"
    assert pathlib.Path("photos/a.png").read_bytes() == before


def test_classes_are_chosen_by_name(folder, capsys):
    run("photos/a.png", "--classes", "cat", "--json", "found.json")
    assert {result["category_name"] for result in json.loads(pathlib.Path("found.json").read_text())} == {"cat"}
    capsys.readouterr()
    run("photos/a.png", "--classes", "cat", "horse", code=2)
    assert capsys.readouterr().err == "error: --classes horse: the model has cat, dog\n"


@pytest.mark.parametrize(
    "names", [("--score", "--nms", "--max"), ("--score-threshold", "--nms-iou", "--max-detections")]
)
def test_thresholds_and_tiles_reach_the_model(folder, names):
    score, nms, most = names
    run("photos/a.png", score, 0.3, nms, 0.4, most, 7, "--tiles", 20, 30, "--overlap", 5)
    expected = {"score_threshold": 0.3, "nms_iou": 0.4, "max_detections": 7, "tiles": (20, 30), "overlap": 5}
    assert Rectangles.called.items() >= {**expected, "masks": "cropped"}.items()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--every", "0"], "--every 0: must be at least 1"),
        (["--csv", "photos"], "--csv photos: is a folder, not a file"),
        (["--tta", "turn"], "--tta turn: must be flip, factors of the size, or both, such as flip,0.75,1.25"),
        (["--tta", "1"], "test-time augmentation needs flip=True or a scale other than 1"),
    ],
)
def test_options_that_make_no_sense(folder, capsys, words, reason):
    run("photos/a.png", *words, code=2)
    assert capsys.readouterr().err == f"error: {reason}\n"


def test_a_stopped_run_keeps_what_it_has(folder, monkeypatch):
    """After each image the files are complete, so that nothing is lost whichever way the process ends."""
    complete = []

    def interrupted(self, images, **options):
        for found in Rectangles().detect_each(images):
            yield found
            complete.append(json.loads(pathlib.Path("found.json").read_text()))
            if len(complete) == 2:
                raise KeyboardInterrupt

    class Stopped(Rectangles):
        detect_each = interrupted

    monkeypatch.setattr(predict, "load", lambda path: Stopped())
    run("photos", "--recursive", "--json", "found.json", "--csv", "found.csv", code=130)
    assert [len(results) for results in complete] == [3, 6]
    assert len(json.loads(pathlib.Path("found.json").read_text())) == 6
    assert len(pathlib.Path("found.csv").read_text().splitlines()) == 1 + 6


def test_a_model_without_masks(folder, capsys, monkeypatch):
    def detect_each(self, images, **options):
        for _ in images:
            arrays = {"boxes": np.float32([[3, 2, 11, 12]]), "labels": np.int32([2]), "scores": np.float32([0.9])}
            yield Detections(arrays, OUTPUTS)

    monkeypatch.setattr(Rectangles, "detect_each", detect_each)
    run("photos/a.png", "--cutouts", "--csv", "found.csv")
    assert Image.open("out/cutouts/a_001.png").size == (8, 10)
    assert (
        pathlib.Path("found.csv").read_text().splitlines()[1] == "photos/a.png,,1,dog,0.9000,3.00,2.00,11.00,12.00,,,,,"
    )
    capsys.readouterr()
    run("photos/a.png", "--ids", code=2)
    assert capsys.readouterr().err == "error: photos/a.png: --ids needs masks, and the model predicts none\n"


def test_many_files_need_little_time_for_their_names():
    files = [pathlib.Path(f"{number}/same.png") for number in range(50_000)]
    assert predict.unique_names(files)[-1] == "same_50000"


# Videos -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(folder):
    """A video of six frames of the scene, which moves down."""
    pytest.importorskip("av", reason="the extra video is not installed")
    from keras_maskrcnn.data.video import VideoWriter

    writer = VideoWriter(folder / "clip.mp4", 5)
    for shift in range(6):
        writer.add(np.roll(scene(), shift, axis=0))
    writer.close()
    return "clip.mp4"


def test_a_video_becomes_a_video_with_overlays(clip, capsys):
    from keras_maskrcnn.data.video import frames

    run(clip, "photos/a.png", "--json", "found.json", "--every", "2")
    printed = capsys.readouterr().out
    assert "[1/2] clip.mp4: 3 frames, " in printed and "-> out/clip.mp4" in printed
    assert "1 image and 3 frames done, 0 failed" in printed
    overlays = list(frames("out/clip.mp4"))
    assert len(overlays) == 3 and overlays[0][2] == 2.5
    found = json.loads(pathlib.Path("found.json").read_text())
    assert {(result["image_id"], result.get("frame")) for result in found} == {
        ("clip/000000", 0), ("clip/000002", 2), ("clip/000004", 4), ("a", None),
    }  # fmt: skip


def test_frames_as_files(clip):
    run(clip, "--frames", "--ids", "--every", "5")
    names = sorted(str(path) for path in pathlib.Path("out").rglob("*.png"))
    assert names == ["out/clip/000000.png", "out/clip/000005.png", "out/ids/clip/000000.png", "out/ids/clip/000005.png"]
    assert not pathlib.Path("out/clip.mp4").exists()


def test_a_damaged_video_is_named_and_the_others_are_processed(clip, capsys):
    pathlib.Path("bad.mp4").write_bytes(b"no video" * 20)
    run("bad.mp4", clip, code=2)
    printed = capsys.readouterr()
    assert printed.err.startswith("error: bad.mp4: cannot be read as a video") and printed.err.count("\n") == 1
    assert "0 images and 6 frames done, 1 failed" in printed.out


def test_a_video_whose_frames_cannot_be_written_is_one_message(clip, capsys):
    assert main(["predict", clip, "--model", "none", "--output", "."]) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: clip.mp4: its overlay would replace it; give another folder as --output\n"
    assert "0 images done, 1 failed" in printed.out


def test_a_camera_that_is_absent_is_named(clip, capsys):
    run("87", code=2)
    error = capsys.readouterr().err
    assert error.startswith("error: camera 87") and error.count("\n") == 1
