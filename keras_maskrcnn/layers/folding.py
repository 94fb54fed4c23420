"""Normalisation with stored statistics, folded into the preceding convolution.

With stored statistics a normalisation is y·scale + offset, and a convolution is linear: conv(x, kernel)·scale equals
conv(x, kernel·scale). Scaling the kernel replaces a pass over every feature map, and backends fuse the remaining
convolution, bias and ReLU into one operation. The layers keep their variables, so saving, loading and training are
unchanged, and gradients reach the kernel through a frozen normalisation as before.
"""

import keras
from keras import ops

from keras_maskrcnn import backend

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# With half as many, the transforms take as long as the products save.
WINOGRAD_CHANNELS = {"float32": 128, "bfloat16": 256}


def conv_norm(conv, norm, inputs, training=False, valid=None):
    """A convolution followed by its normalisation.

    Args:
        conv: a built layer of a class in `CONVOLUTIONS` without activation; one with a bias is not folded.
        norm: a layer made by `layers.norm.norm`.
        inputs: `[B, H, W, C]`.
        training: whether trainable batch normalisation uses batch statistics.
        valid: bool `[B]`, the rows that batch statistics are computed from; None for all.

    Returns:
        `norm(conv(inputs))` up to rounding, in the convolution's compute dtype.
    """
    if not hasattr(norm, "constants"):
        return norm(convolved(conv, inputs))
    constants = norm.constants(training)
    if constants is None or conv.use_bias:
        return norm(convolved(conv, inputs), training=training, **({} if valid is None else {"valid": valid}))
    scale, offset = constants
    if _is_large(conv):
        return _large_conv(conv, inputs, ops.cast(conv.kernel, "float32") * scale, offset)
    outputs = _scaled_conv(conv, ops.cast(inputs, conv.compute_dtype), scale, training)
    return outputs + ops.cast(offset, conv.compute_dtype)


def convolved(conv, inputs):
    """Outputs of a convolution `[B, H, W, C]`, with its bias and activation.

    Those of a large 3×3 convolution come from Winograd's algorithm in traces for inference on a CPU, see
    `backend.lowering`, if it is of stride 1 with padding "same" and has `WINOGRAD_CHANNELS` or more of both inputs and
    outputs.

    Args:
        conv: a built layer of a class in `CONVOLUTIONS`.
        inputs: `[B, H, W, C]`.
    """
    if _is_large(conv):
        return _large_conv(conv, inputs, conv.kernel, conv.bias, conv.activation)
    if conv.use_bias or not (isinstance(conv, keras.layers.DepthwiseConv2D) or conv.groups > 1):
        return conv(inputs)
    run = depthwise_conv if isinstance(conv, keras.layers.DepthwiseConv2D) else plain_conv
    return run(conv, ops.cast(inputs, conv.compute_dtype), ops.cast(conv.kernel, conv.compute_dtype))


def _is_large(conv):
    """Whether Winograd's algorithm runs this layer, see `convolved`."""
    return (
        type(conv) is keras.layers.Conv2D
        and (conv.kernel_size, conv.strides, conv.dilation_rate) == ((3, 3), (1, 1), (1, 1))
        and (conv.padding, conv.groups) == ("same", 1)
        and backend.lowering("large_conv", conv.compute_dtype) == "winograd"
        and min(conv.kernel.shape[2:]) >= WINOGRAD_CHANNELS[conv.compute_dtype]
    )


def _large_conv(conv, inputs, kernel, bias, activation=None):
    """The convolution with another kernel and bias, or None."""
    from keras_maskrcnn.backend.tensorflow.winograd import large_conv

    kernel, bias = (None if values is None else ops.convert_to_tensor(values, "float32") for values in (kernel, bias))

    def finish(outputs):
        outputs = outputs if bias is None else outputs + bias
        return outputs if activation is None else activation(outputs)

    return large_conv(ops.cast(inputs, conv.compute_dtype), kernel, finish)


def _scaled_conv(conv, inputs, scale, training):
    """The convolution with kernel·scale; the product is float32, as rounding the scale would bias whole channels."""
    kernel = ops.cast(conv.kernel, "float32")
    if isinstance(conv, keras.layers.DepthwiseConv2D):
        # Output channel c·M + m belongs to the kernel [h, w, c, m] of M multiples.
        scaled = kernel * ops.reshape(scale, kernel.shape[2:])
        return depthwise_conv(conv, inputs, ops.cast(scaled, conv.compute_dtype))
    if training and conv.trainable and _can_rescale(conv):
        from keras_maskrcnn.backend.tensorflow.convolution import scaled_conv

        return scaled_conv(inputs, kernel, scale, conv.strides, conv.padding)
    return plain_conv(conv, inputs, ops.cast(kernel * scale, conv.compute_dtype))


def _can_rescale(conv):
    """Whether `backend.tensorflow.convolution.scaled_conv` has the kernels of this convolution's gradients."""
    if not backend.is_tensorflow() or tuple(conv.dilation_rate) != (1, 1):
        return False
    from keras_maskrcnn.backend.tensorflow.convolution import has_grouped_gradients

    return conv.groups == 1 or has_grouped_gradients()


def plain_conv(conv, inputs, kernel):
    """The convolution of a `keras.layers.Conv2D` with another kernel, without bias; with groups or without."""
    if conv.groups > 1 and backend.is_tensorflow() and not backend.static_shapes():
        from keras_maskrcnn.backend.tensorflow.convolution import grouped_conv

        return grouped_conv(inputs, kernel, conv.strides, conv.padding, conv.dilation_rate)
    return ops.conv(
        inputs,
        kernel,
        strides=conv.strides,
        padding=conv.padding,
        dilation_rate=conv.dilation_rate,
        data_format="channels_last",
    )


def depthwise_conv(conv, inputs, kernel):
    """The convolution of a `keras.layers.DepthwiseConv2D` with another kernel, without bias."""
    is_half = keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"
    if backend.is_tensorflow() and is_half and _has_fast_gradients(conv, inputs.shape, kernel.shape):
        from keras_maskrcnn.backend.tensorflow.convolution import depthwise_conv as run

        outputs = run(inputs, kernel, conv.strides[0])
        # Of even sides, "valid" leaves out the last window of "same", which is partly outside.
        return outputs if conv.padding == "same" else outputs[:, :-1, :-1]
    return ops.depthwise_conv(
        inputs,
        kernel,
        strides=conv.strides,
        padding=conv.padding,
        dilation_rate=conv.dilation_rate,
        data_format="channels_last",
    )


def _has_fast_gradients(conv, inputs, kernel):
    """Whether `backend.tensorflow.convolution.depthwise_conv` takes inputs and kernels of these shapes."""
    size, strides = tuple(kernel[:2]), tuple(conv.strides)
    square = size in ((3, 3), (5, 5)) and kernel[3] == 1 and tuple(conv.dilation_rate) == (1, 1)
    even = all(side is not None and side % 2 == 0 for side in inputs[1:3])
    if conv.padding != "same":
        return square and size == (3, 3) and strides == (2, 2) and even
    return square and (strides == (1, 1) or (strides == (2, 2) and even))


class FoldingModel(keras.Model):
    """Functional model with one input that runs each convolution together with its normalisation, see `conv_norm`.

    Every layer must be called exactly once and on tensors only, and every convolution must be followed by exactly one
    layer, as in the backbones of this package.
    """

    def call(self, inputs, training=False, mask=None):
        """Run the layers in order, `[B, H, W, 3]` to a dict of feature maps."""
        (image,) = keras.tree.flatten(inputs)
        return self.section(image, training=training)

    def section(self, inputs, start=None, ends=None, training=False, valid=None):
        """Run a part of the layers.

        Args:
            inputs: `[B, H, W, C]`, images, or the output `start` of others.
            start: name of the output that the part begins after; None for the input.
            ends: names of the outputs to compute; None for all.
            training: whether trainable batch normalisation uses batch statistics.
            valid: bool `[B]`, the rows that batch statistics are computed from; None for all.

        Returns:
            dict of the outputs `ends`.
        """
        first, last = self._symbols(start, ends)
        values, waiting = {id(first): ops.cast(inputs, first.dtype)}, {}
        for operation in self._between(first, last.values()):
            if isinstance(operation, CONVOLUTIONS):
                waiting[id(operation.output)] = operation
                continue
            conv = waiting.get(id(operation.input))
            if conv is not None:
                values[id(operation.output)] = conv_norm(conv, operation, values[id(conv.input)], training, valid)
            else:
                given = keras.tree.map_structure(lambda symbol: values[id(symbol)], operation.input)
                values[id(operation.output)] = operation(given)
        return {name: values[id(symbol)] for name, symbol in last.items()}

    def is_section(self, start, end):
        """Whether the output `end` depends on the input through the output `start` only."""
        first, last = self._symbols(start, (end,))
        between = self._between(first, last.values())
        return bool(between) and not any(isinstance(operation, keras.layers.InputLayer) for operation in between)

    def _symbols(self, start, ends):
        """Symbolic tensors of the beginning of a section and, by name, of its ends."""
        first = self.inputs[0] if start is None else self.output[start]
        return first, {name: self.output[name] for name in (self.output if ends is None else ends)}

    def _between(self, first, last):
        """Operations from one symbolic tensor to others, in the order of computation."""
        needed, found = {id(symbol) for symbol in last} - {id(first)}, []
        for operation in reversed(self.operations):
            if needed & {id(symbol) for symbol in keras.tree.flatten(operation.output)}:
                found.append(operation)
                if not isinstance(operation, keras.layers.InputLayer):
                    needed |= {id(symbol) for symbol in keras.tree.flatten(operation.input)} - {id(first)}
        return found[::-1]
