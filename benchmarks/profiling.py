r"""The floor under a prediction's time, how much of it is reached, and where the time goes.

    python benchmarks/profiling.py --output benchmarks/results/profiling.json --docs docs
    python benchmarks/profiling.py --dtype float32 --logdir runs/profile     # then: tensorboard --logdir runs/profile

The floor is the time that convolutions and matrix products would take at the rate that this machine reaches on single
ones: their FLOPs, a multiplication and an addition being two, over the rate of a 3×3 convolution (256 channels, the
size of P2; the stem counts with these), of a 1×1 convolution there, and of the first product of the box head, each for
the FLOPs of its kind. FLOPs are counted in the graph with every detection slot filled, and so is what is timed.

Parts are timed as ever longer beginnings of the flow, of which differences are taken; they therefore leave out what the
compiled prediction saves by seeing everything at once. `--logdir` writes a trace of three predictions by TensorFlow's
profiler (TensorBoard shows it with the package tensorboard-plugin-profile).
"""

import argparse
import math
import pathlib
import statistics
import time

import machine
import numpy as np
import pairs
import reports
import scenes

# The shapes on which rates are measured: a convolution's input [B, H, W, C] and kernel, a product's two factors.
RATES = {
    "3×3 convolution": ((1, 200, 272, 256), (3, 3, 256, 256)),
    "1×1 convolution": ((1, 200, 272, 256), (1, 1, 256, 256)),
    "matrix product": ((1000, 12544), (12544, 1024)),
}
TINY_RATES = {
    "3×3 convolution": ((1, 16, 24, 16), (3, 3, 16, 16)),
    "1×1 convolution": ((1, 16, 24, 16), (1, 1, 16, 16)),
    "matrix product": ((20, 784), (784, 16)),
}
CHAIN = 4


# Counting ---------------------------------------------------------------------------------------------------------


def count_flops(graph):
    """FLOPs of the convolutions and matrix products of a TensorFlow graph.

    Args:
        graph: tf.Graph with static shapes; functions inside it are not looked into.

    Returns:
        dict from the kinds of `RATES` to FLOPs.

    Raises:
        ValueError: naming an operation whose shape is not known.
    """
    total = dict.fromkeys(RATES, 0)
    for operation in graph.get_operations():
        counted = COUNTERS.get(operation.type)
        if counted:
            kind, flops = counted(operation)
            total[kind] += flops
    return total


def _convolution(output, kernel):
    """FLOPs of a convolution: each output value sums over the kernel's height, width and input channels."""
    kind = "1×1 convolution" if kernel[:2] == [1, 1] else "3×3 convolution"
    return kind, 2 * math.prod(output) * math.prod(kernel[:-1])


def _forward(operation):
    return _convolution(_shape(operation.outputs[0]), _shape(operation.inputs[1]))


def _depthwise(operation):
    kernel = _shape(operation.inputs[1])
    return _convolution(_shape(operation.outputs[0]), [*kernel[:2], 1, 1])


def _input_gradient(operation):
    """Also the transposed convolution: the same products as forward, the other way round."""
    return _convolution(_shape(operation.inputs[2]), _shape(operation.inputs[1]))


def _kernel_gradient(operation):
    return _convolution(_shape(operation.inputs[2]), _shape(operation.outputs[0]))


def _product(operation):
    name = "transpose_a" if operation.type == "MatMul" else "adj_x"
    summed = _shape(operation.inputs[0])[-2 if operation.get_attr(name) else -1]
    return "matrix product", 2 * math.prod(_shape(operation.outputs[0])) * summed


COUNTERS = {
    "Conv2D": _forward,
    "_FusedConv2D": _forward,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _input_gradient,
    "Conv2DBackpropFilter": _kernel_gradient,
    "MatMul": _product,
    "BatchMatMulV2": _product,
    "BatchMatMulV3": _product,
}


def _shape(tensor):
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.op.name} ({tensor.op.type}) has no static shape: {tensor.shape}")
    return tensor.shape.as_list()


def prediction_flops(model, inputs):
    """FLOPs of a prediction with all slots filled, traced with static shapes."""
    import tensorflow as tf

    from keras_maskrcnn import backend

    with backend.static_shapes_scope(True):
        traced = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(inputs)
    return count_flops(traced.graph)


# Timing -----------------------------------------------------------------------------------------------------------


def seconds(call, rounds):
    """Seconds of a call after two that warm up: list of `rounds`."""
    call(), call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def measure_rate(kind, shapes, dtype, rounds):
    """FLOPs a second of one kind of operation in graph mode, the best of some rounds.

    Args:
        kind: of `RATES`.
        shapes: shapes of the input and the kernel.
        dtype: what is computed in.
        rounds: int.
    """
    import tensorflow as tf

    fan_in = math.prod(shapes[1][:-1])
    inputs, kernel = tf.random.normal(shapes[0]), tf.random.normal(shapes[1]) / fan_in**0.5
    inputs, kernel = tf.cast(inputs, dtype), tf.cast(kernel, dtype)

    @tf.function
    def run(x, kernel):
        if kind == "matrix product":
            return x @ kernel
        for _ in range(CHAIN):
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return x

    output = run(inputs, kernel)
    once = 2 * math.prod(output.shape) * fan_in
    flops = once if kind == "matrix product" else once * CHAIN
    return flops / min(seconds(lambda: _ready(run(inputs, kernel)), max(rounds, 5)))


def _ready(outputs):
    """Waits for tensors, without copying them."""
    import tensorflow as tf

    for tensor in tf.nest.flatten(outputs):
        tf.reshape(tensor, (-1,))[:1].numpy()


def parts(model, inputs):
    """Ever longer beginnings of a prediction: dict from what the last step of each is to a compiled function."""
    import tensorflow as tf

    anchors = model.rpn.anchors.boxes(inputs["images"].shape[1:3], model.strides)

    def pyramid(batch):
        return model.features(batch["images"], batch["sizes"])

    def proposals(batch):
        features = pyramid(batch)
        logits, deltas = model.rpn(list(features.values()))
        return features, model.rpn.propose(logits, deltas, anchors, batch["sizes"])

    def box_head(batch):
        features, (boxes, _) = proposals(batch)
        return model.box_head.classify([features[level] for level in model.region_levels], boxes)

    steps = {
        "backbone and pyramid": pyramid,
        "RPN and proposals": proposals,
        "RoIAlign and box head": box_head,
        "detections and mask head": lambda batch: model(batch, training=False),
    }
    return {name: tf.function(step) for name, step in steps.items()}


def split(model, inputs, rounds):
    """Seconds of each part of a prediction: the median of the differences, in order of the flow.

    The beginnings are run in turn in every round, so that a machine that slows down does so for all of them.
    """
    compiled = parts(model, inputs)
    for function in compiled.values():
        seconds(lambda function=function: _ready(function(inputs)), 1)
    rows = [
        [seconds_of(lambda function=function: _ready(function(inputs))) for function in compiled.values()]
        for _ in range(rounds)
    ]
    steps = [[end - start for start, end in zip([0, *row], row, strict=False)] for row in rows]
    return {name: statistics.median(column) for name, column in zip(compiled, zip(*steps, strict=True), strict=True)}


def seconds_of(call):
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def trace(call, folder):
    """Three calls under TensorFlow's profiler, written for TensorBoard."""
    import tensorflow as tf

    call()
    tf.profiler.experimental.start(str(folder))
    for step in range(3):
        with tf.profiler.experimental.Trace("predict", step_num=step):
            call()
    tf.profiler.experimental.stop()


# Program ----------------------------------------------------------------------------------------------------------


def profile(options):
    """All measurements: the dict that is written as JSON."""
    import tensorflow as tf

    from keras_maskrcnn.backend import precision

    policy = precision.fastest_policy() if options.dtype == "auto" else options.dtype
    canvas = tuple(-(-side // 32) * 32 for side in options.size)
    model = scenes.network(options.tiny, image_size=canvas, dtype=policy, **_filled(options.tiny))
    picture, _ = scenes.scene(*options.size, 30)
    batch = {"images": np.zeros((1, *canvas, 3), "float32"), "sizes": np.array([options.size], "float32")}
    batch["images"][0, : options.size[0], : options.size[1]] = picture
    inputs = {name: tf.constant(value) for name, value in batch.items()}
    report = {
        **reports.header("profiling.py"),
        "versions": machine.versions(["tensorflow", "keras"]),
        "dtype": policy,
        "canvas": canvas,
        "detections": int(model.predict_on_batch(batch)["valid"].sum()),
        "flops": prediction_flops(model, inputs),
        "rate": _rates(policy, options),
    }
    detect = lambda: model.detect(picture, score_threshold=0.0)  # noqa: E731
    report["predict_s"] = reports.spread(seconds(lambda: model.predict_on_batch(batch), options.rounds))
    report["detect_s"] = reports.spread(seconds(detect, options.rounds))
    report["parts_s"] = split(model, inputs, options.rounds)
    report["floor_s"] = floor(report)
    report["fraction"] = report["floor_s"] / report["predict_s"]["median"]
    if options.logdir:
        trace(lambda: model.predict_on_batch(batch), options.logdir)
    return report


def _filled(tiny):
    """Options with which every detection slot is filled."""
    if tiny:
        return {"detection": {"score_threshold": 0.0, "max_detections": 10}, "proposals": {"post_nms": 20}}
    return {"detection": {"score_threshold": 0.0}}


def _rates(policy, options):
    import keras

    dtype = keras.dtype_policies.get(policy).compute_dtype
    return {
        kind: measure_rate(kind, shapes, dtype, options.rounds)
        for kind, shapes in (TINY_RATES if options.tiny else RATES).items()
    }


def floor(report):
    """Seconds that the FLOPs of each kind take at the rate of their kind."""
    return sum(report["flops"][kind] / report["rate"][kind] for kind in RATES)


def lines(report):
    """Markdown: what is computed and the floor, then the parts."""
    text = [
        f"{report['machine']}, {report['date']}, {reports.versions(report['versions'])}, "
        f"{report['dtype']}, {report['canvas'][0]}×{report['canvas'][1]}, {report['detections']} detections.",
        "",
        "| what is computed | GFLOP | rate, TFLOP/s | floor, ms |",
        "|---|---|---|---|",
    ]
    for kind in RATES:
        flops, rate = report["flops"][kind], report["rate"][kind]
        text.append(f"| {kind} | {flops / 1e9:.1f} | {rate / 1e12:.3f} | {flops / rate * 1e3:.0f} |")
    text.append(f"| all | {sum(report['flops'].values()) / 1e9:.1f} | | {report['floor_s'] * 1e3:.0f} |")
    predict, detect = (report[name]["median"] * 1e3 for name in ("predict_s", "detect_s"))
    text += ["", "| part | ms | share |", "|---|---|---|"]
    whole = sum(report["parts_s"].values())
    for name, cost in report["parts_s"].items():
        text.append(f"| {name} | {cost * 1e3:.0f} | {cost / whole:.0%} |")
    text += [
        f"| **predict** | {predict:.0f} | the floor is {report['fraction']:.0%} of it |",
        f"| detect (resize, predict, paste) | {detect:.0f} | |",
    ]
    return text


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="of the picture (default: 800 1066)")
    add("--dtype", choices=("auto", "float32", "mixed_bfloat16"), default="auto", help="auto: the machine's fastest")
    add("--rounds", type=pairs.positive, default=7, help="calls that are timed (default: %(default)s)")
    add("--logdir", type=pathlib.Path, metavar="FOLDER", help="write a trace of TensorFlow's profiler for TensorBoard")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the tables into this folder's speed.md")
    add("--tiny", action="store_true", help="a tiny network and picture, to try the script out")
    options = parser.parse_args()
    options.size = tuple(options.size or ((64, 90) if options.tiny else (800, 1066)))
    if min(options.size) < 64:
        parser.error(f"--size {options.size[0]} {options.size[1]}: sides must be 64 pixels or more")
    return options


def main():
    """Measure, print, write."""
    options = parse()
    report = profile(options)
    print("\n".join(lines(report)))
    reports.write(options.output, report)
    if options.docs:
        reports.fill(options.docs / "speed.md", "profiling", "\n".join(lines(report)))


if __name__ == "__main__":
    main()
