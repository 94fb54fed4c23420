"""Whether the figures of a run order as the paper's do, and the tables in Markdown."""

import statistics

# AP points below which the paper speaks of no difference: RoIWarp "on par" with RoIPool (0.3; 0.7 in AP75), RoIAlign
# "insensitive" to maximum or average (0.1; 0.3 in AP75).
EQUAL = 0.5
NAMES = {"bbox": "box ", "segm": "mask ", "keypoints": "keypoint "}


def spread(values):
    """Sample standard deviation of the seeds; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def verdict(differences, published):
    """Compares differences with the paper's.

    The order is decided if the mean of the differences exceeds their sample standard deviation over the seeds.

    Args:
        differences: AP points, one per seed.
        published: AP points, the paper's difference.

    Returns:
        str: "agrees" or "reversed"; "not decided" within the spread; for a published difference below `EQUAL`, "equal"
        within the spread and otherwise "differs". With one seed "agrees, one seed" and so on: there is no spread.
    """
    mean, noise = statistics.fmean(differences), spread(differences)
    if abs(published) < EQUAL:
        decided = abs(mean) > (EQUAL if noise is None else noise)
        found = "differs, the paper's do not" if decided else "equal"
    elif noise is not None and abs(mean) <= noise:
        found = "not decided"
    else:
        found = "agrees" if mean * published > 0 else "reversed"
    return found if noise is not None else f"{found}, one seed"


def comparisons(table, results):
    """The pairs of a table that both have results: list of dicts, for JSON."""
    found = []
    for base, other in table.pairs:
        for figure in table.judged:
            before, after = results.values(base, figure), results.values(other, figure)
            published = [table.published(name, figure) for name in (base, other)]
            if None in published or not (seeds := before.keys() & after.keys()):
                continue
            differences = [after[seed] - before[seed] for seed in sorted(seeds)]
            paper = round(published[1] - published[0], 1)
            found.append({
                "base": base,
                "other": other,
                "figure": figure,
                "differences": [round(value, 2) for value in differences],
                "published": paper,
                "verdict": verdict(differences, paper),
            })  # fmt: skip
    return found


def markdown(table, results):
    """A table of figures, mean ± spread beside the published ones, and a table of the pairs; "" without results."""
    if not any(results.values(variant, figure) for variant in table.rows for figure in table.figures):
        return ""
    header = [heading(figure) for figure in table.figures]
    lines = [f"## {table.title}", "", _row(["", *header, *(f"paper: {name}" for name in header)])]
    lines.append(_row(["---"] * (1 + 2 * len(header))))
    for variant, (name, published) in table.rows.items():
        ours = [_figure(list(results.values(variant, figure).values())) for figure in table.figures]
        lines.append(_row([f"{name} (`{variant}`)", *ours, *("–" if value is None else value for value in published)]))
    lines += ["", _row(["difference", "figure", "here", "by seed", "paper", "order"]), _row(["---"] * 6)]
    for pair in comparisons(table, results):
        names = [table.rows[pair[side]][0] for side in ("base", "other")]
        values = pair["differences"]
        cells = [
            " → ".join(names),
            heading(pair["figure"]),
            _figure(values, "+"),
            ", ".join(f"{v:+.1f}" for v in values),
        ]
        lines.append(_row([*cells, f"{pair['published']:+.1f}", pair["verdict"]]))
    return "\n".join(lines) + "\n"


def heading(figure):
    """The name of a figure in a table, such as "mask AP75" of "segm_AP75"."""
    kind, name = figure.split("_")
    return NAMES[kind] + name


def _figure(values, sign=""):
    """Mean ± spread with one digit."""
    if not values:
        return "–"
    noise = spread(values)
    return f"{statistics.fmean(values):{sign}.1f}" + ("" if noise is None else f" ± {noise:.1f}")


def _row(cells):
    return "| " + " | ".join(map(str, cells)) + " |"
