"""Plots of the report: curves of precision, recall and F1, calibration, error types, confusion matrix."""

import numpy as np
from matplotlib.figure import Figure

from keras_maskrcnn import plots
from keras_maskrcnn.evaluation import drawn
from keras_maskrcnn.evaluation.errors import ERRORS
from keras_maskrcnn.evaluation.ranked import RECALLS, precision_envelope

CLASSES = 12  # classes that are drawn one by one, those with the most objects or errors
TINTS = plots.TINTS
POINTS = 1000  # of a curve over all detections
GREY = "#b9bdc4"


def precision_recall_curves(rows, class_names):
    """Draws precision over recall of each class, and their mean.

    Args:
        rows: `ranked.Ranked`.
        class_names: K names.

    Returns:
        Figure.
    """
    sheet, axes = _axes(5.6, 4.2, xlabel="recall", ylabel="precision", title="Precision and recall (IoU 0.5)")
    labels = [label for label in np.argsort(-rows.objects, kind="stable") + 1 if rows.objects[label - 1]]
    envelopes = [precision_envelope(rows.of(label).right, rows.objects[label - 1]) for label in labels]
    for index, (label, envelope) in enumerate(zip(labels[:CLASSES], envelopes, strict=False)):
        name = f"{plots.plain(class_names[label - 1])} (AP {envelope.mean():.3f})"
        axes.plot(RECALLS, envelope, color=TINTS[index % len(TINTS)], linewidth=1.2, label=name)
    if len(labels) > 1:
        mean = np.mean(envelopes, axis=0)
        axes.plot(RECALLS, mean, color=plots.INK, linewidth=2.4, label=f"mean of {len(labels)} (AP {mean.mean():.3f})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes)
    return sheet


def threshold_curves(rows, best, score_threshold):
    """Draws precision, recall and F1 over the score threshold, with the best and the chosen threshold marked.

    Args:
        rows: `ranked.Ranked`.
        best: `overall` of `best_f1`.
        score_threshold: the threshold of the report.

    Returns:
        Figure.
    """
    sheet, axes = _axes(5.6, 4.2, xlabel="score threshold", title="Precision, recall and F1 over the threshold")
    counts, right, objects = np.arange(1, len(rows.scores) + 1), np.cumsum(rows.right), max(1, rows.objects.sum())
    curves = {"precision": right / counts, "recall": right / objects, "F1": 2 * right / (counts + objects)}
    places = np.unique(np.linspace(0, max(0, len(counts) - 1), POINTS).astype(int))[: len(counts)]
    for (name, values), tint in zip(curves.items(), TINTS[:3], strict=False):
        axes.plot(rows.scores[places], values[places], color=tint, linewidth=2.4 if name == "F1" else 1.5, label=name)
    if np.isfinite(best["threshold"]):
        label = f"highest F1, {best['f1']:.3f} at {best['threshold']:.2f}"
        axes.axvline(best["threshold"], color=plots.INK, linestyle="--", linewidth=1.2, label=label)
    axes.axvline(score_threshold, color=GREY, linewidth=1.2, label=f"threshold of this report, {score_threshold:g}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes)
    return sheet


def calibration_plot(figures):
    """Draws precision over score, and the number of detections in each bin.

    Args:
        figures: result of `calibration`.

    Returns:
        Figure.
    """
    title = f"Calibration (expected error {figures['expected_calibration_error']:.3f})"
    sheet, axes = _axes(5.6, 4.2, xlabel="score", ylabel="precision", title=title)
    edges, used = figures["edges"], figures["counts"] > 0
    axes.bar(
        edges[:-1][used],
        figures["precisions"][used],
        width=np.diff(edges)[used],
        align="edge",
        color=TINTS[1],
        edgecolor="white",
        label="precision",
    )
    axes.plot([0, 1], [0, 1], color=plots.INK, linestyle="--", linewidth=1.2, label="as the score states")
    axes.plot(figures["scores"][used], figures["precisions"][used], "o", color=TINTS[5], label="at the mean score")
    for centre, count in zip((edges[:-1] + edges[1:]) / 2, figures["counts"], strict=True):
        axes.text(centre, 0.01, f"{count}", ha="center", fontsize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1.08))
    _legend(axes)
    return sheet


def error_bars(figures):
    """Draws the lost AP of each error type, with the number of errors.

    Args:
        figures: result of `tide`.

    Returns:
        Figure.
    """
    sheet, axes = _axes(5.6, 4.2, xlabel="AP gained if all of them were repaired", title="Errors by type (TIDE)")
    more = {"false positives": figures["false_positives"], "false negatives": figures["false_negatives"]}
    errors = {**{name: figures["errors"][name] for name in ERRORS}, **more}
    gains = [np.nan_to_num(error["dAP"]) for error in errors.values()]
    tints = [*(np.array(drawn.TINTS[name]) / 255 for name in ERRORS), GREY, GREY]
    bars = axes.barh(list(errors), gains, color=tints, height=0.65)
    texts = [f"{error['dAP']:.3f} ({error['count']})" for error in errors.values()]
    axes.bar_label(bars, texts, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlim(left=min(0, *gains))
    return sheet


def confusion_matrix(report):
    """Draws the confusion matrix; of more than `CLASSES` classes, those with the most errors.

    Args:
        report: result of `precision_recall`.

    Returns:
        Figure.
    """
    matrix, names = np.asarray(report["confusion"]), report["names"]
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    shown = np.append(np.sort(np.argsort(-errors[:-1], kind="stable")[:CLASSES]), len(names) - 1)
    sheet = plots.confusion(matrix[np.ix_(shown, shown)], [plots.plain(names[index]) for index in shown])
    sheet.axes[0].set_title("Confusion" if len(shown) == len(names) else f"Confusion ({CLASSES} of {len(names) - 1})")
    return sheet


def _axes(width, height, **texts):
    sheet = Figure(figsize=(width, height), layout="constrained")
    axes = sheet.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set(**texts)
    return sheet, axes


def _legend(axes):
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
