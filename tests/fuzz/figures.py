"""The results of a run of the fuzzer, as lines, as a table, and in docs/hostile_input.md."""

import datetime
import importlib.util
import pathlib
import re

FIGURES = "read", "refused", "seconds", "grown"
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"
HEADER = ("target", "cases", "read", "refused", "failed", "s", "MB")


def line(result):
    """A line on a target that has ended."""
    cases = f"{result.cases:7} cases, {result.read:7} read, {result.refused:7} refused, {len(result.failures):3} failed"
    return f"{result.target:24} {cases}, {result.seconds:6.0f} s, {result.grown / 1e6:5.0f} MB more memory"


def content(results, seed, seconds):
    """A run as a dict for JSON: date, machine, version, seed, and per target the figures and failures."""
    from keras_maskrcnn import __version__

    rows = {
        name: {
            **{figure: getattr(result, figure) for figure in FIGURES},
            "cases": result.cases,
            "failures": result.failures,
        }
        for name, result in results.items()
    }
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "version": __version__,
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "targets": rows,
    }


def _machine():
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "machine.py"
    spec = importlib.util.spec_from_file_location("machine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.description()


def rows(run):
    """The rows of the table: lists of cells, the last one of all targets together."""
    found = [[name, *_cells(row)] for name, row in run["targets"].items()]
    targets = run["targets"].values()
    total = {key: sum(row[key] for row in targets) for key in ("cases", "read", "refused", "seconds")}
    failures = [failure for row in targets for failure in row["failures"]]
    return [*found, ["all", *_cells({**total, "grown": max(row["grown"] for row in targets), "failures": failures})]]


def _cells(row):
    figures = row["cases"], row["read"], row["refused"], len(row["failures"]), round(row["seconds"])
    return [*(f"{figure:,}" for figure in figures), f"{row['grown'] / 1e6:.0f}"]


def text(run):
    """The table and the failures as lines of text."""
    cells = [HEADER, *rows(run)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    for name, row in run["targets"].items():
        lines += [f"{name} {failure['case']}: {failure['kind']}: {failure['detail']}" for failure in row["failures"]]
    return "\n".join(lines)


def markdown(run):
    """The table in Markdown, after a line with date, machine, version and seed."""
    head = (
        f"{run['date']}, {run['minutes']:g} minutes on {run['machine']}, version {run['version']}, seed {run['seed']}."
    )
    cells = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *rows(run)]
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in cells)])


def write_page(run, path):
    """Writes the table between the two marks of a page."""
    page = path.read_text(encoding="utf-8")
    changed, count = re.subn(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{markdown(run)}\n{END}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path}: has no {BEGIN} … {END}")
    path.write_text(changed, encoding="utf-8")
