"""Convolutions: with a scaled kernel that is not stored, in groups, and depthwise with gradients from fast kernels."""

import functools

import tensorflow as tf


def scaled_conv(inputs, kernel, scale, strides, padding):
    """Convolution with kernel·scale, recomputed for the gradient instead of stored.

    Stored, these products would take as much memory as all kernels of the network during the whole training step.

    Args:
        inputs: `[B, H, W, C]`.
        kernel: float32 `[h, w, C, D]`.
        scale: float32 `[D]`.
        strides: two ints.
        padding: "same" or "valid".

    Returns:
        `[B, H', W', D]` in the dtype of `inputs`.
    """
    options = {"strides": [1, *strides, 1], "padding": padding.upper()}

    def scaled(kernel, scale):
        return tf.cast(kernel * scale, inputs.dtype)

    @tf.custom_gradient
    def run(inputs, kernel, scale):
        def gradient(upstream):
            # The dependency prevents graph optimisation from computing the product early or reusing the forward one.
            with tf.control_dependencies([upstream]):
                again = scaled(tf.identity(kernel), tf.identity(scale))
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=again, out_backprop=upstream, **options
            )
            to_product = tf.raw_ops.Conv2DBackpropFilter(
                input=inputs, filter_sizes=tf.shape(kernel), out_backprop=upstream, **options
            )
            to_product = tf.cast(to_product, tf.float32)
            return to_inputs, to_product * scale, tf.reduce_sum(to_product * kernel, axis=(0, 1, 2))

        return tf.raw_ops.Conv2D(input=inputs, filter=scaled(kernel, scale), **options), gradient

    return run(inputs, kernel, scale)


def grouped_conv(inputs, kernel, strides, padding, dilation_rate):
    """Convolution in groups by TensorFlow's own kernels; see docs/speed.md for other forms.

    Keras compiles each such convolution with XLA, whose kernels for CPUs take many times as long. A build without
    kernels for the gradients has one convolution per group.

    Args:
        inputs: `[B, H, W, C]`.
        kernel: `[h, w, C / groups, D]`.
        strides: two ints.
        padding: "same" or "valid".
        dilation_rate: two ints.

    Returns:
        `[B, H', W', D]` in the dtype of `inputs`.
    """

    def convolve(inputs, kernel):
        return tf.nn.convolution(inputs, kernel, strides, padding.upper(), dilations=dilation_rate)

    if has_grouped_gradients():
        return convolve(inputs, kernel)
    groups = inputs.shape[-1] // kernel.shape[2]
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([convolve(*part) for part in parts], -1)


@functools.cache
def has_grouped_gradients():
    """Whether this build of TensorFlow has kernels for the gradients of `grouped_conv`; on CPUs, oneDNN has them."""
    # A tape records nothing in an init_scope, so the kernels are called by name.
    options = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    with tf.init_scope():
        cells, kernel = tf.ones((1, 3, 3, 4)), tf.ones((3, 3, 2, 4))
        try:
            tf.raw_ops.Conv2DBackpropInput(input_sizes=cells.shape, filter=kernel, out_backprop=cells, **options)
            tf.raw_ops.Conv2DBackpropFilter(input=cells, filter_sizes=kernel.shape, out_backprop=cells, **options)
        except tf.errors.OpError:
            return False
    return True


def depthwise_conv(inputs, kernel, stride):
    """Depthwise convolution with padding "same", whose gradients are composed of convolutions that are fast on CPUs.

    In bfloat16, TensorFlow's own kernels for the gradients are slow where the stride is 2 (gradient of the inputs: up
    to 20 times as long) and where the kernel is 5×5 (gradient of the kernel: 4 to 6 times as long), see docs/speed.md.
    In float32 they are as fast as these. The values are equal up to rounding.

    Args:
        inputs: `[B, H, W, C]`, H and W even if the stride is 2.
        kernel: `[k, k, C, 1]` in the dtype of `inputs`, k 3 or 5.
        stride: 1 or 2.

    Returns:
        `[B, H / stride, W / stride, C]` in the dtype of `inputs`.
    """

    @tf.custom_gradient
    def run(inputs, kernel):
        def gradient(upstream):
            return _to_inputs(upstream, kernel, stride), _to_kernel(inputs, kernel.shape, upstream, stride)

        return tf.nn.depthwise_conv2d(inputs, kernel, [1, stride, stride, 1], "SAME"), gradient

    return run(inputs, kernel)


def _sides(size, stride):
    """Zeros before and after an even number of rows or columns, for padding "same"."""
    before = (size - stride) // 2
    return before, size - stride - before


def _to_inputs(upstream, kernel, stride):
    """Convolution of the upstream gradient, with zeros between its cells for stride 2, with the flipped kernel."""
    size = kernel.shape[0]
    before, _ = _sides(size, stride)
    sides = [size - 1 - before, before]
    cells = upstream if stride == 1 else _interleaved(upstream)
    return tf.nn.depthwise_conv2d(cells, tf.reverse(kernel, [0, 1]), [1, 1, 1, 1], [[0, 0], sides, sides, [0, 0]])


def _interleaved(values):
    """`[B, H, W, C]` to `[B, 2H, 2W, C]` with zeros in the odd rows and columns."""
    batch, height, width, channels = tf.unstack(tf.shape(values))
    rows = tf.reshape(values, [batch, height, 1, width, channels])
    rows = tf.pad(rows, [[0, 0], [0, 0], [0, 1], [0, 0], [0, channels]])
    return tf.reshape(rows, [batch, 2 * height, 2 * width, channels])


def _to_kernel(inputs, shape, upstream, stride):
    """Gradient of a kernel; that of a 5×5 kernel is put together from four 3×3 ones, which share a row and a column."""
    strides = [1, stride, stride, 1]
    if shape[0] == 3:
        return tf.nn.depthwise_conv2d_backprop_filter(inputs, shape, upstream, strides, "SAME")
    sides = _sides(5, stride)
    padded = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
    rows, columns = (stride * (cells - 1) + 3 for cells in tf.unstack(tf.shape(upstream)[1:3]))

    def quarter(top, left):
        window = padded[:, top : top + rows, left : left + columns]
        return tf.nn.depthwise_conv2d_backprop_filter(window, [3, 3, *shape[2:]], upstream, strides, "VALID")

    upper, lower = (tf.concat([quarter(top, 0), quarter(top, 2)[:, 1:]], axis=1) for top in (0, 2))
    return tf.concat([upper, lower[1:]], axis=0)
