"""A network with wide 3×3 convolutions finds the same by Winograd's algorithm, which inference takes, and without."""

import agreement
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.inference.saved_model import SavedModel

WIDE = {"fpn_channels": 128, "mask_stage": {"width": 128, "depth": 1}, "resize": {"shorter": 160, "longer": 240}}


@pytest.fixture
def wide(make, pyramid, monkeypatch):
    """A function that makes the same network, whose traces use the algorithm or not."""
    monkeypatch.setattr(backend, "has_gpu", lambda: False)

    def build(used):
        monkeypatch.setenv("KMR_WINOGRAD", str(int(used)))
        return make(**{**pyramid, **WIDE})

    return build


def test_detections_agree(wide, images, monkeypatch):
    expected = wide(False).detect(images[0], score_threshold=0.1)
    loops, while_loop = [], tf.while_loop
    monkeypatch.setattr(tf, "while_loop", lambda *args, **options: loops.append(1) or while_loop(*args, **options))
    found = wide(True).detect(images[0], score_threshold=0.1)
    assert len(expected["scores"]) > 0
    assert len(loops) == 4 + 5 + 1  # levels of the pyramid, levels of the RPN, mask head
    agreement.check(expected, found)


@pytest.mark.slow
def test_a_saved_model_agrees(wide, images, tmp_path):
    model = wide(True)
    model.export(tmp_path / "model")
    expected = wide(False).detect(images[0], score_threshold=0.1)
    agreement.check(expected, SavedModel(tmp_path / "model").detect(images[0], score_threshold=0.1))
