"""`compare`: runs of the recipes side by side."""

import csv
import json
import pathlib

from keras_maskrcnn.cli.common import check_outputs, fail

EXAMPLE = "runs/small runs/large --output runs/compared --by minutes"
KERAS = False  # neither Keras nor its backend is imported
SCORES = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")  # the first columns of scores, where a run has them
CURVES = ("loss", "val_loss", "val_bbox_AP", "val_segm_AP", "val_keypoints_AP", "val_mean_IoU")
ABSENT = "-"


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="folder that a recipe wrote as its --output")
    add(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="also write curves.png (losses and scores of all runs), runs.csv and compare.html",
    )
    add("--by", choices=("steps", "minutes"), default="steps", help="axis of the curves (default: %(default)s)")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write the figures and arguments to a JSON file")


def run(args):
    """Prints figures of finished runs in one table, and the arguments in which they differ; draws their curves."""
    check_outputs(args)
    records, code = _read(args.runs)
    if not records:
        return code
    rows, differences = figures(records), differing(records)
    _print(rows, differences)
    if args.json:
        content = {
            "runs": [{**row, "path": str(record.path)} for row, record in zip(rows, records.values(), strict=True)],
            "arguments_that_differ": differences,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.output:
        _write(args.output, records, rows, differences, args.by)
        print(f"\nwritten: {args.output / 'curves.png'}, runs.csv and compare.html in the same folder")
    return code


def _read(paths):
    """The records by name, a name for each folder, and the exit code: 2 if a folder holds no finished run."""
    from keras_maskrcnn.data.errors import DataError
    from keras_maskrcnn.training.run_record import RunRecord

    paths = list(dict.fromkeys(paths))
    last_parts = [path.resolve().name for path in paths]
    records, code = {}, 0
    for path, name in zip(paths, last_parts, strict=True):
        try:
            records[name if last_parts.count(name) == 1 else str(path)] = RunRecord.read(path)
        except DataError as error:
            code = fail(error)
    return records, code


def figures(records):
    """The rows of the table of figures.

    Args:
        records: dict from names to `training.run_record.RunRecord`s.

    Returns:
        list of dicts with the same keys, a dict for each run; None where a run does not have a figure.
    """
    found = dict.fromkeys(name for record in records.values() for name in record.scores)
    scores = [*(name for name in SCORES if name in found), *(name for name in found if name not in SCORES)]
    return [
        {
            "run": name,
            "recipe": record.recipe,
            "model": record.summary.get("model"),
            "backbone": record.summary.get("backbone", record.arguments.get("backbone")),
            "steps": record.summary["steps"],
            "minutes": round(record.minutes, 1),
            "images_per_second": record.summary.get("images_per_second"),
            "parameters": record.summary.get("parameters"),
            **{score: record.scores.get(score) for score in scores},
            "best_epoch": record.best_epoch,
            "epochs": record.epochs,
            "seed": record.arguments.get("seed"),
        }
        for name, record in records.items()
    ]


def differing(records):
    """The arguments of the recipes that are not the same in all runs.

    Args:
        records: as for `figures`.

    Returns:
        dict from names of arguments to dicts from names of runs to values. An argument that only some recipes have is
        left out unless it differs among their runs.
    """
    found = {}
    for argument in dict.fromkeys(name for record in records.values() for name in record.arguments):
        values = {run: one.arguments[argument] for run, one in records.items() if argument in one.arguments}
        recipes = {records[run].recipe for run in values}
        lack = [run for run, one in records.items() if run not in values and one.recipe in recipes]
        if lack or len({json.dumps(value) for value in values.values()}) > 1:
            found[argument] = values
    return found


def _print(rows, differences):
    from keras_maskrcnn.text_table import columns

    print("\n".join(columns(_cells(rows))))
    if len(rows) > 1:
        print("\n" + ("\n".join(columns(_argument_cells(rows, differences))) if differences else "equal arguments"))


def _cells(rows):
    """Texts of the table of figures, the header first."""
    return [[name.replace("_", " ") for name in rows[0]], *([_text(value) for value in row.values()] for row in rows)]


def _argument_cells(rows, differences):
    """Texts of the table of arguments, a column for each run, the header first."""
    names = [row["run"] for row in rows]
    lines = [
        [f"--{argument.replace('_', '-')}", *(_text(values.get(name)) for name in names)]
        for argument, values in differences.items()
    ]
    return [["arguments that differ", *names], *lines]


def _text(value):
    """A value as text: scores and rates with three digits, numbers of parameters with separators, lists as JSON."""
    if value is None:
        return ABSENT
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def _write(folder, records, rows, differences, by):
    """The picture, the CSV file and the page."""
    from keras_maskrcnn import plots
    from keras_maskrcnn.drawing import page

    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots.compared(panels(records, by), by)
    drawn.savefig(folder / "curves.png", dpi=110)
    with open(folder / "runs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    header, *cells = _cells(rows)
    parts = [page.table(cells, header), f"<figure>{page.plot(drawn)}</figure>"]
    if differences:
        header, *cells = _argument_cells(rows, differences)
        parts.append(page.table(cells, header))
    (folder / "compare.html").write_text(page.document("Runs side by side", parts), encoding="utf-8")


def panels(records, by):
    """What `plots.compared` draws: the curves of losses and scores that any run has.

    Args:
        records: as for `figures`.
        by: "steps" or "minutes".
    """
    found = {}
    for curve in CURVES:
        lines = {name: (one.axis(by), one.history[curve]) for name, one in records.items() if curve in one.history}
        if lines:
            found[curve.removeprefix("val_").replace("_", " ") if curve != "val_loss" else "validation loss"] = lines
    return found
