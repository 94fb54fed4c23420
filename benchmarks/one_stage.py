r"""One stage against two: YOLACT and Mask R-CNN, trained for the same time on shapes, Penn-Fudan and nuclei.

    python benchmarks/one_stage.py --data DATA --runs runs/one_stage --minutes 20 \
        --output benchmarks/results/one_stage.json --docs docs
    python benchmarks/one_stage.py --redraw benchmarks/results/one_stage.json --docs docs

DATA holds the folders PennFudanPed and nuclei. The recipes in `train/` train both models with the same backbone,
pyramid width, canvas, crops, optimizer and minutes; on Penn-Fudan Mask R-CNN has one box stage, as YOLACT. What differs
is what the papers differ in, and so is the number of images that a model sees in the time. Scores are those of the
validation set after the last step.

Then `detect` is timed on the validation images, one at a time, both models alternately in processes of their own. It
starts with the uint8 image and ends with masks at its size, at the default score threshold.

A training that is finished is not repeated, one that was stopped continues: the same command goes on. With `--only` the
results of the other data sets in `--output` are kept if machine and minutes are the same.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import pairs
import reports

MODELS = {"mask_rcnn": "Mask R-CNN", "yolact": "YOLACT"}
SIDES = dict(zip(pairs.SIDES, MODELS, strict=True))
# Name of a data set: its recipe, its folder in DATA, further options.
SETS = {
    "shapes": ("shapes.py", None, ()),
    "penn_fudan": ("penn_fudan.py", "PennFudanPed", ("--weights", "imagenet", "--no-cascade", "--mask-weight", "1")),
    "nuclei": ("nuclei.py", "nuclei", ()),
}
TINY = ("--backbone", "resnet10", "--width", "8", "--steps", "2", "--epochs", "1", "--batch-size", "2")
FIGURES = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")
IMAGES = 20  # validation images that are timed


# Training ---------------------------------------------------------------------------------------------------------


def run_folder(runs, name, model, seed):
    """The output folder of a training."""
    return runs / f"{name}_{model}_{seed}"


def command(options, name, model, seed):
    """The command of a training."""
    recipe, folder, further = SETS[name]
    words = [sys.executable, pairs.ROOT / "train" / recipe, "--output", run_folder(options.runs, name, model, seed)]
    words += ["--model", model, "--seed", seed, *further, *(["--data", options.data / folder] if folder else [])]
    words += TINY if options.tiny else ["--minutes", options.minutes]
    return [str(word) for word in words]


def train(options, name, model, seed):
    """Trains, unless the run is finished; returns its row.

    Raises:
        SystemExit: with one line, if the recipe fails.
    """
    done = subprocess.run(command(options, name, model, seed), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise SystemExit(f"{name}, {model}, seed {seed}: {lines[-1] if lines else 'no message'}")
    summary = json.loads((run_folder(options.runs, name, model, seed) / "summary.json").read_text(encoding="utf-8"))
    found = ("backbone", "parameters", "precision", "images_per_second", *FIGURES)
    return {
        "data": name,
        "model": model,
        "seed": seed,
        "canvas": summary["arguments"]["image_size"],
        "images_seen": summary["steps"] * summary["batch_size"],
        **{figure: summary[figure] for figure in found},
    }


# Timing -----------------------------------------------------------------------------------------------------------


def case(name, model, options):
    """The timed call of a trained model, for a worker."""
    import keras

    import keras_maskrcnn.models  # noqa: F401  registers the classes

    folder = run_folder(options.runs, name, model, options.seeds[0])
    loaded = keras.saving.load_model(folder / "model.keras", compile=False)
    images = validation_images(name, options, json.loads((folder / "summary.json").read_text(encoding="utf-8")))

    def call():
        found = loaded.detect(images, batch_size=1)
        return {"images": len(images), "detections": sum(len(one["scores"]) for one in found)}

    return call, 1


def validation_images(name, options, summary):
    """Images of the validation set of a run, spread over it."""
    import numpy as np

    from keras_maskrcnn import data

    settings, folder = summary["arguments"], SETS[name][1]
    if name == "shapes":
        val = data.Shapes(summary["val_images"], image_size=settings["image_size"], seed=settings["seed"] + 2)
    else:
        reader = data.PennFudan if name == "penn_fudan" else data.Nuclei
        val = reader(options.data / folder, split="val")
    places = np.unique(np.linspace(0, len(val) - 1, min(IMAGES, len(val))).astype(int))
    return [val[int(place)]["image"] for place in places]


def timed(options, name):
    """The times of both models on a data set: dict from models to ms an image, and the ratio of the two."""
    words = ["--runs", options.runs, "--seeds", options.seeds[0], *(["--data", options.data] if options.data else [])]
    # The report of this script is another file than that of the comparison.
    common = argparse.Namespace(rounds=options.rounds, peer_python=sys.executable, output=None)
    (row,) = pairs.compare(__file__, common, [name], words=words, peer_name=MODELS["yolact"], fresh=True)
    of_model = {}
    for side, model in SIDES.items():
        facts = row["facts"][side]
        spread = {key: round(value / facts["images"], 3) for key, value in row[side].items()}
        of_model[model] = {**spread, "images": facts["images"], "detections": facts["detections"]}
    return {"data": name, "ms": of_model, "yolact_over_mask_rcnn": row["ratio"]}


# Report -----------------------------------------------------------------------------------------------------------


def run(options):
    """Trains, times and writes, one data set after the other; the file is written after each."""
    report = {**reports.header("one_stage.py"), "minutes": options.minutes, "rows": [], "times": []}
    kept = former(options, report)
    for name in options.only:
        # Both models of a seed in turn, so that a run that is stopped has comparable rows.
        rows = [train(options, name, model, seed) for seed in options.seeds for model in MODELS]
        report["rows"] += rows
        report["times"].append(timed(options, name))
        reports.write(options.output, merged(report, kept))
    report = merged(report, kept)
    print("\n" + table(report))
    return report


def former(options, report):
    """The results in `--output` for data sets that this run does not measure; empty lists where there are none."""
    if not (options.output and options.output.is_file()):
        return {"rows": [], "times": []}
    before = json.loads(options.output.read_text(encoding="utf-8"))
    same = all(before.get(key) == report[key] for key in ("machine", "minutes"))
    return {
        key: [entry for entry in before[key] if same and entry["data"] not in options.only] for key in ("rows", "times")
    }


def merged(report, kept):
    """A report with the entries that are kept, in the order of `SETS`."""
    order = list(SETS)
    both = {
        key: sorted(kept[key] + report[key], key=lambda entry: order.index(entry["data"])) for key in ("rows", "times")
    }
    return {**report, **both}


def means(report):
    """Means over the seeds: dict from (data set, model) to figures, with lists of `FIGURES` by seed and ms an image."""
    found = {}
    times = {entry["data"]: entry["ms"] for entry in report["times"]}
    for row in report["rows"]:
        one = found.setdefault((row["data"], row["model"]), {**row, **{figure: [] for figure in FIGURES}})
        for figure in FIGURES:
            one[figure].append(row[figure] or 0.0)
        one["ms"] = times[row["data"]][row["model"]]["median"]
    return found


def table(report):
    """Markdown: a row for each data set and model."""
    seeds = sorted({row["seed"] for row in report["rows"]})
    origin = f"{report['machine']}, {report['date']}; {report['minutes']:g} minutes of training each"
    lines = [
        f"`benchmarks/one_stage.py`, {origin}, {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}.",
        "",
        "| data | model | backbone, canvas in training | bbox AP / AP50 | segm AP / AP50 | ms an image | images seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, model), one in means(report).items():
        boxes, masks = (f"{_mean(one[f'{kind}_AP'])} / {_mean(one[f'{kind}_AP50'])}" for kind in ("bbox", "segm"))
        network = f"{one['backbone']}, {'×'.join(map(str, one['canvas']))}"
        cells = (name, MODELS[model], network, boxes, masks, f"{one['ms']:.1f}", f"{one['images_seen']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values):
    """The mean, and half the range of several values."""
    half = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{half}"


def plot(report, path):
    """Draws mask AP over ms an image; a line joins the two models on a data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "one_stage", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    found = means(report)
    for index, name in enumerate(dict.fromkeys(name for name, _ in found)):
        points = [(found[name, model]["ms"], statistics.mean(found[name, model]["segm_AP"])) for model in MODELS]
        axes.plot(*zip(*points, strict=True), "-", color=f"C{index}", label=name)
        for (x, y), marker in zip(points, "so", strict=True):
            axes.plot(x, y, marker, color=f"C{index}")
    for label, marker in zip(MODELS.values(), "so", strict=True):
        axes.plot([], [], marker, color="grey", label=label)
    axes.set(xlabel="ms an image", ylabel="segm AP", xscale="log", ylim=(0, 1))
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def document(report, folder):
    """Writes one_stage.svg, and the table between the marks of which_model.md."""
    plot(report, folder / "one_stage.svg")
    picture = "![Mask AP over milliseconds an image of both models on each data set](one_stage.svg)"
    reports.fill(folder / "which_model.md", "one_stage", f"{table(report)}\n\n{picture}")
    print(f"written: {folder / 'which_model.md'}, {folder / 'one_stage.svg'}")


def parse(words=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=pathlib.Path, metavar="FOLDER", help="holds PennFudanPed and nuclei")
    add("--runs", type=pathlib.Path, metavar="FOLDER", help="where the trainings are kept")
    add("--minutes", type=float, default=20.0, help="of each training (default: %(default)g)")
    add("--only", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=f"some of {', '.join(SETS)}")
    add("--seeds", type=int, nargs="+", default=[0], help="trainings of each model (default: 0); the first is timed")
    add("--rounds", type=pairs.positive, default=7, help="timings of each model (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the results as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the table in which_model.md, and one_stage.svg")
    add("--redraw", type=pathlib.Path, metavar="FILE", help="write --docs from a file of results, without measuring")
    add("--tiny", action="store_true", help="two steps of tiny networks, to test the script")
    add("--worker", choices=pairs.SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.redraw:
        if not options.redraw.is_file():
            parser.error(f"--redraw {options.redraw}: no such file")
        return options
    if options.runs is None:
        parser.error("give --runs FOLDER")
    if options.worker is None:
        for folder in filter(None, (SETS[name][1] for name in options.only)):
            if options.data is None or not (options.data / folder).is_dir():
                parser.error(f"--data {options.data}: holds no folder {folder}")
    return options


def main():
    """Parent: trains, times, writes. Worker: serves the cases of its side."""
    options = parse()
    if options.worker:
        pairs.serve(lambda name: case(name, SIDES[options.worker], options))
        return
    report = json.loads(options.redraw.read_text(encoding="utf-8")) if options.redraw else run(options)
    if options.docs:
        document(report, options.docs)


if __name__ == "__main__":
    main()
