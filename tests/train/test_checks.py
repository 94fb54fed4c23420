"""`--find-lr`, `--overfit` and `--keep`, as a user runs them on generated shapes."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn.training import callbacks

pytestmark = pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")


def summary(output):
    return json.loads((output / "summary.json").read_text())


def weights(path):
    model = keras.saving.load_model(path)
    return [np.array(variable) for variable in [*model.weights, *model.optimizer.variables]]


@pytest.mark.parametrize("name", ["shapes", "penn_fudan", "coco", "nuclei", "stick_figures"])
def test_every_recipe_has_the_options(name, run_here):
    answer = run_here(name, "--help")
    for option in ("--find-lr [STEPS]", "--overfit N", "--lr-schedule", "--optimizer", "--keep {last,best}"):
        assert option in answer.stdout
    assert ("--backbone-rate" in answer.stdout) == (name in ("penn_fudan", "coco", "nuclei"))


@pytest.fixture(scope="module")
def overfitted(shapes, tmp_path_factory):
    """A run of a few steps on two images, and what it printed."""
    output = tmp_path_factory.mktemp("overfit")
    answer = shapes(output, "--overfit", 2, "--lr-schedule", "one_cycle", "--optimizer", "sgd")
    assert answer.returncode == 0, answer.stderr[-2000:]
    return output, answer.stdout


def test_a_model_of_four_steps_has_not_memorised_its_images(overfitted):
    output, printed = overfitted
    found = summary(output)
    assert (found["train_images"], found["val_images"], found["steps"]) == (2, 2, 4)
    assert found["overfit"]["memorised"] is False and found["overfit"]["figure"] == found["segm_AP"]
    assert "has NOT memorised its training images: segm AP 0." in printed and "4 steps are few" in printed
    assert (
        "SavedModel   left out: --overfit checks a model, and exports none" in printed
        and "predict --model" not in printed
    )
    assert np.asarray(Image.open(found["overfit"]["picture"])).std() > 5
    assert isinstance(keras.saving.load_model(found["keras_file"]).optimizer, keras.optimizers.SGD)


def test_more_images_than_there_are_is_one_line(shapes, tmp_path):
    answer = shapes(tmp_path, "--overfit", 9)
    assert answer.returncode == 2
    assert "error: --overfit 9: the training set has 8 images with objects" in answer.stderr


def test_the_rate_is_swept_without_a_training(shapes, overfitted, tmp_path):
    answer = shapes(tmp_path / "new", "--find-lr", 5)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "learning rate: " in answer.stdout and f"picture      {tmp_path / 'new' / 'lr_finder.png'}" in answer.stdout
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == ["lr_finder.csv", "lr_finder.json", "lr_finder.png"]
    # In the folder of a finished run with other arguments, which stays as it is.
    output, _ = overfitted
    before = (output / "summary.json").read_bytes()
    answer = shapes(output, "--find-lr", 2, "--overwrite")
    assert answer.returncode == 0 and (output / "lr_finder.png").exists()
    assert (output / "summary.json").read_bytes() == before


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_best_epoch_is_in_a_file_and_is_kept_if_wanted(keep, shapes, tmp_path, monkeypatch):
    scored = iter([(0.4, 0.2), (0.2, 0.2)])

    def scores(*arguments, **options):
        box, mask = next(scored)
        return {"bbox_AP": box, "segm_AP": mask, "per_class": {}}

    monkeypatch.setattr(callbacks, "scores_of", scores)
    answer = shapes(tmp_path, "--keep", keep)
    assert answer.returncode == 0, answer.stderr[-2000:]
    found = summary(tmp_path)
    path = tmp_path / "best.keras"
    assert found["best"] == {
        "epoch": 1,
        "score": "mean of bbox_AP and segm_AP",
        "figure": 0.3,
        "keras_file": str(path),
    }
    assert f"best         {path} (epoch 1, mean of bbox AP and segm AP 0.300)" in answer.stdout
    best, kept = weights(path), weights(tmp_path / "model.keras")
    equal = all(np.array_equal(one, two) for one, two in zip(best, kept, strict=True))
    assert equal == (keep == "best") and found["steps"] == 4
    assert (found["bbox_AP"] == 0.2) == (keep == "last"), "the scores are those of the weights that are kept"


@pytest.mark.slow
def test_two_images_are_memorised_within_minutes(run_here, tmp_path):
    words = ("--overfit", 2, "--steps", 400, "--epochs", 4, "--image-size", 64, "--backbone", "resnet10")
    answer = run_here("shapes", "--output", tmp_path, *words, "--precision", "float32")
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "The model has memorised its training images" in answer.stdout
    assert summary(tmp_path)["overfit"]["memorised"] is True
