"""The choices of table 2 of the paper: softmax, class-agnostic masks, the MLP; values, gradients, both backends."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from keras_maskrcnn.heads.mask import MaskHead, of_class
from keras_maskrcnn.heads.region_head import Rows

ROOT = pathlib.Path(__file__).parents[2]
CLASSES = 3
LABELS = np.array([3, 0, 1, 2], "int32")
SMALL = {"width": 6, "depth": 1}
CHOICES = {
    f"{kind} {loss}{' agnostic' if agnostic else ''}": {"kind": kind, "loss": loss, "class_agnostic": agnostic}
    for kind in ("fcn", "mlp")
    for loss in ("sigmoid", "softmax")
    for agnostic in (False, True)
}
every_choice = pytest.mark.parametrize("choice", CHOICES)


def crops(count=4, size=4, channels=5):
    return np.random.default_rng(0).normal(size=(count, size, size, channels)).astype("float32")


def built(choice, classes=CLASSES, **options):
    """A head with random weights."""
    head = MaskHead(classes, {**SMALL, "pool": 4, **CHOICES[choice], **options})
    head.build((None, 4, 4, 5))
    head.set_weights([np.random.default_rng(i).normal(size=w.shape) / 3 for i, w in enumerate(head.weights)])
    return head


def numpy(value):
    return ops.convert_to_numpy(value)


def every_mask(head, x):
    """Logits of all columns `[N, 2P, 2P, columns]`, computed in full by Keras' own layers."""
    if head.stage.kind == "fcn":
        return numpy(head.logits(ops.relu(head.deconvolution(head.stack(x)))))
    hidden = x.reshape(len(x), -1)
    for layer in head.hidden:
        hidden = layer(hidden)
    return numpy(head.logits(hidden)).reshape(len(x), 8, 8, -1)


def masks(head, x=None, labels=LABELS):
    """Mask probabilities of regions."""
    x = crops() if x is None else x
    return numpy(head.row_outputs(head(ops.convert_to_tensor(x), labels), None)["masks"])


def softmax(logits):
    power = np.exp(logits - logits.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


@every_choice
def test_the_mask_of_a_region_is_that_of_its_class_among_all(choice):
    head = built(choice)
    logits = every_mask(head, crops())
    assert logits.shape == (4, 8, 8, 2 if head.stage.class_agnostic else CLASSES + 1)
    column = np.minimum(LABELS, 1) if head.stage.class_agnostic else LABELS
    shares = softmax(logits) if head.stage.loss == "softmax" else 1 / (1 + np.exp(-logits))
    expected = np.stack([share[..., k] for share, k in zip(shares, column, strict=True)])
    np.testing.assert_allclose(masks(head), expected, atol=1e-5)


def test_softmax_by_hand():
    head = MaskHead(2, {**SMALL, "loss": "softmax"})
    head.build((None, 4, 4, 5))
    head.logits.set_weights([np.zeros((1, 1, 6, 3)), np.log([2.0, 5.0, 3.0])])
    # The exponentials of the three logits are 2, 5 and 3: background has 0.2, the classes 0.5 and 0.3.
    predictions = head(ops.convert_to_tensor(crops(2)), np.array([1, 2], "int32"))
    for region, share in ((0, 0.5), (1, 0.3)):
        np.testing.assert_allclose(predictions[region, ..., 1], np.full((8, 8), np.log(share)), rtol=1e-5)
        np.testing.assert_allclose(predictions[region, ..., 0], np.full((8, 8), np.log(0.2)), rtol=1e-5)
    np.testing.assert_allclose(head.row_outputs(predictions, None)["masks"][1], np.full((8, 8), 0.3), rtol=1e-5)


def loss_of(head, x, labels, valid):
    """Loss of regions whose instance, one for all, is the left half of the one box; the others are not valid."""
    count = len(labels)
    box = np.array([[0, 0, 8, 8]], "float32")
    half = np.zeros((1, 1, 8, 8), "uint8")
    half[..., :4] = 255
    rows = Rows(
        ops.convert_to_tensor(np.repeat(box, count, 0)),
        labels,
        ops.convert_to_tensor(np.array(valid)),
        np.zeros(count, "int32"),
        np.zeros(count, "int32"),
    )
    truth = {"boxes": ops.convert_to_tensor(box[None]), "masks": ops.convert_to_tensor(half)}
    return head.row_losses(head(ops.convert_to_tensor(x), labels), rows, truth)["mask_loss"]


def test_softmax_loss_by_hand():
    head = MaskHead(2, {**SMALL, "pool": 4, "loss": "softmax"})
    head.build((None, 4, 4, 5))
    head.logits.set_weights([np.zeros((1, 1, 6, 3)), np.log([2.0, 5.0, 3.0])])
    # Left half: the region's class (0.5 and 0.3); right half: background (0.2). Row 3 is not valid.
    expected = -(np.log(0.5) + np.log(0.2) + np.log(0.3) + np.log(0.2)) / 4
    found = loss_of(head, crops(3), np.array([1, 2, 0], "int32"), [True, True, False])
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["fcn", "mlp"])
def test_softmax_of_one_mask_is_the_sigmoid_of_the_difference(kind):
    """Two columns, background and object: both losses are the same function of their difference."""
    binary, two = (built(f"{kind} {loss} agnostic") for loss in ("sigmoid", "softmax"))
    two.set_weights(binary.get_weights())
    kernel, bias = binary.logits.get_weights()
    flat = kernel.reshape(-1, 2)
    difference = np.stack([np.zeros(len(flat)), flat[:, 1] - flat[:, 0]], -1).reshape(kernel.shape)
    shift = bias.reshape(-1, 2)
    binary.logits.set_weights([difference, np.stack([0 * shift[:, 0], shift[:, 1] - shift[:, 0]], -1).reshape(-1)])
    labels = np.array([1, 2, 3, 1], "int32")
    np.testing.assert_allclose(masks(two, labels=labels), masks(binary, labels=labels), atol=1e-5)
    given = crops(), np.array([1, 2, 3, 0], "int32"), [True, True, True, False]
    assert float(loss_of(two, *given)) == pytest.approx(float(loss_of(binary, *given)), rel=1e-5)


@pytest.mark.parametrize("kind", ["fcn", "mlp"])
def test_class_agnostic_masks_do_not_depend_on_the_label(kind):
    head = built(f"{kind} sigmoid agnostic")
    first, second = (masks(head, labels=np.full(4, label, "int32")) for label in (1, 3))
    np.testing.assert_array_equal(first, second)
    more = built(f"{kind} sigmoid agnostic", classes=80)
    assert [w.shape for w in more.weights] == [w.shape for w in head.weights]


@pytest.mark.parametrize("choice", ["fcn softmax", "mlp sigmoid", "mlp softmax agnostic"])
def test_every_weight_gets_a_gradient(choice):
    import tensorflow as tf

    head = built(choice)
    with tf.GradientTape() as tape:
        loss = loss_of(head, crops(3), np.array([1, 2, 3], "int32"), [True] * 3)
    gradients = tape.gradient(loss, [w.value for w in head.trainable_weights])
    assert all(np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients)
    logits = gradients[-2].numpy().reshape(-1, head.columns)
    # Only the softmax trains background, and the classes of no region.
    assert np.abs(logits).max(0).astype(bool).tolist() == [head.stage.loss == "softmax"] + [True] * (head.columns - 1)


def test_the_softmax_trains_classes_of_no_region():
    import tensorflow as tf

    given = crops(2), np.array([2, 2], "int32"), [True, True]
    touched = {}
    for loss in ("sigmoid", "softmax"):
        head = built(f"fcn {loss}")
        with tf.GradientTape() as tape:
            value = loss_of(head, *given)
        touched[loss] = np.abs(tape.gradient(value, head.logits.bias.value)).astype(bool).tolist()
    assert touched == {"sigmoid": [False, False, True, False], "softmax": [True] * 4}


def test_only_the_masks_of_the_regions_classes_are_computed():
    """With 36 classes no tensor of the graph has a column per class and a row per cell; the softmax needs them all."""
    import tensorflow as tf

    elements = {}
    for loss in ("sigmoid", "softmax"):
        head = built(f"fcn {loss}", classes=36)
        traced = tf.function(lambda x, head=head: head(x, LABELS)).get_concrete_function(tf.TensorSpec((4, 4, 4, 5)))
        shapes = [tensor.shape for op in traced.graph.get_operations() for tensor in op.outputs]
        elements[loss] = max(shape.num_elements() or 0 for shape in shapes if shape.rank)
    assert elements["sigmoid"] <= 4 * 8 * 8 * 6  # the deconvolution's output
    assert elements["softmax"] == 4 * 8 * 8 * 37


@pytest.mark.parametrize("hidden", [2, 3])
def test_layers_of_the_mlp(hidden):
    head = MaskHead(2, {"kind": "mlp", "width": 8, "hidden": hidden})
    head.build((None, 14, 14, 3))
    # 14·14·3 → 8 → … → 3 columns of 28·28 cells.
    assert [layer.units for layer in head.hidden] == [8] * hidden
    assert head.count_params() == (588 * 8 + 8) + (hidden - 1) * (8 * 8 + 8) + (8 + 1) * 3 * 784


def test_masks_of_the_mlp_lie_in_rows_and_columns():
    head = MaskHead(1, {"kind": "mlp", "width": 2, "hidden": 0, "pool": 1})
    head.build((None, 1, 1, 1))
    # Units are cells in reading order, each with background (0) and the class: 10, 20 / 30, 40.
    head.logits.set_weights([np.zeros((1, 8)), np.array([0, 10, 0, 20, 0, 30, 0, 40])])
    np.testing.assert_array_equal(head(np.ones((1, 1, 1, 1), "float32"), np.array([1]))[0], [[10, 20], [30, 40]])


def test_a_normalised_mlp_is_refused():
    with pytest.raises(ValueError, match="norm='group': kind='mlp' has no convolutions to normalise"):
        MaskHead(2, {"kind": "mlp", "norm": "group"}).build((None, 4, 4, 5))


@every_choice
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_predictions_are_float32(choice, policy):
    head = MaskHead(CLASSES, {**SMALL, **CHOICES[choice]}, dtype=policy)
    found = head(crops(), LABELS)
    assert found.shape == (4, 8, 8) + (2,) * (head.stage.loss == "softmax") and found.dtype == "float32"
    assert head.logits.compute_dtype == policy.removeprefix("mixed_")


def test_of_class_takes_a_column():
    values = np.arange(12, dtype="float32").reshape(2, 1, 2, 3)
    np.testing.assert_array_equal(of_class(values, np.array([2, 0])), [[[2, 5]], [[6, 9]]])


def test_an_mlp_takes_no_published_masks():
    names = ["roi_heads.mask_head.0.0.weight"]
    assert built("mlp sigmoid").published("torchvision", names) == ()
    assert list(built("fcn sigmoid").published("torchvision", names))


def test_class_agnostic_masks_of_detectron2_fit():
    head = built("fcn sigmoid agnostic")
    rows = {row.name: row for row in head.published("detectron2", ["roi_heads.mask_head.predictor.weight"])}
    kernel, bias = (rows[f"mask_head.logits.{name}"] for name in ("kernel", "bias"))
    theirs = np.arange(6, dtype="float32").reshape(1, 6, 1, 1) + 1
    assert kernel.sources == ("roi_heads.mask_head.predictor.weight",)
    np.testing.assert_array_equal(kernel.transform(theirs)[0, 0], np.stack([np.zeros(6), theirs[0, :, 0, 0]], -1))
    np.testing.assert_array_equal(bias.transform(np.array([4.0])), [0, 4])
    assert kernel.transform(theirs).shape == head.logits.kernel.shape


def figures():
    """Sums over the masks, and the loss, of every choice."""
    given = crops(), np.array([1, 2, 3, 0], "int32"), [True, True, True, False]
    found = {}
    for choice in CHOICES:
        head = built(choice)
        found[choice] = [float(masks(head).sum()), float((masks(head) ** 2).sum()), float(loss_of(head, *given))]
    return found


@pytest.mark.slow
def test_jax_gives_the_same_values():
    program = "import json, keras, test_mask_choices as t; print(keras.backend.backend(), json.dumps(t.figures()))"
    folders = os.pathsep.join(map(str, (ROOT, pathlib.Path(__file__).parent)))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": folders}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    backend, _, found = answer.stdout.partition(" ")
    assert backend == "jax"
    expected = figures()
    for choice, values in json.loads(found).items():
        assert values == pytest.approx(expected[choice], rel=1e-4), choice
