r"""Depthwise convolution with its gradients in the sizes of EfficientNet: this package against TensorFlow's gradients.

    python benchmarks/depthwise.py --output benchmarks/results/depthwise.json
    python benchmarks/depthwise.py --dtype float32

A call is the forward pass and the gradients of inputs and kernel. Cases are the depthwise convolutions of
EfficientNet-Lite0 for 8 crops of 320² that differ. Both sides are TensorFlow: "ours" composes the gradients of fast
convolutions, see `backend/tensorflow/convolution.py`, "peer" is what automatic differentiation uses.
"""

import sys

import numpy as np
import pairs

# Side of the inputs, channels, side of the kernel, stride.
SIZES = (
    (160, 32, 3, 1),
    (160, 96, 3, 2),
    (80, 144, 3, 1),
    (80, 144, 5, 2),
    (40, 240, 5, 1),
    (40, 240, 3, 2),
    (20, 480, 3, 1),
    (20, 480, 5, 1),
    (20, 672, 5, 1),
    (20, 672, 5, 2),
    (10, 1152, 5, 1),
    (10, 1152, 3, 1),
)
CASES = {
    f"{side}²×{channels}, {size}×{size}, stride {stride}": (side, channels, size, stride)
    for side, channels, size, stride in SIZES
}


def case(name, options):
    """The call of a case on the side of this worker, and its repeats."""
    import tensorflow as tf

    from keras_maskrcnn.backend.tensorflow.convolution import depthwise_conv

    side, channels, size, stride = CASES[name]
    random = np.random.default_rng(0)
    shapes = (options.batch, side, side, channels), (size, size, channels, 1)
    inputs, kernel = (tf.constant(random.standard_normal(shape, "float32"), options.dtype) for shape in shapes)

    def theirs(inputs, kernel, stride):
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, stride, stride, 1], "SAME")

    @tf.function
    def step(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel))
            outputs = (depthwise_conv if options.worker == "ours" else theirs)(inputs, kernel, stride)
        return tape.gradient(outputs, (inputs, kernel), tf.ones_like(outputs))

    def call():
        to_inputs, to_kernel = step(inputs, kernel)
        mean = float(tf.reduce_mean(tf.abs(tf.cast(to_kernel, "float32"))))
        return {"of_inputs": float(tf.cast(to_inputs[0, 1, 1, 0], "float32")), "of_kernel": mean}

    return call, options.repeats


def check(ours, peer):
    """None, or a line about a difference between the results."""
    same = all(np.isclose(ours[name], peer[name], rtol=0.05, atol=0.05) for name in ours)
    return None if same else f"the gradients differ: {ours} and {peer}"


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 5, sys.executable)
    add = parser.add_argument
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="(default: %(default)s)")
    add("--batch", type=pairs.positive, default=8, help="images (default: %(default)s)")
    add("--repeats", type=pairs.positive, default=5, help="calls per timing (default: %(default)s)")
    return parser.parse_args()


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.worker:
        pairs.serve(lambda name: case(name, options))
        return
    words = [f"--{name}={getattr(options, name)}" for name in ("dtype", "batch", "repeats")]
    pairs.compare(__file__, options, list(CASES), check=check, words=words, peer_name="TensorFlow's gradients")


if __name__ == "__main__":
    main()
