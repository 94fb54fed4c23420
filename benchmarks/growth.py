r"""Growth of time and memory of inference and of a training step with image area, proposals, instances, batch, classes.

    python benchmarks/growth.py --output benchmarks/results/growth.json --docs docs
    python benchmarks/growth.py --variables area,batch --works inference --size 256

ResNet-50-FPN at 512×512 pixels, one variable changed at a time: the area of the image, proposals, instances
(detections in inference, objects in training), images per batch, classes. Inference is `detect`, from images to
pasted masks, with every detection slot filled; training is `train_on_batch`. Each point is measured in a new process.
Its memory is the peak while it runs, including two calls that warm up, minus the memory of the process after its
imports.

The exponent of growth is the slope of log cost over log value: 1 is linear, and fixed costs bring it below 1. "Knee" is
the value after which the slope first exceeds 1.15, where cost starts to grow faster than the variable.

Points of an earlier run on the same machine with the same versions are kept in `--output`; those of the given variables
are measured again. `--docs` writes the tables between the marks in speed.md, and growth.svg next to it. `--redraw`
writes both from a file of results, without measuring.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import sys

import machine
import numpy as np
import pairs
import reports
import scenes

WORKS = ("inference", "training")
KNEE = 1.15
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Point:
    """The setting of one measurement.

    Attributes:
        size: (height, width) of the images and the canvas.
        proposals: proposals of the first stage, and candidates of each level before NMS.
        instances: detections in inference, objects per image in training.
        batch: images per batch.
        classes: without background.
    """

    size: tuple = (512, 512)
    proposals: int = 1000
    instances: int = 100
    batch: int = 1
    classes: int = 80

    def value(self, variable):
        """The value of a variable."""
        return math.prod(self.size) if variable == "area" else getattr(self, variable)


# Values of each variable; those of `instances` depend on the work.
VALUES = {
    "area": ((256, 256), (512, 512), (800, 1088), (1024, 1024), (1536, 1536)),
    "proposals": (100, 300, 1000, 2000, 4000),
    "instances": {"inference": (1, 10, 30, 100, 300), "training": (1, 10, 30, 100)},
    "batch": (1, 2, 4, 8),
    "classes": (1, 80, 1203),
}
TINY_VALUES = {
    "area": ((64, 64), (96, 128)),
    "proposals": (10, 40),
    "instances": {"inference": (1, 10), "training": (1, 4)},
    "batch": (1, 2),
    "classes": (1, 20),
}


def points(work, variable, base, values):
    """The points of one line of the plot: list of `Point`."""
    given = values[variable][work] if variable == "instances" else values[variable]
    return [dataclasses.replace(base, **{"size" if variable == "area" else variable: value}) for value in given]


def base_point(work, size, tiny):
    """The point around which variables are changed: training has fewer objects than inference has detections."""
    if tiny:
        return Point((size, size), proposals=20, instances=4, classes=3)
    return Point((size, size), instances=100 if work == "inference" else 20)


# Worker -----------------------------------------------------------------------------------------------------------


def case(name):
    """The call of a point and its number of repeats; the name is the text from `describe`."""
    wanted = json.loads(name)
    point = Point(**{**wanted["point"], "size": tuple(wanted["point"]["size"])})
    import keras
    import tensorflow  # noqa: F401

    import keras_maskrcnn  # noqa: F401
    from keras_maskrcnn.backend import precision

    imports = machine.peak_memory()
    keras.utils.set_random_seed(0)
    make = inference if wanted["work"] == "inference" else training
    dtype = precision.fastest_policy() if wanted["dtype"] == "auto" else wanted["dtype"]
    call = make(point, wanted["tiny"], dtype)
    forget_peak()

    def measured():
        facts = call()
        return {**facts, "dtype": dtype, "import_mb": imports, "memory_mb": machine.peak_memory() - imports}

    return measured, 1


def forget_peak():
    """Resets the peak memory of the process to its current memory, where Linux permits it."""
    with contextlib.suppress(OSError):  # the peak then includes building the model
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def inference(point, tiny, dtype):
    """The call of `detect` with all detection slots filled."""
    model = scenes.network(
        tiny,
        point.classes,
        image_size=point.size,
        proposals={"pre_nms": point.proposals, "post_nms": point.proposals},
        detection={"max_detections": point.instances, "score_threshold": 0.0},
        dtype=dtype,
    )
    images = [scenes.scene(*point.size, 30, seed)[0] for seed in range(point.batch)]

    def call():
        found = model.detect(images, score_threshold=0.0, batch_size=point.batch)
        return {"instances": len(found[0]["scores"])}

    return call


def training(point, tiny, dtype):
    """The call of one training step; its learning rate is 0, so that no step depends on earlier ones."""
    import keras

    limits = {"training_pre_nms": point.proposals, "training_post_nms": point.proposals}
    model = scenes.network(tiny, point.classes, image_size=point.size, proposals=limits, dtype=dtype)
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
    batch = scenes.training_batch(point.batch, point.size, point.size, point.instances, point.classes)

    def call():
        model.reset_metrics()
        logs = model.train_on_batch(*batch, return_dict=True)
        if logs["skipped_steps"]:
            raise SystemExit("the step was skipped: its loss or gradient is not finite")
        return {"instances": point.instances, "mask_rois": float(logs["foreground"]) * point.batch}

    return call


# Parent -----------------------------------------------------------------------------------------------------------


def describe(work, point, tiny, dtype):
    """The name of a case for the worker, one line of JSON."""
    return json.dumps({"work": work, "point": dataclasses.asdict(point), "tiny": tiny, "dtype": dtype})


def measure(work, variable, point, options):
    """One row of the results, and the versions of the libraries."""
    name = describe(work, point, options.tiny, options.dtype)
    with pairs.Worker("ours", [sys.executable, __file__, "--worker", "ours"]) as worker:
        worker.ask(name)  # builds the case and warms up
        answers = [worker.ask(name) for _ in range(options.rounds)]
    seconds = [answer["seconds"] for answer in answers]
    facts = answers[-1]["facts"]
    row = {
        "work": work,
        "variable": variable,
        "value": point.value(variable),
        "point": dataclasses.asdict(point),
        "seconds": reports.spread(seconds),
        "first_call_s": answers[-1]["first_call_s"],
        "memory_mb": facts.pop("memory_mb"),
        "import_mb": facts.pop("import_mb"),
        "facts": facts,
    }
    return row, answers[-1]["versions"]


def label(variable, row):
    """The value of a row as text."""
    return "×".join(map(str, row["point"]["size"])) if variable == "area" else f"{row['value']}"


def slopes(values, costs):
    """Slope of log cost over log value in each interval."""
    steps = zip(values, values[1:], costs, costs[1:], strict=False)
    return [math.log(d / c) / math.log(b / a) for a, b, c, d in steps]


def growth(rows, variable, quantity):
    """The growth of a quantity along a line of rows.

    Args:
        rows: two or more rows of one work and one variable, in ascending order of value.
        variable: its name.
        quantity: "seconds" or "memory_mb".

    Returns:
        dict of `last`, the exponent between the last two points; `all`, the slope of the least-squares line through all
        points; `knee`, the label of the value where the first interval with a slope above `KNEE` begins, or None.
    """
    values, costs = [row["value"] for row in rows], [_cost(row, quantity) for row in rows]
    steep = slopes(values, costs)
    first = next((i for i, slope in enumerate(steep) if slope > KNEE), None)
    fit = np.polyfit(np.log(values), np.log(costs), 1)[0]
    knee = None if first is None else label(variable, rows[first])
    return {"last": round(steep[-1], 3), "all": round(float(fit), 3), "knee": knee}


def _cost(row, quantity):
    """A positive number, because its logarithm is taken: a process may need less than 1 MB more than its imports."""
    return row["seconds"]["median"] if quantity == "seconds" else max(row["memory_mb"], 1)


def lines(rows):
    """The rows by (variable, work), in order of value."""
    found = {}
    for row in rows:
        found.setdefault((row["variable"], row["work"]), []).append(row)
    order = lambda item: (list(VALUES).index(item[0][0]), WORKS.index(item[0][1]))  # noqa: E731
    return {key: sorted(line, key=lambda row: row["value"]) for key, line in sorted(found.items(), key=order)}


def tables(report):
    """Markdown: one table of all points, one of the exponents."""
    base = report["base"]
    text = [
        f"{report['machine']}, {report['date']}, {reports.versions(report['versions'])}, {base['dtype']}.",
        f"{base['network']} at {base['size']}×{base['size']}, one variable changed at a time. Seconds are medians;",
        "MB are the peak above what the imports take.",
        "",
        "| work | variable | value: seconds, MB |",
        "|---|---|---|",
    ]
    for (variable, work), line in lines(report["rows"]).items():
        cells = "; ".join(
            f"**{label(variable, row)}** {row['seconds']['median']:.3g} s, {row['memory_mb']:.0f}" for row in line
        )
        text.append(f"| {work} | {variable} | {cells} |")
    text += ["", "| work | variable | time: last, all | knee | memory: last, all | knee |", "|---|---|---|---|---|---|"]
    for row in report["growth"]:
        time, memory = row["seconds"], row["memory_mb"]
        cells = [f"{q['last']:.2f}, {q['all']:.2f} | {q['knee'] or 'none'}" for q in (time, memory)]
        text.append(f"| {row['work']} | {row['variable']} | {' | '.join(cells)} |")
    return "\n".join(text)


def plot(report, path):
    """Writes the plot: one column per variable, time above memory, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "growth", "font.size": 8})
    found = lines(report["rows"])
    variables = list(dict.fromkeys(variable for variable, _ in found))
    figure, axes = pyplot.subplots(2, len(variables), figsize=(2.6 * len(variables) + 0.6, 4.6), squeeze=False)
    for column, variable in enumerate(variables):
        for row, (quantity, unit) in enumerate((("seconds", "seconds"), ("memory_mb", "MB"))):
            _panel(axes[row, column], found, variable, quantity)
            axes[row, column].set_xlabel("pixels" if variable == "area" else variable)
            if column == 0:
                axes[row, column].set_ylabel(unit)
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(axis, found, variable, quantity):
    """Draws both works over one variable; the dotted line through the last point is linear growth."""
    for work, colour in zip(WORKS, ("C0", "C1"), strict=True):
        rows = found.get((variable, work), [])
        if not rows:
            continue
        values, costs = [row["value"] for row in rows], [_cost(row, quantity) for row in rows]
        axis.loglog(values, costs, "o-", color=colour, markersize=3, label=work)
        axis.loglog(values, [costs[-1] * value / values[-1] for value in values], ":", color=colour, linewidth=0.8)
    costs = [_cost(row, quantity) for work in WORKS for row in found.get((variable, work), [])]
    axis.set_ylim(min(costs) / 2, max(costs) * 2)


def kept(options, report):
    """Rows of the file at `--output` that this run does not measure, if machine, versions and base are the same."""
    if not options.output or not options.output.is_file():
        return []
    former = json.loads(options.output.read_text())
    same = all(former.get(key) == report[key] for key in ("machine", "base", "versions"))
    mine = {(variable, work) for variable in options.variables for work in options.works}
    return [row for row in former["rows"] if same and (row["variable"], row["work"]) not in mine]


def summarise(report):
    """Adds the exponents of growth to the report."""
    report["growth"] = [
        {"work": work, "variable": variable, **{q: growth(line, variable, q) for q in ("seconds", "memory_mb")}}
        for (variable, work), line in lines(report["rows"]).items()
        if len(line) > 1
    ]


def document(report, folder):
    """Writes growth.svg, and the tables between the marks of speed.md."""
    plot(report, folder / "growth.svg")
    plot_link = "![Time and memory against area, proposals, instances, batch and classes](growth.svg)"
    reports.fill(folder / "speed.md", "growth", f"{plot_link}\n\n{tables(report)}")
    print(f"written: {folder / 'speed.md'}, {folder / 'growth.svg'}")


def run(options):
    """Measures all points; the file is written after each, so that an interrupted run keeps its results."""
    base = {
        "network": "a tiny network" if options.tiny else "ResNet-50-FPN",
        "size": options.size,
    }
    report = {**reports.header("growth.py"), "base": base, "versions": {}, "rows": []}
    values = TINY_VALUES if options.tiny else VALUES
    todo = [
        (work, variable, point)
        for variable in options.variables
        for work in options.works
        for point in points(work, variable, base_point(work, options.size, options.tiny), values)
    ]
    measured = {}
    for number, (work, variable, point) in enumerate(todo, start=1):
        if (work, point) not in measured:  # the base point lies on every line
            measured[work, point] = measure(work, variable, point, options)
        row, report["versions"] = measured[work, point]
        row = {**row, "variable": variable, "value": point.value(variable)}
        if number == 1:
            base["dtype"] = row["facts"]["dtype"]
            report["rows"] = kept(options, report)
        report["rows"].append(row)
        cost = f"{row['seconds']['median']:8.3f} s {row['memory_mb']:7.0f} MB (imports {row['import_mb']} MB)"
        print(f"{number:3d}/{len(todo)} {work:10s}{variable:10s}{label(variable, row):>10s}{cost}", flush=True)
        summarise(report)
        reports.write(options.output, report)
    return report


def names(known):
    """The type of an argument that is a comma-separated list of names."""

    def parse(text):
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is not one of {', '.join(known)}")
        return chosen

    return parse


def parse():
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--variables", type=names(VALUES), default=list(VALUES), help=f"of {', '.join(VALUES)} (default: all)")
    add("--works", type=names(WORKS), default=list(WORKS), help="of inference, training (default: both)")
    add("--size", type=int, help="side of the image where the area is not the variable (default: 512)")
    add("--dtype", choices=("auto", "float32", "mixed_bfloat16"), default="auto", help="auto: the machine's fastest")
    add("--rounds", type=pairs.positive, default=ROUNDS, help="calls that are timed (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the results as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write tables and plot into this folder")
    add(
        "--redraw", type=pathlib.Path, metavar="FILE", help="write the tables of this file of results without measuring"
    )
    add("--tiny", action="store_true", help="a tiny network and two points per line, to test the script")
    add("--worker", choices=("ours",), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.size = options.size or (64 if options.tiny else 512)
    if options.size < 64 or options.size % 32:
        parser.error(f"--size {options.size} must be a multiple of 32, and 64 or more")
    if options.redraw and not options.redraw.is_file():
        parser.error(f"--redraw {options.redraw}: no such file")
    return options


def main():
    """Parent: starts one worker per point, prints and writes the tables. Worker: measures its point."""
    options = parse()
    if options.worker:
        pairs.serve(case)
        return
    report = json.loads(options.redraw.read_text()) if options.redraw else run(options)
    summarise(report)
    print(f"\n{tables(report)}")
    if options.docs:
        document(report, options.docs)


if __name__ == "__main__":
    main()
