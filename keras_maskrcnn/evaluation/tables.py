"""Tables of scores: rows of text cells, the header first, and their layout in columns."""

import math
import numbers

from keras_maskrcnn.evaluation.coco import SCORED, figures_of
from keras_maskrcnn.evaluation.errors import ERRORS
from keras_maskrcnn.text_table import columns as _columns

RATES = ("precision", "recall", "f1")
COUNTS = ("true_positives", "false_positives", "false_negatives")


def all_tables(figures):
    """The tables of `explain`: dict from title to rows, each a list of str."""
    return {
        "COCO scores": _scores(figures),
        "COCO scores by class": _by_class(figures),
        f"Precision and recall at score {figures['score_threshold']:g}": _rates(figures["report"]),
        **_further_tables(figures),
    }


def _further_tables(figures):
    """The tables of `explain` that neither `format_scores` nor `format_report` prints."""
    at = f"at score {figures['score_threshold']:g}"
    return {
        "Score threshold of the highest F1": _best(figures["best_f1"]),
        "Errors by type (TIDE)": _errors(figures["tide"]),
        f"By size of the objects, {at}": _sizes(figures["sizes"]),
        "Calibration": _calibration(figures["calibration"]),
        "Further scores": _further(figures, at),
    }


def format_scores(scores: dict) -> str:
    """Formats `coco_scores`, `semantic_scores` or `panoptic_quality`: a line per score, then per class; NaN is "-"."""
    of_maps = "mean_IoU" in scores or "PQ" in scores
    lines = _columns(_figures(scores) if of_maps else _scores(scores))
    if scores.get("per_class"):
        lines += ["", *_columns(_figures_by_class(scores["per_class"]) if of_maps else _by_class(scores))]
    return "\n".join(lines)


def format_report(report):
    """Formats `precision_recall` as a text table, followed by the confusion matrix (rows: ground truth)."""
    names = report["names"]
    matrix = [[name, *map(str, row)] for name, row in zip(names, report["confusion"].tolist(), strict=True)]
    return "\n".join([*_columns(_rates(report)), "", *_columns([["truth \\ found", *names], *matrix])])


def format_explanation(figures):
    """Formats what `explain` has beyond `format_scores` and `format_report` as text tables with titles."""
    parts = _further_tables(figures).items()
    return "\n\n".join("\n".join([f"{title}:", *_columns(rows)]) for title, rows in parts)


def _scores(scores):
    kinds = [kind for kind in SCORED if f"{kind}_AP" in scores]
    figures = dict.fromkeys(figure for kind in kinds for figure in figures_of(kind)[0])
    rows = [[_number(scores.get(f"{kind}_{figure}", math.nan)) for kind in kinds] for figure in figures]
    return [["", *kinds], *([figure, *row] for figure, row in zip(figures, rows, strict=True))]


def _by_class(scores):
    columns = [f"{kind}_{name}" for kind in SCORED if f"{kind}_AP" in scores for name in figures_of(kind)[1]]
    rows = [[name, *(_number(found[column]) for column in columns)] for name, found in scores["per_class"].items()]
    return [["by class", *(column.replace("_", " ") for column in columns)], *rows]


def _figures(scores):
    rows = [[name.replace("_", " "), _number(value)] for name, value in scores.items() if name != "per_class"]
    return [["", "value"], *rows]


def _figures_by_class(per_class):
    columns = list(next(iter(per_class.values())))
    rows = [[str(name), *(_number(figures[column]) for column in columns)] for name, figures in per_class.items()]
    return [["by class", *(column.replace("_", " ") for column in columns)], *rows]


def _rates(report):
    rows = [
        [name, *(_number(rates[key]) for key in RATES), *(str(rates[key]) for key in COUNTS)]
        for name, rates in [*report["classes"].items(), ("overall", report["overall"])]
    ]
    return [["", "precision", "recall", "F1", "right", "wrong", "missed"], *rows]


def _best(best):
    rows = [
        [name, *(_number(rates[key]) for key in ("threshold", *RATES))]
        for name, rates in [*best["classes"].items(), ("overall", best["overall"])]
    ]
    return [["", "threshold", "precision", "recall", "F1"], *rows]


def _errors(tide):
    entries = {name: tide["errors"][name] for name in ERRORS}
    entries |= {"false positives": tide["false_positives"], "false negatives": tide["false_negatives"]}
    rows = [[name, str(entry["count"]), _number(entry["dAP"])] for name, entry in entries.items()]
    return [[f"AP50 {_number(tide['AP'])}", "number", "dAP"], *rows]


def _sizes(sizes):
    columns = ("objects", "recall", "detections", "precision", "AP", "AR")
    return [["", *columns], *[[size, *(_number(scores[name]) for name in columns)] for size, scores in sizes.items()]]


def _calibration(figures):
    edges = figures["edges"]
    bins = zip(edges[:-1], edges[1:], figures["counts"], figures["scores"], figures["precisions"], strict=True)
    rows = [[f"{low:.1f} to {high:.1f}", *map(_number, values)] for low, high, *values in bins]
    return [["score", "detections", "mean score", "precision"], *rows]


def _further(figures, at):
    rows = [["expected calibration error", _number(figures["calibration"]["expected_calibration_error"])]]
    if "dsb_score" in figures:
        rows.append([f"DSB 2018 score {at}", _number(figures["dsb_score"])])
    return [["", "value"], *rows]


def _number(value):
    """A whole number as it is, others with three decimals, "-" for NaN."""
    if isinstance(value, numbers.Integral):
        return f"{value}"
    return "-" if math.isnan(value) else f"{value:.3f}"
