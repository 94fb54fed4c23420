"""The recipe of digits: what its page computes, and a small run that is stopped in the middle."""

import argparse
import gzip
import json
import pathlib
import struct
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train"))

from digits_report import classifier, loss, networks, straight_line, upsampling
from keras_maskrcnn import FCN, MaskRCNN, data
from keras_maskrcnn.models.convolutionalise import convolutionalise
from keras_maskrcnn.models.image_model import ImageModel
from keras_maskrcnn.training import recipe


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """IDX files of 100 images, in which digit d is a square ring whose side is 8 + d pixels."""
    folder = tmp_path_factory.mktemp("digits")
    labels = np.arange(100) % 10
    images = np.zeros((100, 20, 20), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[1 : 9 + label, 1 : 9 + label] = 255
        image[4 : 6 + label, 4 : 6 + label] = 0
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    return folder / "images-idx3.gz"


# The straight line ------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_loss():
    x, y = straight_line.points()
    line, small = np.array([0.3, -0.7]), 1e-6
    steps = small * np.eye(2)
    slope = [(straight_line.loss(line + s, x, y) - straight_line.loss(line - s, x, y)) / (2 * small) for s in steps]
    np.testing.assert_allclose(straight_line.gradient(line, x, y), slope, rtol=1e-6)
    # By hand: the line y = 1 at the points (0, 0) and (2, 2) has the errors 1 and -1.
    points = np.array([0.0, 2.0]), np.array([0.0, 2.0])
    assert straight_line.loss([0, 1], *points) == pytest.approx(0.5)
    assert straight_line.gradient([0, 1], *points).tolist() == [-1, 0]
    np.testing.assert_allclose(straight_line.minimum(*points), [1, 0], atol=1e-12)


def test_full_batches_shrink_the_distance_to_the_minimum_as_the_matrix_says():
    x, y = straight_line.points()
    rate, steps, best = 0.5, 7, straight_line.minimum(x, y)
    curvature = np.array([[np.mean(x * x), np.mean(x)], [np.mean(x), 1]])
    shrink = np.linalg.matrix_power(np.eye(2) - rate * curvature, steps)
    lines = straight_line.descend(straight_line.Descent("", len(x), rate), x, y, passes=steps)
    assert lines.shape == (steps + 1, 2)
    np.testing.assert_allclose(lines[-1], best + shrink @ (np.array(straight_line.START) - best), atol=1e-9)


def test_single_points_are_faster_and_come_to_rest_with_a_falling_rate():
    x, y = straight_line.points()
    best = straight_line.loss(straight_line.minimum(x, y), x, y)
    found = {
        each.name: straight_line._summary(straight_line.loss(straight_line.descend(each, x, y), x, y) - best)
        for each in straight_line.DESCENTS
    }
    full, _, single, falling = found.values()
    assert [row["steps"] for row in found.values()] == [20, 200, 4000, 4000]
    assert single["first_pass"] < full["first_pass"] / 20
    assert 0 < falling["last_pass"] < single["last_pass"] / 5


# The classifier ---------------------------------------------------------------------------------------------------


def test_windows_lie_around_digits_or_on_none(source):
    images = data.Digits(12, source=source, digit_size=classifier.SIZES, digits=(3, 6), colour=False, noise=(0, 0))
    pixels, labels = classifier.windows(images)
    assert pixels.shape[1:] == (32, 32, 3) and pixels.dtype == np.uint8 and set(labels) == set(range(11))
    ink = pixels[..., 0] > 128
    assert (ink[labels > 0].sum((1, 2)) > 60).all()
    rows = np.arange(32)[:, None]
    centres = [(mask * rows).sum() / mask.sum() for mask in ink[labels > 0]]
    assert abs(np.median(centres) - 15.5) < 2
    assert len(pixels) - np.count_nonzero(labels) <= 12


def test_each_cell_of_the_score_map_is_the_classifier_on_its_window(source):
    model = classifier.build()
    image = data.Digits(1, (52, 64), source=source, digit_size=classifier.SIZES)[0]["image"]
    dense = convolutionalise(model)
    scores = dense.predict(image[None], verbose=0)[0]
    assert scores.shape == (6, 9, 11)  # (52 - 32) / 4 + 1 and (64 - 32) / 4 + 1
    assert classifier.difference(model, dense, image) < 1e-5 and scores.std() > 1e-3
    drawn = classifier.picture(image, scores)
    assert drawn.shape[1] > 2 * 64 and drawn.dtype == np.uint8


# Up-sampling ------------------------------------------------------------------------------------------------------


def test_enlargements_of_a_digit(source):
    found = upsampling.enlarged(source)
    image, values = found.pop("image"), found.pop("max pooling")
    np.testing.assert_allclose(values, image.reshape(12, 4, 12, 4).max((1, 3)))
    assert set(found) == set(upsampling.METHODS) and all(each.shape == (48, 48) for each in found.values())
    np.testing.assert_array_equal(found["nearest"], values.repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(found["unpool"][::4, ::4], values)
    for name in ("unpool", "max_unpool"):
        assert found[name].sum() == pytest.approx(values.sum()) and np.count_nonzero(found[name]) <= 144
    places = found["max_unpool"] > 0
    np.testing.assert_allclose(found["max_unpool"][places], image[places])
    assert upsampling.operators(source).ndim == 3


# The loss ---------------------------------------------------------------------------------------------------------


def test_borders_by_hand():
    semantic = np.zeros((5, 6), np.uint8)
    semantic[2, 2:4] = 7
    expected = ["......", "..##..", ".####.", "..##..", "......"]
    assert ["".join(".#"[int(value)] for value in row) for row in loss.borders(semantic)] == expected
    wide = ["..##..", "..##..", "######", "..##..", "..##.."]
    assert ["".join(".#"[int(value)] for value in row) for row in loss.borders(semantic, 2)] == wide
    assert not loss.borders(np.ones((3, 3), np.uint8)).any()


def test_some_digits_lose_their_annotation(source):
    images = data.Digits(30, (64, 64), source=source, digits=(2, 2), digit_size=(16, 24))
    kept = 0
    for label in (0, loss.IGNORE):
        for sample, changed in zip(images, loss.Unannotated(images, label), strict=True):
            for mask, known in zip(sample["masks"], sample["labels"], strict=True):
                (found,) = np.unique(changed["semantic"][mask])
                assert found in (known, label)
                kept += int(found == known)
            np.testing.assert_array_equal(changed["image"], sample["image"])
            assert not changed["semantic"][~sample["masks"].any(0)].any()
    assert 40 < kept < 80  # half of 2 × 60


def arguments(source, **changes):
    given = {
        **{"backbone": "resnet10", "width": 8, "image_size": [64], "precision": "float32", "seed": 0, "minutes": None},
        **{"batch_size": 2, "learning_rate": 1e-3, "hold": 0.3, "workers": 1, "pipeline": "threads", "steps": 2},
        **{"digits": source, "page_steps": 2, "colour": False},
    }
    return argparse.Namespace(**{**given, **changes})


def test_losses_of_pixels_have_the_mean_that_the_network_is_trained_with(source):
    given = arguments(source)
    model = networks.fcn(given, 10)
    sample = networks.digits(given, 1, "val", 0)[0]
    losses = loss.pixel_losses(model, sample)
    assert losses.shape == (64, 64) and (losses >= 0).all()
    inputs = {"images": sample["image"][None], "sizes": np.array([[64, 64]], np.float32)}
    total = model({**inputs, "semantic": sample["semantic"][None]})["semantic_loss"]
    assert losses.mean() == pytest.approx(float(total), rel=1e-4)
    assert loss.picture(sample, losses).ndim == 3


# The recipe -------------------------------------------------------------------------------------------------------

TINY = ("--steps", 2, "--epochs", 1, "--batch-size", 2, "--image-size", 64, "--val-images", 2, "--backbone", "resnet10",
        "--width", 8, "--page-steps", 2, "--classifier-images", 4, "--precision", "float32")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--digits", "no/such/images"), "no/such/images: cannot be read"),
        (("--image-size", 100), "multiples of 32"),
        (("--overfit", 2), "give --only fcn or --only mask_rcnn"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, reason, source, tmp_path, run_here):
    answer = run_here("digits", "--output", tmp_path / "run", *TINY, "--digits", source, *options)
    assert answer.returncode == 2 and answer.stderr.count("error: ") == 1 and reason in answer.stderr


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
@pytest.mark.slow
def test_a_run_that_is_stopped_continues_to_the_page(source, tmp_path, run_here, eager_functions, monkeypatch):
    models = []
    monkeypatch.setattr(ImageModel, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(recipe, "SavedModel", lambda path: models[-1])
    command = ("digits", "--output", tmp_path, "--digits", source, *TINY)

    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "train_step", stopped)
        answer = run_here(*command)
    assert answer.returncode == 130 and "the same command" in answer.stderr, answer.stderr[-2000:]
    assert (tmp_path / "fcn" / "summary.json").exists() and not (tmp_path / "summary.json").exists()
    answer = run_here(*command)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert f"{tmp_path / 'fcn'} holds a finished run" in answer.stdout and len(models) == 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("mean_IoU", "segm_AP", "bbox_AP"):
        assert summary[name] == summary["fcn" if name == "mean_IoU" else "mask_rcnn"][name]
    assert set(summary["upsampling"]) == set(upsampling.METHODS) and summary["classifier"]["largest_difference"] < 1e-3
    assert all(len(found["loss"]) == 2 for found in summary["upsampling"].values())
    assert isinstance(keras.saving.load_model(tmp_path / "fcn" / "model.keras"), FCN)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f'id="step-{number}"' in page for number in range(1, 6)) and page.count("<img") == 8
    pictures = {"score_map", "upsampling", "maps", "loss", "loss_curves", "straight_line", "results"}
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} == pictures
    answer = run_here(*command)
    assert answer.returncode == 0 and "holds a finished run; --overwrite" in answer.stdout
    answer = run_here(*command, "--seed", 1)
    assert answer.returncode == 2 and "--seed 0 (not 1)" in answer.stderr
