r"""Grouped 3×3 convolutions in the sizes of ResNeXt: forms of the same convolution, timed in turn.

    python benchmarks/grouped.py
    python benchmarks/grouped.py --dtype bfloat16 --forms kernels separate64 --rounds 20

A call is the forward pass, or the forward pass and the gradients of inputs and kernel. Forms:

- kernels: TensorFlow's own kernels, `backend.tensorflow.convolution.grouped_conv`, which this package uses;
- keras: `keras.ops.conv`, which compiles each grouped convolution with XLA (one call, it may take seconds);
- dense: one convolution whose kernel is zero between groups;
- separateN: dense convolutions of N channels each, split and joined;
- shifts: nine products of matrices, one for each cell of the kernel.

The ratio is the time of a form over that of `kernels`: the least of all rounds of each, since other programs on the
machine can only add time.
"""

import argparse
import time

import keras
import machine
import numpy as np
import tensorflow as tf

from keras_maskrcnn.backend.tensorflow.convolution import grouped_conv

# Side of the inputs, channels, groups: the stages of ResNeXt-50-32x4d, and one of ResNeXt-101-32x8d, at 256² pixels.
CASES = ((64, 128, 32), (32, 256, 32), (16, 512, 32), (8, 1024, 32), (16, 1024, 32))
FORMS = ("kernels", "keras", "dense", "separate32", "separate64", "separate128", "shifts")
SLOW = 1.0  # seconds of a call from which a form is not repeated


def kernels(inputs, kernel, groups):
    """TensorFlow's own kernels."""
    del groups
    return grouped_conv(inputs, kernel, (1, 1), "same", (1, 1))


def by_keras(inputs, kernel, groups):
    """The operation of Keras."""
    del groups
    return keras.ops.conv(inputs, kernel, 1, "same", "channels_last")


def separate(inputs, kernel, groups, parts):
    """`parts` dense convolutions, whose kernels are zero between groups."""
    channels, size = inputs.shape[-1], inputs.shape[-1] // groups
    width = channels // parts
    rows, columns = np.arange(width) // size, np.arange(channels) % width // size
    dense = tf.tile(kernel, (1, 1, width // size, 1)) * tf.constant(rows[:, None] == columns, kernel.dtype)
    pairs = zip(tf.split(inputs, parts, 3), tf.split(dense, parts, 3), strict=True)
    return tf.concat([tf.nn.conv2d(values, weights, 1, "SAME") for values, weights in pairs], axis=3)


def shifts(inputs, kernel, groups):
    """Products of matrices, group by group, for each cell of the kernel."""
    batch, height, width, channels = inputs.shape
    size = channels // groups
    padded = tf.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weights = tf.transpose(tf.reshape(kernel, (3, 3, size, groups, size)), (0, 1, 3, 2, 4))
    total = 0
    for y in range(3):
        for x in range(3):
            values = tf.reshape(padded[:, y : y + height, x : x + width], (-1, groups, size))
            total += tf.einsum("ngi,gio->ngo", values, weights[y, x])
    return tf.reshape(total, (batch, height, width, channels))


def form(name):
    """The function of a form."""
    if name.startswith("separate"):
        return lambda x, k, groups: separate(x, k, groups, max(1, x.shape[-1] // int(name.removeprefix("separate"))))
    return {
        "kernels": kernels,
        "keras": by_keras,
        "dense": lambda x, k, groups: separate(x, k, groups, 1),
        "shifts": shifts,
    }[name]


def calls(name, inputs, kernel, groups):
    """The forward pass, and with the gradients, as compiled graphs."""
    run = form(name)

    @tf.function
    def forward(inputs, kernel):
        return [run(inputs, kernel, groups)]

    @tf.function
    def both(inputs, kernel):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel))
            outputs = run(inputs, kernel, groups)
        return [outputs, *tape.gradient(outputs, (inputs, kernel), tf.nn.relu(outputs))]

    return [lambda: forward(inputs, kernel), lambda: both(inputs, kernel)]


def seconds(call):
    """Time of a call whose results are waited for."""
    start = time.perf_counter()
    for result in call():
        result.numpy()
    return time.perf_counter() - start


def measure(options, side, channels, groups):
    """Dict from forms to the least seconds of both calls; prints where the results of a form differ."""
    random = np.random.default_rng(0)
    shapes = (options.batch, side, side, channels), (3, 3, channels // groups, channels)
    inputs, kernel = (tf.constant(random.standard_normal(shape, "float32"), options.dtype) for shape in shapes)
    made = {name: calls(name, inputs, kernel, groups) for name in options.forms}
    wanted = [tf.cast(value, "float32") for value in made[options.forms[0]][1]()]
    best = {}
    for name, (forward, both) in made.items():
        found = [tf.cast(value, "float32") for value in both()]
        for one, other in zip(found, wanted, strict=True):
            if np.abs(one - other).max() > 0.02 * np.abs(other).max():
                print(f"{name}: the results differ")
        forward()
        best[name] = [seconds(forward), seconds(both)]
    for _ in range(options.rounds):
        for name, pair in best.items():
            if max(pair) < SLOW:
                best[name] = [min(old, seconds(call)) for old, call in zip(pair, made[name], strict=True)]
    return best


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dtype", choices=("bfloat16", "float32"), default="float32", help="(default: %(default)s)")
    add("--batch", type=int, default=2, help="images (default: %(default)s)")
    add("--rounds", type=int, default=10, help="timings of each form (default: %(default)s)")
    add("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="the first is the one compared with")
    add("--cases", type=int, default=len(CASES), help="only the first cases (default: all)")
    return parser.parse_args()


def main():
    """Prints a table."""
    options = parse()
    print(
        f"{machine.description()}\n{options.dtype}, {options.batch} images; times of a form over those of the first\n"
    )
    print("| case | form | forward | with gradients |\n|---|---|---|---|")
    for side, channels, groups in CASES[: options.cases]:
        best = measure(options, side, channels, groups)
        first = best[options.forms[0]]
        for name, pair in best.items():
            cells = [
                f"{value * 1e3:.1f} ms" if pair is first else f"{value / base:.2f}×"
                for value, base in zip(pair, first, strict=True)
            ]
            print(f"| {side}²×{channels}, {groups} groups | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
