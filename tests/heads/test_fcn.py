"""The head of an FCN: sums and joins of levels, the loss of labelled pixels."""

import numpy as np
import pytest

from keras_maskrcnn.heads.fcn import FCNHead
from keras_maskrcnn.layers.upsampling import METHODS
from keras_maskrcnn.ops.maps import enlarge

RNG = np.random.default_rng(0)
LEVELS = [RNG.normal(size=(2, 16 // n, 24 // n, 3 + n)).astype("float32") for n in (1, 2, 4)]  # strides 8, 16, 32


def head(**options):
    made = FCNHead(2, **{"stage": {"depth": 0, "dropout": 0.0}, **options})
    made.connect((8, 16, 32), [level.shape[-1] for level in LEVELS])
    return made


def scored(layer, values):
    return values @ np.array(layer.kernel)[0, 0] + np.array(layer.bias)


def test_scores_of_the_levels_are_added_from_the_coarsest_on():
    made = head(fused=8)
    expected = scored(made.logits, LEVELS[2])
    for layer, level in ((made.scores["16"], LEVELS[1]), (made.scores["8"], LEVELS[0])):
        expected = np.array(enlarge(expected, 2)) + scored(layer, level)
    found = made(LEVELS)
    assert made.stride == 8 and found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_levels_below_the_fused_stride_are_left_out():
    made = head(fused=16)
    assert list(made.scores) == ["16"]
    assert set(made.per_class_layers()) == {"logits", "scores16"}


def test_features_are_joined():
    made = head(fused=8, skips="concatenate", stage={"depth": 1, "width": 8, "norm": None, "dropout": 0.0})
    assert [made.merges[stride].width for stride in ("16", "8")] == [4, 2]
    values = np.array(made.stack(LEVELS[2]))
    for stride, level in (("16", LEVELS[1]), ("8", LEVELS[0])):
        values = np.array(made.merges[stride](np.concatenate([enlarge(values, 2), level], axis=-1)))
    np.testing.assert_allclose(made(LEVELS), scored(made.logits, values), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_cells_of_the_result(method):
    made = head(fused=16, upsampling=method)
    side = {"bilinear": 8, "max_unpool": 8}.get(method, 1)
    assert made.stride == made.OUTPUTS[0].stride == side
    assert made(LEVELS).shape == (2, 128 // side, 192 // side, 3)


def test_the_loss_is_the_mean_over_labelled_pixels():
    made = head(upsampling="nearest", stage={"depth": 0, "dropout": 0.0, "loss_weight": 0.5, "ignore": 9})
    logits = np.zeros((1, 2, 2, 3), "float32")
    logits[0, 0] = [[np.log(2), 0, 0], [0, np.log(6), 0]]
    labels = np.array([[[0, 1], [9, 9]]], "uint8")
    expected = 0.5 * (np.log(4 / 2) + np.log(8 / 6)) / 2
    assert float(made.map_losses(logits, {"semantic": labels})["semantic_loss"]) == pytest.approx(expected, rel=1e-5)
    nothing = made.map_losses(logits, {"semantic": np.full_like(labels, 9)})
    assert float(nothing["semantic_loss"]) == 0


def test_dropout_in_training_only():
    made = head(stage={"depth": 0, "dropout": 0.5})
    np.testing.assert_array_equal(made(LEVELS), made(LEVELS))
    assert np.abs(np.array(made(LEVELS, training=True)) - made(LEVELS)).max() > 0.1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"skips": "sum"}, "skips='sum' is not one of 'add', 'concatenate'"),
        ({"upsampling": "linear"}, "upsampling='linear' is not one of"),
        ({"stage": {"dropout": 1.0}}, r"dropout=1.0 must be at least 0 and below 1"),
        ({"stage": {"depth": -1}}, "depth=-1 must be a whole number of at least 0"),
        ({"stage": {"ignore": 2}}, "must not hold ignore=2"),
    ],
)
def test_errors(options, reason):
    with pytest.raises(ValueError, match=reason):
        head(**options)
