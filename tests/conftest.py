"""Shared fixtures: quiet TensorFlow, fixed seeds, and the folder of real data sets."""

import contextlib
import gc
import io
import os
import pathlib
import runpy
import subprocess
import sys
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Halves the time of XLA's code generation; XLA's own passes do not change. The programs run once, so their speed is
# irrelevant. Processes that tests start inherit the variable.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis
import keras
import pytest
import tensorflow as tf

# The same examples in every run.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")


def pytest_collection_finish():
    """Collects garbage less often, and never looks at what the imports made: this saves 5 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(autouse=True, scope="session")
def kept_kernels():
    """Keeps TensorFlow's kernels from test to test.

    `keras.utils.set_random_seed` also sets the seed of TensorFlow's own random operations, which nothing here uses.
    This would drop the kernels of all operations and functions, and TensorFlow would create them again in each test.
    """
    with mock.patch.object(tf.random, "set_seed"):
        yield


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts with the same random state."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def run_script():
    """Function that runs a Python file as a program in this process, which has imported TensorFlow already.

    It takes the path of the file and the arguments, and returns a `CompletedProcess`.
    """
    return _run_script


def _run_script(path, *arguments):
    words, code = [str(word) for word in (path, *arguments)], 0
    folders = [str(pathlib.Path(path).parent), *sys.path]
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "path", folders),
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        if isinstance(code, str):  # the interpreter prints it
            print(code, file=sys.stderr)
            code = 1
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="session")
def one_level():
    """Arguments of a `MaskRCNN` with one level of features: its graph has half as many operations as a pyramid's."""
    return {
        "backbone": {"name": "simple_cnn", "channels": (4, 8, 8, 8, 16), "kernel_size": 3},
        "neck": None,
        "anchors": {"sizes": ((16, 32, 64),)},
    }


@pytest.fixture(scope="session")
def model_file(one_level, tmp_path_factory):
    """A `.keras` file of an untrained Mask R-CNN for three classes, which finds eight objects in every image."""
    from keras_maskrcnn import MaskRCNN

    keras.utils.set_random_seed(0)
    model = MaskRCNN(
        3,
        **one_level,
        class_names=["circle", "square", "triangle"],
        image_size=(64, 64),
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        proposals={"pre_nms": 32, "post_nms": 16},
        detection={"max_detections": 8, "score_threshold": 0.0},
        dtype="float32",
    )
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    model.save(path)
    return path


@pytest.fixture
def eager_functions():
    """Runs what is decorated with `tf.function` eagerly: tracing a whole model takes ten times as long as one call."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def narrow_presets(monkeypatch):
    """Published presets are networks of a quarter of the published width, which `weights/names.py` calls `narrowed`."""
    from keras_maskrcnn.models import presets

    read = presets.read
    widths = {
        "backbone": {"width": 16},
        "fpn_channels": 64,
        "box_stage": {"width": 256},
        "mask_stage": {"width": 64},
    }
    of_maps = {"backbone": {"width": 16}, "stage": {"width": 128}, "auxiliary": {"width": 64}}

    one_stage = {
        "backbone": {"width": 16},
        "fpn_channels": 64,
        "stage": {"width": 64},
        "prototypes": {"width": 64},
    }

    def narrow(name):
        preset = read(name)
        if name not in presets.published():
            return preset
        of_class = {"keras_maskrcnn>FCN": of_maps, "keras_maskrcnn>YOLACT": one_stage}.get(preset.get("class"), widths)
        wanted = {part: width for part, width in of_class.items() if preset["config"].get(part, width) is not None}
        config = presets.overridden(preset["config"], wanted)
        for head in config.get("heads", ()):  # `read` gives a copy
            options = head["config"].setdefault("stage", {})
            options["width"] = options.get("width", 512) // 4
        return {**preset, "config": config}

    monkeypatch.setattr(presets, "read", narrow)


@pytest.fixture
def kmr_data():
    """The folder of real data sets in the variable KMR_DATA."""
    folder = os.environ.get("KMR_DATA")
    if not folder:
        pytest.skip("set KMR_DATA to the folder of real data sets to run this test")
    return pathlib.Path(folder)
