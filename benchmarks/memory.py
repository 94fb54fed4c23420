r"""Memory of a training step at its peak: by part of the network, and the largest tensors.

    python benchmarks/memory.py --docs docs --output benchmarks/results/memory.json
    python benchmarks/memory.py --size 800 --batch 1 --top 40

The step is that of `training.py`. TensorFlow's profiler records every allocation and deallocation of a tensor, and the
operation that allocates it; on a CPU it does so for the pool that `TF_CPU_ALLOCATOR_USE_BFC` enables, which is similar
to that of oneDNN's operations. A pool returns blocks that are larger than requested; the difference is reported as
lost.

The process needs more memory than the tensors: for its imports and for the graph.
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

# Parts of the network, and the first words of the names of their operations below the model's. Operations of the sparse
# product's gradient have no such prefix.
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
    """An allocation or deallocation of a tensor.

    Attributes:
        time: picoseconds.
        made: whether it is an allocation.
        address: address in memory.
        requested: requested bytes.
        allocated: bytes of the pool's block.
        total: allocated bytes of the pool after this event.
        operation: name of the operation that allocates it, "" if unknown.
        shape: text such as "[2,64,64,256]".
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
    """The events of a call in order of time: list of `Event`."""
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
    """The value of a statistic; repeated texts are stored once, as references."""
    kind = stat.WhichOneof("value")
    value = getattr(stat, kind)
    return plane.stat_metadata[value].name if kind == "ref_value" else value


def at_peak(events):
    """The content of the pool at its peak.

    Args:
        events: list of `Event` in order of time.

    Returns:
        (before, live): bytes that were allocated before the first event, and the list of events of the tensors that
        were allocated since and not deallocated.

    Raises:
        ValueError: if there is no event, because another pool is in use, which the profiler does not record.
    """
    if not events:
        raise ValueError(
            "the profiler recorded no tensor: TF_CPU_ALLOCATOR_USE_BFC must be set before TensorFlow is imported"
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
            before -= event.allocated  # allocated before the first event
    return before, list(live.values())


def part(operation):
    """(part of the network, whether it is in the backward pass) of an operation's name."""
    backward = operation.startswith(("gradient_tape/", "SparseMatrix"))
    name = re.sub(r"^(gradient_tape/)?(mask_rcnn(_\d+)?/)?", "", operation)
    return next((label for label, pattern in PARTS if re.match(pattern, name)), REST), backward


def by_part(live):
    """Requested bytes of each part, [forward, backward], and the bytes allocated in addition: (dict, int)."""
    found = {label: [0, 0] for label in (*(label for label, _ in PARTS), REST)}
    for event in live:
        label, backward = part(event.operation)
        found[label][backward] += event.requested
    return found, sum(event.allocated - event.requested for event in live)


def measure(options):
    """Runs all measurements; returns the dict for the JSON file."""
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
    """Markdown: memory at the peak, from the process down to the largest tensors."""
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
    add("--top", type=pairs.positive, default=12, help="number of largest tensors to list (default: %(default)s)")
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
