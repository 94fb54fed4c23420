"""Weights of a LiteRT model in fewer bits. Coordinates, scores and all other constants stay in float32."""

import collections

import numpy as np

# Position of the weights among the inputs of a layer is 1; this is the axis of its output channels.
AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}
SMALLEST = 1024  # numbers: fewer are not worth an operation


def with_narrow_weights(content, dtype):
    """A model with the weights of its convolutions and dense layers in float16 or int8.

    TensorFlow's converter does both, but to other constants too, among them the anchors, whose coordinates then are
    rounded to a quarter of a pixel and more.

    - float16: the engine converts them to float32 once, and computes in float32.
    - int8: one scale per output channel. The engine quantises the inputs of a layer by their range in each image, and
      multiplies in 8 bits (dynamic range quantisation); sums and results are float32.

    Args:
        content: bytes of the model.
        dtype: "float16" or "int8".

    Returns:
        bytes.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer, uses in _weights(model, schema).items():
        change = _to_float16 if dtype == "float16" else _to_int8
        change(model, model.buffers[buffer], uses, schema)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _weights(model, schema):
    """Uses of each buffer that holds weights and nothing else: list of (subgraph, number of the tensor, axis)."""
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    found = collections.defaultdict(list)
    for graph in model.subgraphs:
        axes = collections.defaultdict(set)
        for operator in graph.operators:
            for position, number in enumerate(operator.inputs):
                axes[number].add(AXES.get(codes[operator.opcodeIndex]) if position == 1 else None)
        for number, tensor in enumerate(graph.tensors):
            axis = axes[number].pop() if len(axes[number]) == 1 else None
            large = tensor.type == schema.TensorType.FLOAT32 and np.prod(tensor.shape) >= SMALLEST
            found[tensor.buffer].append((graph, number, axis if large else None))
    stored = {number: uses for number, uses in found.items() if model.buffers[number].data is not None}
    return {number: uses for number, uses in stored.items() if all(axis is not None for *_, axis in uses)}


def _to_float16(model, buffer, uses, schema):
    buffer.data = np.frombuffer(bytes(buffer.data), "float32").astype("float16").view("uint8")
    code = _dequantize(model, schema)
    for graph, number, _ in uses:
        weights, half = graph.tensors[number], schema.TensorT()
        half.shape, half.type, half.buffer = weights.shape, schema.TensorType.FLOAT16, weights.buffer
        half.name, weights.buffer = weights.name + b"/float16", 0
        graph.tensors.append(half)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, [len(graph.tensors) - 1], [number]
        graph.operators.insert(0, operator)


def _dequantize(model, schema):
    """Number of the operation that converts float16 to float32."""
    wanted = schema.BuiltinOperator.DEQUANTIZE
    for number, code in enumerate(model.operatorCodes):
        if code.builtinCode == wanted:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = wanted
    code.version = 3  # the first with float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _to_int8(model, buffer, uses, schema):
    graph, number, axis = uses[0]
    values = np.frombuffer(bytes(buffer.data), "float32").reshape(graph.tensors[number].shape)
    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / 127
    buffer.data = np.round(values / scale).astype("int8").view("uint8").ravel()
    for graph, number, _ in uses:
        weights, quantised = graph.tensors[number], schema.QuantizationParametersT()
        quantised.scale = scale.ravel().astype("float32").tolist()
        quantised.zeroPoint, quantised.quantizedDimension = [0] * scale.size, axis
        weights.type, weights.quantization = schema.TensorType.INT8, quantised
