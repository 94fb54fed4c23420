"""JSON files and documentation pages of the scripts that measure this package only."""

import datetime
import json
import shlex
import statistics
import sys

import machine
import pairs


def header(script):
    """The first entries of a report.

    Args:
        script: name of the file in `benchmarks`.
    """
    return {
        "script": f"benchmarks/{script}",
        "command": shlex.join(["python", f"benchmarks/{script}", *map(pairs.without_place, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "machine": machine.description(),
    }


def spread(values):
    """Median, minimum and maximum of numbers, to five digits."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def write(path, report):
    """Writes a report as JSON unless the path is None; creates the folder."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def fill(page, name, text):
    """Writes text between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a page.

    Raises:
        SystemExit: with one line, if the page does not contain them.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = (page.read_text(encoding="utf-8") if page.is_file() else "").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} lacks the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def versions(found):
    """Names and versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in found.items())
