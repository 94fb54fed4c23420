"""OpenVINO's own operations in place of what TensorFlow's operations are converted to, with equal results."""

import numpy as np

from keras_maskrcnn.layers import RoIAlign, RoIWarp

EXACT = 2**24  # OpenVINO computes sums of integers inside fused operations in float32
MODES = {False: "asymmetric", True: "half_pixel_for_nn"}  # by `aligned`


def use_roi_align(network, pooled, named=()):
    """Replaces the gathers of RoIAlign by OpenVINO's operation.

    RoIWarp and RoIPool remain, as does `reduce="max"`: OpenVINO takes the maximum of weighted pixels, not of samples.

    Args:
        network: `openvino.Model`, changed in place.
        pooled: list of `graph.PooledNames`, outputs of the model.
        named: names of tensors that must remain.
    """
    for call in pooled:
        layer = call.layer
        if isinstance(layer, RoIAlign) and not isinstance(layer, RoIWarp) and layer.reduce == "average":
            _source(network, call.regions).replace(_roi_align(network, call))
    _cancel_transposes(network, set(named))


def _source(network, name):
    """The tensor that an output of a model is."""
    return network.output(name).get_node().input_value(0)


def _roi_align(network, call):
    """RoIAlign of each level's own boxes, put back into the order of all boxes: `[N, P, P, C]`."""
    import openvino
    from openvino import opset13 as op

    layer, size = call.layer, call.layer.output_size
    boxes, image_index, levels = (_source(network, name) for name in (call.boxes, call.image_index, call.levels))
    mode = {"mode": "avg", "aligned_mode": MODES[layer.aligned]}
    axis, rows, regions = op.constant(np.int32(0)), [], []
    for level, (name, stride) in enumerate(zip(call.features, layer.strides, strict=True)):
        here = op.non_zero(op.equal(levels, op.constant(np.int32(level))), openvino.Type.i32)
        rows.append(op.squeeze(here, axis))
        feature = op.transpose(_source(network, name), op.constant(np.array([0, 3, 1, 2], "int32")))
        taken = [op.gather(tensor, rows[-1], axis) for tensor in (boxes, image_index)]
        regions.append(op.roi_align(feature, *taken, size, size, layer.sampling_ratio, 1 / stride, **mode))
    # A scatter into the places of all boxes, so that their number remains fixed where it is.
    count = op.squeeze(op.shape_of(image_index, openvino.Type.i32), axis)
    place = op.range(axis, count, op.constant(np.int32(1)), openvino.Type.i32)
    place = op.scatter_elements_update(place, op.concat(rows, 0), place, axis)
    regions = op.gather(op.concat(regions, 0), place, axis)
    return op.transpose(regions, op.constant(np.array([0, 2, 3, 1], "int32"))).output(0)


def _cancel_transposes(network, named):
    """Removes a Transpose that undoes the one before it; the first one may have had the gathers as its consumers.

    A tensor in `named` keeps its consumers, since it would disappear with the last one.
    """
    for node in network.get_ordered_ops():
        before = node.input_value(0).get_node() if node.get_type_name() == "Transpose" else node
        if node is not before and before.get_type_name() == "Transpose" and not before.output(0).get_names() & named:
            first, second = (each.input_value(1).get_node().get_data() for each in (before, node))
            if np.array_equal(first[second], np.arange(len(first))):
                node.output(0).replace(before.input_value(0))


def sort_fast(network):
    """Replaces TopK that keeps the order of equal values; OpenVINO computes that form up to a thousand times slower.

    Args:
        network: `openvino.Model`, changed in place. TopK along another axis than the last one, or of more than 32,767
            values, remain. Whole numbers must be below 2²⁴.
    """
    for node in network.get_ops():
        if node.get_type_name() == "TopK" and node.get_attributes()["stable"]:
            _replace_top_k(node)


def _replace_top_k(node):
    """A stable TopK along the last axis, by TopK without ties."""
    values, count = node.input_value(0), node.input_value(1)
    attributes, constant = node.get_attributes(), count.get_node()
    usual = attributes["mode"] == "max" and attributes["index_element_type"] == "i32"
    last = attributes["axis"] in (-1, len(values.get_partial_shape()) - 1)
    known = constant.get_type_name() == "Constant" and int(constant.get_data()) <= 32767
    if not (usual and last and known):
        return
    for old, new in zip(node.outputs(), _stable_top_k(values, count, int(constant.get_data())), strict=True):
        old.replace(new.output(0))


def _stable_top_k(values, count, k):
    """The k largest values and their int32 positions, equal values in the order of their positions.

    The k-th largest value t divides the values. Integer keys without ties choose those above t and, of those equal to
    t, the first ones; both groups come in the order of their positions. Then the chosen ones are sorted by value, and
    the rank among different values, with the position as the last digits, is the key that restores the order of equal
    ones.
    """
    from openvino import opset13 as op

    def top(tensor, mode="max"):
        return op.topk(tensor, count, -1, mode, "value", index_element_type="i32", stable=False)

    def number(value):
        return op.constant(np.int32(value))

    smallest = op.reduce_min(top(values).output(0), number(-1), True)
    size, position = _positions(op, values)
    # Above: from n down to 1; equal: from -1 down to -n.
    equal = op.select(op.equal(values, smallest), op.subtract(number(-1), position), number(-EXACT))
    index = top(op.select(op.greater(values, smallest), op.subtract(size, position), equal)).output(1)
    chosen = op.gather_elements(values, index, -1)
    ordered = top(chosen)
    value, place = ordered.outputs()
    earlier = op.concat([_part(op, value, 0, 1), _part(op, value, 0, -1)], -1)
    rank = op.cumsum(op.convert(op.not_equal(value, earlier), "i32"), number(-1))
    order = top(op.add(op.multiply(rank, number(k)), place), "min").output(1)
    order = op.gather_elements(place, order, -1)
    return op.gather_elements(chosen, order, -1), op.gather_elements(index, order, -1)


def _positions(op, values):
    """int32 length of the last axis, and positions along it, `[n]`."""
    shape = op.shape_of(values, "i32")
    size = op.gather(shape, op.constant(np.int32(-1)), op.constant(np.int32(0)))
    return size, op.range(op.constant(np.int32(0)), size, op.constant(np.int32(1)), "i32")


def _part(op, values, start, stop):
    """`values[..., start:stop]`."""
    numbers = (op.constant(np.array([number], "int32")) for number in (start, stop, 1, -1))
    return op.slice(values, *numbers)
