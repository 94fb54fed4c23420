"""The keypoint head: layers, loss, published names."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.data.coco_keypoints import PERSON
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.region_head import Rows
from keras_maskrcnn.ops.maps import enlarge

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "keypoints.npz"


def head(points=3, **stage):
    made = KeypointHead(points, {"pool": 4, "width": 6, "depth": 2, **stage})
    made.build((None, made.pool, made.pool, 5))
    return made


def crops(count=3):
    return np.random.default_rng(0).normal(size=(count, 4, 4, 5)).astype("float32")


def rows(boxes, valid=None, instance=None):
    count = len(boxes)
    valid = np.ones(count, bool) if valid is None else np.array(valid)
    instance = np.arange(count) if instance is None else np.array(instance)
    return Rows(np.float32(boxes), np.ones(count, "int32"), valid, np.zeros(count, "int32"), instance.astype("int32"))


def test_weights_of_torchvision():
    made = KeypointHead()
    made.build((None, 14, 14, 256))
    convolutions = (9 * 256 * 512 + 512) + 7 * (9 * 512 * 512 + 512)
    assert made.count_params() == convolutions + (16 * 512 * 17 + 17)
    assert made.names == PERSON and len(PERSON) == 17


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_shapes_and_float32_logits(policy):
    made = KeypointHead(3, {"pool": 4, "width": 6, "depth": 1}, dtype=policy)
    logits = made(crops(), np.zeros(3, "int32"))
    assert logits.shape == (3, 16, 16, 3) and logits.dtype == tf.float32
    assert made.deconvolution.compute_dtype == policy.removeprefix("mixed_")


def test_deconvolution_of_torch_by_definition():
    """Torch: cell (i, j) adds input × weight[in, out, y, x] to pixel (2i + y - 1, 2j + x - 1)."""
    made, rng = head(), np.random.default_rng(0)
    weight, bias = rng.normal(size=(6, 3, 4, 4)).astype("float32"), rng.normal(size=3).astype("float32")
    names = {"roi_heads.keypoint_predictor.kps_score_lowres.weight": weight}
    names["roi_heads.keypoint_predictor.kps_score_lowres.bias"] = bias
    for row in made.published("torchvision", names):
        if row.sources[0] in names:
            row.variable.assign(row.transform(names[row.sources[0]]))
    cells = rng.normal(size=(1, 4, 4, 6)).astype("float32")
    expected = np.zeros((10, 10, 3))
    for i, j in np.ndindex(4, 4):
        expected[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("c,coyx->yxo", cells[0, i, j], weight)
    np.testing.assert_allclose(made.deconvolution(cells)[0], expected[1:-1, 1:-1] + bias, atol=1e-4)


def test_names_in_torchvisions_file():
    made = KeypointHead(17, {"depth": 8, "width": 8})
    made.build((None, 14, 14, 8))
    table = made.published("torchvision", ["roi_heads.keypoint_head.0.weight"])
    layers = [f"keypoint_head.{2 * i}" for i in range(8)] + ["keypoint_predictor.kps_score_lowres"]
    wanted = [f"roi_heads.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert [name for row in table for name in row.sources] == wanted
    assert not list(made.published("torchvision", ["roi_heads.mask_head.0.weight"]))
    assert not list(made.published("detectron2", ["roi_heads.keypoint_head.conv_fcn1.weight"]))


def test_loss_and_gradient_are_torchvisions():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    made = KeypointHead(4, {"pool": 14, "width": 4, "depth": 0})
    maps = enlarge(tf.constant(golden["maps"].astype("float32") / 16), 2)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        losses = made.row_losses(maps, rows(golden["rois"]), {"keypoints": golden["points"][None]})
    np.testing.assert_allclose(losses["keypoint_loss"], golden["loss"], rtol=1e-5)
    gradient = tape.gradient(losses["keypoint_loss"], maps)
    np.testing.assert_allclose(gradient[0, ..., 0], golden["gradient"], atol=1e-7)


def test_loss_by_hand_counts_labelled_points_inside_positive_regions_only():
    """With equal logits each heat map costs log(16²), whatever the number of points."""
    made = head()
    truth = {"keypoints": np.float32([[[[5, 5, 2], [6, 6, 0], [99, 5, 2]], [[5, 5, 1], [9, 9, 2], [4, 4, 2]]]])}
    maps = np.zeros((3, 16, 16, 3), "float32")
    loss = made.row_losses(maps, rows([[0, 0, 10, 10]] * 3, [True, False, True], [0, 1, 0]), truth)["keypoint_loss"]
    np.testing.assert_allclose(loss, np.log(256), rtol=1e-6)
    maps[0, 8, 8, 0] = 3  # the cell of the first point, in one of the two regions that count
    loss = made.row_losses(maps, rows([[0, 0, 10, 10]] * 3, [True, False, True], [0, 1, 0]), truth)["keypoint_loss"]
    np.testing.assert_allclose(loss, (np.log(256) + np.log(255 + np.e**3) - 3) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("points", "valid"),
    [([[50, 50, 2]] * 3, True), ([[5, 5, 0]] * 3, True), ([[5, 5, 2]] * 3, False)],
    ids=["outside", "not labelled", "no positive region"],
)
def test_without_a_target_loss_and_gradients_are_zero(points, valid):
    made = head()
    with tf.GradientTape() as tape:
        maps = made(crops(1), np.ones(1, "int32"), training=True)
        truth = {"keypoints": np.float32([[points]])}
        loss = made.row_losses(maps, rows([[0, 0, 10, 10]], [valid]), truth)["keypoint_loss"]
    gradients = tape.gradient(loss, [w.value for w in made.trainable_weights])
    assert float(loss) == 0 and all(not np.any(g) for g in gradients)


def test_every_weight_gets_a_gradient():
    made = head()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(crops(), np.ones(3, "int32")) ** 2)
    gradients = tape.gradient(loss, [w.value for w in made.trainable_weights])
    assert len(gradients) == 2 * 3 and all(np.abs(g).max() > 0 for g in gradients)


@pytest.mark.parametrize("static", [False, True])
def test_detections_get_points_inside_their_boxes_and_empty_slots_zeros(static):
    keras.utils.set_random_seed(5)
    made = KeypointHead(3, {"pool": 4, "width": 6, "depth": 1})
    made.connect((8,), 5)
    level = np.random.default_rng(1).normal(size=(2, 8, 8, 5)).astype("float32")
    boxes = np.float32([[[4, 4, 30, 60], [0, 0, 0, 0]], [[10.5, 3, 11, 3.2], [2, 2, 60, 50]]])
    valid = np.array([[True, False], [True, True]])
    found = {"boxes": tf.constant(boxes), "labels": tf.ones((2, 2), "int32"), "valid": tf.constant(valid)}
    with backend.static_shapes_scope(static):
        outputs = made.predict([tf.constant(level)], found)
    points, scores = outputs["keypoints"].numpy(), outputs["keypoint_scores"].numpy()
    assert points.shape == (2, 2, 3, 3) and scores.shape == (2, 2, 3)
    assert not points[0, 1].any() and not scores[0, 1].any() and (points[valid][..., 2] == 1).all()
    low, high = boxes[valid][:, None, :2], np.maximum(boxes[valid][:, None, 2:], boxes[valid][:, None, :2] + 1)
    assert ((points[valid][..., :2] >= low) & (points[valid][..., :2] <= high)).all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"num_keypoints": 0}, "num_keypoints=0 must be a whole number of at least 1"),
        ({"num_keypoints": 2.5}, "must be a whole number"),
        ({"num_keypoints": 2, "names": ["nose"]}, "1 names for num_keypoints=2"),
        ({"stage": {"widht": 3}}, "KeypointStage has no option widht"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        KeypointHead(**arguments)


def test_names_describe_the_output_and_other_numbers_have_none():
    assert KeypointHead(2, names=["a", "b"]).OUTPUTS[0].names == ("a", "b")
    assert KeypointHead(2).OUTPUTS[0].names is None
    with pytest.raises(ValueError, match="num_keypoints=2, but objects of the data have 3 keypoints"):
        KeypointHead(2).check({"keypoints": np.zeros((1, 4, 3, 3))})
