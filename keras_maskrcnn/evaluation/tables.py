"""Text tables of scores."""

import math

from keras_maskrcnn.evaluation.coco import FIGURES, PER_CLASS, SCORED


def format_scores(scores):
    """Formats `coco_scores` as a text table: one line per score, then one per class; "-" for NaN."""
    kinds = [kind for kind in SCORED if f"{kind}_AP" in scores]
    table = [["", *kinds], *[[figure, *(_number(scores[f"{k}_{figure}"]) for k in kinds)] for figure in FIGURES]]
    lines = _columns(table)
    if per_class := scores.get("per_class"):
        columns = [f"{kind}_{figure}" for kind in kinds for figure in PER_CLASS]
        rows = [[name, *(_number(found[column]) for column in columns)] for name, found in per_class.items()]
        lines += ["", *_columns([["by class", *(column.replace("_", " ") for column in columns)], *rows])]
    return "\n".join(lines)


def format_report(report):
    """Formats `precision_recall` as a text table, followed by the confusion matrix (rows: ground truth)."""
    counts = ("true_positives", "false_positives", "false_negatives")
    rows = [
        [name, *(_number(rates[key]) for key in ("precision", "recall", "f1")), *(str(rates[key]) for key in counts)]
        for name, rates in [*report["classes"].items(), ("overall", report["overall"])]
    ]
    table = _columns([["", "precision", "recall", "F1", "right", "wrong", "missed"], *rows])
    names = report["names"]
    matrix = [[name, *map(str, row)] for name, row in zip(names, report["confusion"].tolist(), strict=True)]
    return "\n".join([*table, "", *_columns([["truth \\ found", *names], *matrix])])


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def _columns(rows):
    """Lines of text: the first column left-aligned, all others right-aligned, two spaces between columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
