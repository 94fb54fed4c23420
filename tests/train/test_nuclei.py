"""The nuclei recipe on a few small images."""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import recipe

SCRIPT = pathlib.Path(__file__).parents[2] / "train" / "nuclei.py"
TINY = ("--backbone", "resnet10", "--width", 8, "--precision", "float32", "--image-size", 64, "--batch-size", 2)


@pytest.fixture(scope="module")
def script():
    """The recipe as a module."""
    spec = importlib.util.spec_from_file_location("nuclei_recipe", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty-eight images with round bright spots on a dark ground, in the compact layout."""
    folder = tmp_path_factory.mktemp("nuclei")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :64]
    names = [f"n{number:02d}" for number in range(38)]
    for name in names:
        for part in ("images", "mask_ids"):
            (folder / "stage1_train" / name / part).mkdir(parents=True)
        ids = np.zeros((48, 64), np.uint16)
        for number, (y, x) in enumerate(((12, 14), (34, 22), (20, 48)), start=1):
            y, x = y + rng.integers(-4, 5), x + rng.integers(-4, 5)
            ids[(rows - y) ** 2 + (columns - x) ** 2 < rng.integers(16, 50)] = number
        grey = np.where(ids > 0, 30, 8) + rng.integers(0, 4, ids.shape)
        image = Image.fromarray(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
        image.save(folder / "stage1_train" / name / "images" / f"{name}.png")
        Image.fromarray(ids).save(folder / "stage1_train" / name / "mask_ids" / f"{name}.png")
    (folder / "train.txt").write_text("\n".join(names[:36]))
    (folder / "val.txt").write_text("\n".join(names[36:38]))
    return folder


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
def test_a_short_run_scores_and_keeps_scale_and_stretch(folder, tmp_path, run_here, eager_functions, monkeypatch):
    """Without an export, which `test_recipes.py` tests."""
    models = []
    monkeypatch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(recipe, "SavedModel", lambda path: models[0])
    output = tmp_path / "run"
    answer = run_here("nuclei", "--data", folder, "--output", output, *TINY, "--steps", 2, "--epochs", 1)
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((output / "summary.json").read_text())
    assert 0 <= summary["dsb_score"] <= 1 and {"segm_AP", "segm_AP50"} <= set(summary)
    assert (summary["train_images"], summary["val_images"]) == (36, 2)
    assert f"DSB 2018 score {summary['dsb_score']:.3f}" in answer.stdout
    model = keras.saving.load_model(summary["keras_file"], compile=False)
    assert model.class_names == ["nucleus"] and model.stretch == (1.0, 99.8)
    assert model.placement.place((256, 320)) == ((512, 640), (512, 640))
    assert model.resize.tiles == (1024, 1024)


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
def test_windows_at_the_scale_of_the_training_are_learnt_by_heart(folder, tmp_path, run_here, eager_functions):
    """A window of 32 pixels at twice the size fills the canvas of 64; nothing is exported."""
    output = tmp_path / "run"
    answer = run_here(
        "nuclei", "--data", folder, "--output", output, *TINY, "--overfit", 1, "--steps", 2, "--epochs", 1
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["train_images"], summary["val_images"], summary["batch_size"]) == (1, 1, 1)
    assert summary["overfit"]["images"] == 1 and "dsb_score" not in summary and summary["saved_model"] is None
    assert "has NOT memorised its training images" in answer.stdout and "2 steps are few" in answer.stdout
    [picture] = (output / "pictures").glob("*.png")
    assert (output / "overfit.png").exists() and picture.name.startswith("00000_")


def test_selection_holds_out_training_images_only(script, folder):
    def names(*options):
        parts = script.readers(script.parse(["--data", str(folder), "--output", "run", *options]))
        return [{part[i]["image_id"] for i in range(len(part))} for part in parts]

    train, val = names()
    assert (len(train), len(val)) == (36, 2) and not train & val
    rest, chosen = names("--select")
    assert len(chosen) == 34 and rest | chosen == train and not rest & chosen
    assert names("--select", "--seed", "5")[1] == chosen


def test_images_as_they_are(script):
    assert script.parse(["--data", "a", "--output", "b", "--stretch"]).stretch is None
    assert script.parse(["--data", "a", "--output", "b", "--stretch", "2", "98"]).stretch == [2, 98]


def test_help_shows_an_example(run_here):
    answer = run_here("nuclei", "--help")
    assert answer.returncode == 0 and "python train/nuclei.py" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--scale", "0"], "scale=0.0 must be a positive number"),
        (["--stretch", "5"], "must be two ascending percentiles"),
        (["--tiles", "64", "64"], "overlap=96"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, reason, folder, tmp_path, run_here):
    answer = run_here("nuclei", "--data", folder, "--output", tmp_path / "run", *TINY, *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and reason in errors[0]


def test_too_few_images_to_hold_out(folder, tmp_path, run_here):
    few = tmp_path / "few"
    few.mkdir()
    (few / "stage1_train").symlink_to(folder / "stage1_train")
    (few / "train.txt").write_text("n00 n01")
    answer = run_here("nuclei", "--data", few, "--output", tmp_path / "run", "--select")
    assert answer.returncode == 2 and "--select holds out 34 training images" in answer.stderr
