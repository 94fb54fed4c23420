"""Options that presets need: normalised heads, deeper ones, other proposals in training, torchvision's mask targets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import data

NORMALISED = {
    "fpn_norm": "batch",
    "rpn_stage": {"depth": 2},
    "box_stage": {"width": 16, "convs": 2, "norm": "batch", "hidden": 1},
    "mask_stage": {"width": 8, "depth": 1, "norm": "batch"},
}


@pytest.fixture
def whole_masks(shapes):
    """The batch of `conftest.batch` with masks of the whole canvas."""
    x, y = next(iter(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size="canvas", backend="numpy")))
    return {k: np.asarray(v) for k, v in x.items()}, {k: np.asarray(v) for k, v in y.items()}


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_normalised_heads_train(tiny, batch, jit_compile):
    model = tiny(**NORMALISED)
    assert len(model.rpn.convs) == 2 and len(model.box_head.convs) == 2 and len(model.box_head.hidden) == 1
    assert not any(conv.use_bias for conv in (*model.box_head.convs, *model.fpn.lateral.values()))
    norms = {
        "pyramid": model.fpn.output_norm["C2"],
        "box head": model.box_head.norms[1],
        "mask head": model.mask_head.norms[0],
    }
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=jit_compile, run_eagerly=not jit_compile)
    logs = model.train_on_batch(*batch, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    for name, norm in norms.items():
        assert np.abs(norm.moving_mean.numpy()).max() > 0, name


def test_normalised_heads_survive_saving(tiny, batch, tmp_path):
    model = tiny(**NORMALISED)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_may_take_more_proposals(tiny, batch):
    model = tiny(proposals={"pre_nms": 50, "post_nms": 20, "training_post_nms": 30})
    x, _ = batch
    sizes = tf.constant(x["sizes"])
    logits, deltas = model.rpn(list(model.features(tf.constant(x["images"]), sizes).values()))
    anchors = model.rpn.anchors.boxes((64, 64), model.strides)
    for training, count in ((False, 20), (True, 30)):
        assert model.rpn.propose(logits, deltas, anchors, sizes, training).boxes.shape == (2, count, 4)


def test_torchvisions_mask_targets_are_near_the_covered_areas(tiny, batch, whole_masks):
    def mask_loss(targets, masks):
        model = tiny(mask_stage={"width": 8, "depth": 1, "targets": targets})
        x, y = masks
        return float(model({k: tf.constant(v) for k, v in {**x, **y}.items()}, training=True)["mask_loss"])

    areas, samples = mask_loss("area", batch), mask_loss("roi_align", whole_masks)
    assert areas != samples
    assert samples == pytest.approx(areas, rel=0.05)


def test_torchvisions_mask_targets_need_whole_masks(tiny, batch):
    model = tiny(mask_stage={"width": 8, "depth": 1, "targets": "roi_align"})
    x, y = batch
    with pytest.raises(ValueError, match=r'needs masks of the whole canvas: data.batches\(mask_size="canvas"\)'):
        model({**x, **y}, training=True)
