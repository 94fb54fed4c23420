"""The tables of benchmarks in docs/speed.md, from the JSON files that the benchmarks write with `--output`.

    python benchmarks/table.py --readme docs/speed.md

writes the content of `benchmarks/results/*.json` between the lines `<!-- benchmarks: begin -->` and
`<!-- benchmarks: end -->`. With `--check` nothing is written; the exit status is 1 if the page differs. Cases without
a peer and without a bar, such as those that measure growth, are left out.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import re
import sys

RESULTS = pathlib.Path(__file__).parent / "results"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
HEADER = (
    "| work | ours | peer | ratio (lowest … highest) | memory, ours / peer | bar: least (aim) | reached |",
    "|---|---|---|---|---|---|---|",
)


@dataclasses.dataclass(frozen=True)
class Bar:
    """The required result of a case.

    Attributes:
        least: required bound.
        aim: intended bound, or None.
        of: "ratio" (of times, peer / ours: minimum), "memory" (ours / peer: maximum) or "ms" (ours: maximum).
    """

    least: float
    aim: float | None = None
    of: str = "ratio"

    def __str__(self):
        sign, unit = {"ratio": ("≥", "×"), "memory": ("memory ≤", "×"), "ms": ("≤", " ms")}[self.of]
        aim = f" ({self.aim:g}{unit})" if self.aim is not None else ""
        return f"{sign} {self.least:g}{unit}{aim}"

    def verdict(self, value):
        """Returns "aim", "yes" or "**no**" for a measured value; "not measured" for None."""
        if value is None:
            return "not measured"
        sign = 1 if self.of == "ratio" else -1
        if self.aim is not None and sign * value >= sign * self.aim:
            return "aim"
        return "yes" if sign * value >= sign * self.least else "**no**"


MEMORY = Bar(1.0, 0.7, of="memory")
# Scripts in which each case has its own processes, so that the peak memory is that of the case.
OWN_PROCESSES = {"backbones", "inference", "training", "predict_folder"}

# Name of a script: (regular expression for the name of a case, its bars); the first match counts.
BARS = {
    "inference": [
        (r"^mixed_bfloat16; torchvision bfloat16", (Bar(2, 2.5), MEMORY)),
        (r"^mixed_bfloat16; torchvision float32", (Bar(6, 8), MEMORY)),
        (r"^float32; torchvision float32", (Bar(1.25, 1.4), MEMORY)),
        (r"^mixed_bfloat16; model-garden", (Bar(2, 4),)),
        (r"; openvino .*, torchvision's network$", (Bar(1.1, 1.3),)),
    ],
    "training": [
        (r"^mixed_bfloat16; torchvision bfloat16", (Bar(2, 2.8), MEMORY)),
        (r"^mixed_bfloat16; torchvision float32", (Bar(4.5, 6), MEMORY)),
        (r"^mixed_bfloat16; model-garden", (Bar(2, 4),)),
    ],
    "roi_align": [
        (r"^1000 boxes.*; forward; auto$", (Bar(4, 6),)),
        (r"^1000 boxes.*; forward\+backward; auto$", (Bar(10, 18),)),
    ],
    "nms": [
        (r"^detections, 2000 rows.*; auto$", (Bar(4, 6),)),
    ],
    "data_pipeline": [(r"", (Bar(1.5, 2.5),))],
    "paste": [(r"^boxes of all sizes", (Bar(60, of="ms"),))],
}


def bars(script, case):
    """Bars of a case, a tuple that may be empty.

    Args:
        script: path of the script.
        case: name of the case.
    """
    for pattern, found in BARS.get(pathlib.PurePosixPath(script).stem, ()):
        if re.search(pattern, case):
            return found
    return ()


# From the files to rows -------------------------------------------------------------------------------------------


def load(folder):
    """Reads the comparisons in a folder, in the order of `BARS`, then the others by name.

    Reports without the entry `peer` are not comparisons and are left out.

    Raises:
        ValueError: for a file that is not a report; the message names it.
    """
    reports = []
    for path in sorted(folder.glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        wanted = {"script", "date", "machine", "versions", "rows"} if "peer" in report else {"script"}
        missing = wanted - set(report)
        if missing:
            raise ValueError(f"{path} is not a report of a benchmark: it has no {', '.join(sorted(missing))}")
        if "peer" in report:
            reports.append(report)
    order = list(BARS)
    stems = [_stem(report) for report in reports]
    ranks = [order.index(stem) if stem in order else len(order) for stem in stems]
    return [reports[i] for i in sorted(range(len(reports)), key=lambda i: (ranks[i], stems[i], i))]


def _stem(report):
    return pathlib.PurePosixPath(report["script"]).stem


def row(report, case):
    """The line of a case, or None if it has neither a time of the peer nor a bar for our own."""
    wanted = bars(report["script"], case["case"])
    if not case["ratio"] and not any(bar.of == "ms" for bar in wanted):
        return None
    memory = _memory_ratio(case) if _stem(report) in OWN_PROCESSES else None
    values = {
        "ratio": case["ratio"] and case["ratio"]["median"],
        "memory": memory,
        "ms": case["ours"] and case["ours"]["median"] * {"ms": 1, "s": 1e3}[case["unit"]],
    }
    cells = [
        f"`{_stem(report)}` {case['case']}",
        _time(case, "ours"),
        _time(case, "peer"),
        _ratio(case["ratio"]),
        f"{memory:.2f}×" if memory else "",
        "; ".join(map(str, wanted)),
        "; ".join(bar.verdict(values[bar.of]) for bar in wanted),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _memory_ratio(case):
    """Our memory over the peer's; None if a side was not run."""
    memory = case.get("memory_mb") or {}
    return memory["ours"] / memory["peer"] if memory.get("ours") and memory.get("peer") else None


def _time(case, side):
    """Median with its unit; for a pass over many images the time per image, and the rate."""
    if not case[side]:
        return ""
    median, unit = case[side]["median"], case["unit"]
    pictures = case.get("facts", {}).get(side, {}).get("pictures", 1)
    if pictures == 1:
        return f"{_digits(median)} {unit}"
    each = median / pictures * {"ms": 1, "s": 1e3}[unit]
    return f"{_digits(each)} ms a picture, {_digits(1e3 / each)} images/s"


def _digits(value):
    """A number with three digits or more."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _ratio(ratio):
    if not ratio:
        return ""
    median, lowest, highest = (f"{ratio[name]:.2f}" for name in ("median", "lowest", "highest"))
    return f"{median}× ({lowest} … {highest})"


# From rows to the page --------------------------------------------------------------------------------------------


def tables(reports):
    """The text between the marker lines: a table per peer and machine, followed by machine, dates and versions."""
    groups = {}
    for report in reports:
        rows = [line for case in report["rows"] if (line := row(report, case))]
        if rows:
            groups.setdefault((report["peer"], report["machine"]), []).append((report, rows))
    parts = [_table(peer, machine, group) for (peer, machine), group in groups.items()]
    return "\n\n".join(parts) if parts else "Nothing has been measured yet."


def _table(peer, machine, group):
    title = f"Against {peer}:" if peer else "Without a peer:"
    lines = [line for _, rows in group for line in rows]
    return "\n".join([title, "", *HEADER, *lines, "", f"Machine: {machine}.", *_origins(group)])


def _origins(group):
    """Lines with date and versions of the scripts; scripts with the same date and versions share a line."""
    origins = {}
    for report, _ in group:
        versions = json.dumps(report["versions"])
        origins.setdefault((report["date"], versions), []).append(f"`{report['script']}`")
    for (date, versions), scripts in origins.items():
        day = datetime.date.fromisoformat(date)
        sides = "; ".join(f"{side}: {_listed(found)}" for side, found in json.loads(versions).items() if found)
        yield f"{', '.join(dict.fromkeys(scripts))}: {day.day} {day:%B %Y}; {sides}."


def _listed(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def replaced(page, text):
    """The page with `text` between the marker lines.

    Raises:
        ValueError: unless each marker line occurs once, in order.
    """
    lines = page.split("\n")
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(END) < lines.index(BEGIN):
        raise ValueError(f"needs the lines {BEGIN} and {END}, once each and in this order")
    return "\n".join([*lines[: lines.index(BEGIN) + 1], "", text, "", *lines[lines.index(END) :]])


def main(words=None):
    """Writes or checks the page, or prints the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--readme",
        type=pathlib.Path,
        metavar="FILE",
        help="file with the marker lines; without it the tables are printed",
    )
    add("--results", type=pathlib.Path, default=RESULTS, metavar="FOLDER", help="JSON files (default: %(default)s)")
    add("--check", action="store_true", help="write nothing; exit status 1 if the file differs from the results")
    options = parser.parse_args(words)
    if options.check and not options.readme:
        parser.error("--check needs --readme")
    if not options.results.is_dir():
        parser.error(f"{options.results}: no such folder")
    try:
        text = tables(load(options.results))
        if not options.readme:
            print(text)
            return 0
        return _update(options.readme, text, options.check)
    except OSError as error:
        parser.error(f"{options.readme}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))


def _update(path, text, check):
    before = path.read_text(encoding="utf-8")
    try:
        after = replaced(before, text)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if check and before != after:
        print(f"{path} differs from the results: run python benchmarks/table.py --readme {path}")
        return 1
    if not check and before != after:
        path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
