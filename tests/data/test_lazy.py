import subprocess
import sys

import pytest

from keras_maskrcnn import data

HEAVY = ("pycocotools", "h5py", "keras", "tensorflow", "keras_maskrcnn.data.pipeline")


@pytest.mark.parametrize("module", ["data", "data.sample", "data.image_file", "ops.placement"])
def test_importing_a_module_imports_nothing_heavy(module):
    code = f"import sys, keras_maskrcnn.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_public_name_is_found():
    for name in data.__all__:
        assert getattr(data, name) is not None and name in dir(data)
    with pytest.raises(AttributeError, match=r"module 'keras_maskrcnn\.data' has no attribute 'unknown'"):
        data.unknown  # noqa: B018
