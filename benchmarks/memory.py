r"""What fills the memory of a training step where it takes most: parts of the network, and the largest tensors.

    python benchmarks/memory.py --docs docs --output benchmarks/results/memory.json
    python benchmarks/memory.py --size 800 --batch 1 --top 40

The step is that of `training.py`. TensorFlow's profiler notes every tensor that is made and let go, with the operation
that made it; on a CPU it does so for the pool that `TF_CPU_ALLOCATOR_USE_BFC` turns on, which is like the one that
oneDNN's operations use anyway. A pool hands out pieces that are larger than what was asked for; that is the column of
what is lost.

The process takes more than the tensors: its imports, and the graph with all that Python and TensorFlow keep about it.
"""

import argparse
import math
import operator
import os
import pathlib
import re
import tempfile
from typing import NamedTuple

import machine
import numpy as np
import pairs
import peers
import reports
import scenes
import training

# Beginnings of operations' names below the model's, and the part of the network that they belong to. The gradient of
# the sparse product names its operations after nothing else.
PARTS = (
    ("backbone", r"(resnet|simple_cnn|mobilenet)"),
    ("pyramid", r"fpn"),
    ("RPN", r"rpn"),
    ("RoIAlign", r"(align|SparseMatrix)"),
    ("box head", r"box_head"),
    ("mask head", r"mask_head"),
)
REST = "targets, losses, update"


class Event(NamedTuple):
    """A tensor that is made or let go.

    Attributes:
        time: picoseconds.
        made: whether it is made.
        address: where it lies.
        requested: bytes that were asked for.
        allocated: bytes that the pool gave.
        total: bytes that the pool has given away after this event.
        operation: name of what made it, "" where the profiler does not know.
        shape: as text, such as "[2,64,64,256]".
    """

    time: int
    made: bool
    address: int
    requested: int
    allocated: int
    total: int
    operation: str = ""
    shape: str = ""


def recorded(call):
    """Events of a call, in the order of time: list of `Event`."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            call()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    return sorted((event for plane in space.planes for event in _events(plane)), key=operator.attrgetter("time"))


def _events(plane):
    kinds = {"MemoryAllocation": True, "MemoryDeallocation": False}
    for line in plane.lines:
        for event in line.events:
            made = kinds.get(plane.event_metadata[event.metadata_id].name)
            if made is None:
                continue
            facts = {plane.stat_metadata[stat.metadata_id].name: _value(stat, plane) for stat in event.stats}
            yield Event(
                time=line.timestamp_ns * 1000 + event.offset_ps,
                made=made,
                address=facts["addr"],
                requested=facts["requested_bytes"],
                allocated=facts["allocation_bytes"],
                total=facts["bytes_allocated"],
                operation=facts.get("tf_op") or "",
                shape=facts.get("tensor_shape") or facts.get("shape") or "",
            )


def _value(stat, plane):
    """A statistic's value; texts that occur often are stored once and referred to."""
    kind = stat.WhichOneof("value")
    value = getattr(stat, kind)
    return plane.stat_metadata[value].name if kind == "ref_value" else value


def at_peak(events):
    """What lies in the pool when it has given away most.

    Args:
        events: list of `Event`, in the order of time.

    Returns:
        (before, live): bytes that were given away before the first event, and the list of events whose tensors were
        made since and not let go.

    Raises:
        ValueError: if there is no event: the pool is not the one that tells the profiler.
    """
    if not events:
        raise ValueError(
            "the profiler saw no tensor: TF_CPU_ALLOCATOR_USE_BFC must be set before TensorFlow is imported"
        )
    first = events[0]
    before = first.total - first.allocated if first.made else first.total + first.allocated
    last = max(range(len(events)), key=lambda place: events[place].total)
    live = {}
    for event in events[: last + 1]:
        if event.made:
            live[event.address] = event
        elif event.address in live:
            del live[event.address]
        else:
            before -= event.allocated  # it was there before the first event
    return before, list(live.values())


def part(operation):
    """(part of the network, whether it is of the backward pass) by an operation's name."""
    backward = operation.startswith(("gradient_tape/", "SparseMatrix"))
    name = re.sub(r"^(gradient_tape/)?(mask_rcnn(_\d+)?/)?", "", operation)
    return next((label for label, pattern in PARTS if re.match(pattern, name)), REST), backward


def by_part(live):
    """Bytes asked for by each part, [forward, backward], and those that the pool gave on top: (dict, int)."""
    found = {label: [0, 0] for label in (*(label for label, _ in PARTS), REST)}
    for event in live:
        label, backward = part(event.operation)
        found[label][backward] += event.requested
    return found, sum(event.allocated - event.requested for event in live)


def measure(options):
    """All figures: the dict that is written as JSON."""
    from keras_maskrcnn.backend import precision

    policy = precision.fastest_policy() if options.dtype == "auto" else options.dtype
    imports = machine.peak_memory()
    size = (options.size, options.size)
    x, y = scenes.training_batch(options.batch, size, size, peers.TRAINING_OBJECTS, 90)
    model = training.network(policy, x, options.tiny)
    call = lambda: model.train_on_batch(x, y)  # noqa: E731
    call(), call()
    before, live = at_peak(recorded(call))
    parts, slack = by_part(live)
    variables = [*model.variables, *model.optimizer.variables]
    return {
        **reports.header("memory.py"),
        "versions": machine.versions(["tensorflow", "keras"]),
        "dtype": policy,
        "size": options.size,
        "batch": options.batch,
        "variables": sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables),
        "before": before,
        "parts": parts,
        "slack": slack,
        "peak": before + sum(event.allocated for event in live),
        "imports_mb": imports,
        "process_mb": machine.peak_memory(),
        "largest": [
            {"bytes": event.requested, "shape": event.shape, "operation": event.operation}
            for event in sorted(live, key=lambda event: -event.requested)[: options.top]
        ],
    }


def lines(report):
    """Markdown: what fills the peak, from the process down to the largest tensors."""
    mega = lambda size: f"{size / 1e6:.0f}"  # noqa: E731
    outside = report["process_mb"] * 1e6 - report["imports_mb"] * 1e6 - report["peak"]
    text = [
        f"{report['machine']}, {report['date']}, {reports.versions(report['versions'])}, {report['dtype']}, "
        f"{report['batch']} × {report['size']}×{report['size']}.",
        "",
        "| of the process | MB |",
        "|---|---|",
        f"| imports | {report['imports_mb']} |",
        f"| weights and the optimizer's variables | {mega(report['variables'])} |",
        f"| other tensors between steps, and what the pool loses on all of them | "
        f"{mega(report['before'] - report['variables'])} |",
        f"| tensors of the step at its peak | {mega(sum(map(sum, report['parts'].values())))} |",
        f"| what the pool loses on those | {mega(report['slack'])} |",
        f"| everything else: the graph, scratch space, what the allocators hold back | {mega(outside)} |",
        f"| **all** | {report['process_mb']} |",
        "",
        "| tensors of the step, MB | from the forward pass | of the backward pass |",
        "|---|---|---|",
    ]
    text += [f"| {name} | {mega(ahead)} | {mega(back)} |" for name, (ahead, back) in report["parts"].items()]
    text += ["", "| largest tensors, MB | shape | made by |", "|---|---|---|"]
    for row in report["largest"]:
        text.append(f"| {row['bytes'] / 1e6:.1f} | {row['shape']} | `{row['operation']}` |")
    return text


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dtype", choices=("auto", "float32", "mixed_bfloat16"), default="auto", help="auto: the machine's fastest")
    add("--top", type=pairs.positive, default=12, help="largest tensors to name (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the tables into this folder's speed.md")
    return training.with_batch(parser)


def main():
    """Measure, print, write."""
    options = parse()
    os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "true"
    report = measure(options)
    print("\n".join(lines(report)))
    reports.write(options.output, report)
    if options.docs:
        reports.fill(options.docs / "speed.md", "memory", "\n".join(lines(report)))


if __name__ == "__main__":
    main()
