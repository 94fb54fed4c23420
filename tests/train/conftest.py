"""Scripts of `train/` in the process of the tests: starting a new one takes seconds."""

import pathlib
import sys

import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.training import recipe

# A run of four steps.
SMALL = ("--backbone", "resnet10", "--width", 8, "--batch-size", 2, "--image-size", 64, "--val-images", 2)
SHORT = ("--steps", 4, "--epochs", 2, "--precision", "float32", *SMALL)
FOLDER = pathlib.Path(__file__).parents[2] / "train"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "faults"))  # `recipe_runs`


@pytest.fixture(scope="session")
def run_here(run_script):
    """Function from a script's name and its arguments to a `CompletedProcess`."""
    return lambda script, *arguments: run_script(FOLDER / f"{script}.py", *arguments)


@pytest.fixture(scope="module")
def shapes(run_here):
    """Function from a folder and further arguments to a `CompletedProcess` of a `SHORT` run of `train/shapes.py`.

    It is run eagerly and without an export.
    """
    models = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
        patch.setattr(recipe, "SavedModel", lambda path: models[-1])
        tf.config.run_functions_eagerly(True)
        yield lambda output, *arguments: run_here("shapes", "--output", output, *SHORT, *arguments)
        tf.config.run_functions_eagerly(False)
