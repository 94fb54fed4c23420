"""The operations that replace TensorFlow's in an OpenVINO file compute what those compute."""

import numpy as np
import pytest

from keras_maskrcnn.layers import RoIAlign, RoIWarp
from keras_maskrcnn.layers.region_pooling import observed

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")

from keras_maskrcnn import backend
from keras_maskrcnn.backend.rows import STEP
from keras_maskrcnn.heads.keypoint import KeypointHead
from keras_maskrcnn.heads.mask import MaskHead
from keras_maskrcnn.inference import openvino_operations
from keras_maskrcnn.inference.exported import variable
from keras_maskrcnn.inference.graph import PooledNames
from keras_maskrcnn.inference.openvino_file import UNREPORTED


def compiled(model):
    return openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@variable(*UNREPORTED)
def converted(network):
    return openvino.convert_model(network)


def kinds(model):
    return {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize(("shape", "k", "values"), [((1, 9), 3, 2), ((2, 700), 300, 5), ((1, 5000), 5000, 40)])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_stable_top_k_of_equal_values(shape, k, values, dtype):
    from openvino import opset13 as op

    numbers = np.random.default_rng(0).integers(0, values, shape).astype(dtype)
    numbers[0, :4] = -np.inf if dtype == "float32" else -1
    parameter = op.parameter(openvino.PartialShape([-1, shape[1]]), openvino.Type(numbers.dtype))
    top = op.topk(parameter, op.constant(np.int32(k)), -1, "max", "value", index_element_type="i32", stable=True)
    model = openvino.Model(top.outputs(), [parameter], "m")
    openvino_operations.sort_fast(model)
    assert not any(node.get_type_name() == "TopK" and node.get_attributes()["stable"] for node in model.get_ops())
    order = np.argsort(-numbers, axis=-1, kind="stable")[:, :k]
    value, index = compiled(model)([numbers]).values()
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(value, np.take_along_axis(numbers, order, axis=-1))


def test_a_top_k_without_a_faster_form_remains():
    from openvino import opset13 as op

    parameter = op.parameter(openvino.PartialShape([7, 1]), openvino.Type.i32)
    top = op.topk(parameter, op.constant(np.int32(3)), 0, "max", "value", index_element_type="i32", stable=True)
    model = openvino.Model([top.output(1)], [parameter], "m")
    openvino_operations.sort_fast(model)
    assert kinds(model) == {"Parameter", "Constant", "TopK", "Result"}
    assert compiled(model)([np.array([[1], [5], [5], [0], [7], [5], [5]], "int32")])[0].ravel().tolist() == [4, 1, 2]


def pooling_network(layer):
    """OpenVINO's form of a layer that pools boxes of two images, and the names of its tensors."""
    import tensorflow as tf

    fields = ("boxes", "image_index", "levels", "regions")
    specs = [tf.TensorSpec([2, 16 >> level, 24 >> level, 3], tf.float32) for level in range(2)]

    @tf.function(input_signature=[*specs, tf.TensorSpec([2, None, 4], tf.float32)], autograph=False)
    def network(fine, coarse, corners):
        with observed() as seen:
            found = layer([2 * fine, 2 * coarse], corners)
        (call,) = seen
        tensors = {name: tf.identity(getattr(call, name)) for name in fields}
        tensors |= {f"level{i}": tf.identity(feature) for i, feature in enumerate(call.features)}
        return {"found": found, **tensors}

    model = converted(network)
    return network, model, PooledNames(layer, ["level0", "level1"], *fields)


@pytest.mark.parametrize("options", [{}, {"aligned": True, "sampling_ratio": 3}], ids=["default", "aligned"])
def test_roi_align(options):
    layer = RoIAlign(3, strides=(4, 8), implementation="gather", canonical_size=32, canonical_level=3, **options)
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=(2, 16 >> level, 24 >> level, 3)).astype("float32") for level in range(2)]
    corners = rng.uniform(-8, 90, (2, 20, 2)).astype("float32")
    boxes = np.concatenate([corners, corners + rng.uniform(0, 60, (2, 20, 2))], -1).astype("float32")
    network, model, names = pooling_network(layer)
    openvino_operations.use_roi_align(model, [names])
    assert "ROIAlign" in kinds(model)
    run = compiled(model)
    for some in (boxes, boxes[:, :0], np.tile(np.float32([1, 2, 9, 8]), (2, 1, 1))):  # both levels, none, the fine one
        expected = network(*inputs, some)["found"].numpy()
        np.testing.assert_allclose(run([*inputs, some])["found"], expected, atol=2e-5)


@pytest.mark.parametrize(
    "layer",
    [RoIWarp(2, strides=(4, 8), implementation="gather"), RoIAlign(2, (4, 8), implementation="gather", reduce="max")],
    ids=["warp", "max"],
)
def test_what_openvino_computes_in_another_way_remains(layer):
    _, model, names = pooling_network(layer)
    openvino_operations.use_roi_align(model, [names])
    assert "ROIAlign" not in kinds(model)


@pytest.mark.parametrize(
    "head",
    [
        lambda: MaskHead(2, {"pool": 4, "width": 6, "depth": 1}),
        lambda: MaskHead(2, {"pool": 4, "width": 6, "kind": "mlp"}),
        lambda: KeypointHead(3, {"pool": 4, "width": 6, "depth": 1}),
    ],
    ids=["masks", "mlp", "keypoints"],
)
def test_heads_compute_the_slots_in_use(head):
    """Few, none and all slots in use, in two images; what the layers see is rounded up to a multiple of `STEP`."""
    import tensorflow as tf

    head, slots, rng = head(), 2 * STEP, np.random.default_rng(2)
    head.connect((8,), 5)
    shapes = {"level": [8, 8, 5], "boxes": [slots, 4], "labels": [slots], "valid": [slots]}
    dtypes = {"labels": tf.int32, "valid": tf.bool}
    specs = [tf.TensorSpec([None, *shape], dtypes.get(name, tf.float32)) for name, shape in shapes.items()]

    def predict(level, boxes, labels, valid, dynamic=()):
        with backend.static_shapes_scope(True), backend.dynamic_scope(*dynamic), observed() as seen:
            outputs = head.predict([level], {"boxes": boxes, "labels": labels, "valid": valid})
        return {**outputs, "rows": tf.shape(seen[0].regions)[0]}

    @tf.function(input_signature=specs, autograph=False)
    def network(*inputs):
        return predict(*inputs, dynamic=["mask_rows"])

    model = converted(network)
    run, outputs = compiled(model), [output.name for output in head.OUTPUTS]
    assert all(size.is_static for name in outputs for size in list(model.output(name).partial_shape)[1:])
    level = rng.normal(size=(2, 8, 8, 5)).astype("float32")
    corners = rng.uniform(0, 40, (2, slots, 2)).astype("float32")
    boxes = np.concatenate([corners, corners + rng.uniform(4, 24, corners.shape)], -1).astype("float32")
    labels = rng.integers(1, 3, (2, slots)).astype("int32")
    for counts, rows in (((3, 1), STEP), ((0, 0), STEP), ((1, STEP), 2 * STEP), ((slots, slots), 2 * slots)):
        valid = np.arange(slots) < np.array(counts)[:, None]
        inputs = [level, boxes * valid[..., None], labels * valid, valid]
        expected, found = predict(*map(tf.constant, inputs)), run(inputs)
        assert found["rows"] == rows and expected["rows"] == 2 * slots
        for name in outputs:
            np.testing.assert_allclose(found[name], expected[name], atol=2e-5)
            assert found[name][valid].any() == valid.any() and not found[name][~valid].any()
