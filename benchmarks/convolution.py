r"""Large 3×3 convolutions in the sizes of ResNet-50-FPN at 800×1088: Winograd's algorithm against TensorFlow's kernels.

    python benchmarks/convolution.py --output benchmarks/results/convolution.json
    python benchmarks/convolution.py --dtype bfloat16 --output benchmarks/results/convolution_bfloat16.json
    python benchmarks/convolution.py --cases "P2, RPN or pyramid" "mask head"

Both sides are TensorFlow, add a bias and apply a ReLU: "ours" is `backend/tensorflow/winograd.py`, which inference uses
on CPUs, "peer" is `tf.nn.conv2d`. The heights and widths of maps are inputs of the graph, as in `detect`; those of
regions are constant.
"""

import functools
import sys

import numpy as np
import pairs

# Maps, height, width, channels of inputs and outputs.
CASES = {
    "P2, RPN or pyramid": (1, 200, 272, 256),
    "P3, RPN or pyramid": (1, 100, 136, 256),
    "P4, RPN or pyramid; C4": (1, 50, 68, 256),
    "P5, RPN or pyramid": (1, 25, 34, 256),
    "mask head": (100, 14, 14, 256),
    "C3": (1, 100, 136, 128),
    "C5": (1, 25, 34, 512),
    "C2, not used": (1, 200, 272, 64),
}
BOUNDS = {"float32": 1e-4, "bfloat16": 1e-2}  # of differences


def case(name, options):
    """The call of a case on the side of this worker, and its repeats."""
    import tensorflow as tf

    from keras_maskrcnn.backend.tensorflow.winograd import winograd_conv

    *shape, channels = CASES[name]
    random = np.random.default_rng(0)
    inputs = tf.cast(tf.nn.relu(random.standard_normal((*shape, channels), "float32")), options.dtype)
    kernel = tf.constant(random.standard_normal((3, 3, channels, channels), "float32") / (9 * channels) ** 0.5)
    bias = tf.constant(random.standard_normal(channels, "float32"))

    def finish(outputs):
        return tf.nn.relu(outputs + bias)

    def theirs(inputs, kernel, _):
        outputs = tf.nn.conv2d(inputs, tf.cast(kernel, options.dtype), 1, "SAME")
        return tf.nn.relu(outputs + tf.cast(bias, options.dtype))

    run = winograd_conv if options.worker == "ours" else theirs
    sides = shape[1:] if shape[0] > 1 else (None, None)
    specs = [tf.TensorSpec([None, *sides, channels], options.dtype), tf.TensorSpec(kernel.shape)]
    graph = tf.function(lambda *x: run(*x, finish), input_signature=specs, autograph=False).get_concrete_function()

    def call():
        outputs = graph(inputs, kernel)
        return {"mean": float(tf.reduce_mean(outputs[0, 0])), "corner": float(outputs[-1, -1, -1, 0])}

    return call, options.repeats


def check(bound, ours, peer):
    """None, or a line about a difference between the results beyond a bound, absolute and relative."""
    same = all(np.isclose(ours[name], peer[name], rtol=bound, atol=bound) for name in ours)
    return None if same else f"the outputs differ: {ours} and {peer}"


def parse():
    """Arguments of the command line."""
    parser = pairs.arguments(__doc__, 5, sys.executable)
    add = parser.add_argument
    add("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="(default: all)")
    add("--dtype", choices=BOUNDS, default="float32", help="of the maps (default: %(default)s)")
    add("--repeats", type=pairs.positive, default=3, help="calls per timing (default: %(default)s)")
    return parser.parse_args()


def main():
    """Parent: starts the workers and prints the table. Worker: serves the cases of its side."""
    options = parse()
    if options.worker:
        pairs.serve(lambda name: case(name, options))
        return
    pairs.compare(
        __file__,
        options,
        options.cases,
        check=functools.partial(check, BOUNDS[options.dtype]),
        words=["--repeats", options.repeats, "--dtype", options.dtype],
        peer_name="TensorFlow's convolution",
    )


if __name__ == "__main__":
    main()
