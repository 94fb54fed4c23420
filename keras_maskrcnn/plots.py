"""Plots of numbers with matplotlib: curves, histograms, bars, confusion matrices, gradient maps.

Each function returns a `matplotlib.figure.Figure`. pyplot is not used: no window opens, and calls share no state.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_maskrcnn import visualize

INK = "#22252a"
# The palette of `visualize` without yellow, which does not show on white.
TINTS = [tuple(channel / 255 for channel in tint) for tint in visualize.PALETTE if tint != (240, 228, 66)]


def curves(panels, xlabel="epoch", ylabel=""):
    """Draws panels of curves side by side; the horizontal axis counts values from 1.

    Args:
        panels: dict from the title of each panel to a dict of columns (name -> list of numbers). A column "val_x" has
            the colour of column "x" and is dashed; "loss" has a wider line.
        xlabel: name of the horizontal axis.
        ylabel: name of the vertical axis.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), max(8.2 / len(panels), 5.5), 4.2)
    for axes, (title, columns) in zip(all_axes, panels.items(), strict=True):
        names = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
        for name, values in columns.items():
            trained = name.removeprefix("val_")
            axes.plot(
                np.arange(1, len(values) + 1),
                np.asarray(values, np.float64),
                linestyle="--" if name != trained and trained in columns else "-",
                linewidth=2.4 if trained == "loss" else 1.5,
                marker="." if len(values) < 30 else None,
                color=TINTS[names.index(trained) % len(TINTS)],
                label=name,
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        if columns:
            axes.legend(fontsize=8, frameon=False)
    return sheet


def histograms(panels):
    """Draws histograms side by side, each with one value marked.

    Args:
        panels: list of (values, edges of the bins, value to mark, name of the axis). Bins of equal ratios get a
            logarithmic axis.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), 5.4, 3.8)
    for axes, (values, edges, mark, name) in zip(all_axes, panels, strict=True):
        axes.hist(values, edges, color=TINTS[1], edgecolor="white", linewidth=0.8)
        axes.axvline(mark, color=INK, linewidth=1.2, linestyle="--", label=f"mode {mark:.3g}")
        if not np.allclose(np.diff(edges), np.diff(edges)[0]):
            axes.set_xscale("log")
            ticks = [tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8) if edges[0] <= tick <= edges[-1]]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.set(xlabel=name, ylabel="count")
        axes.legend(fontsize=9, frameon=False)
    return sheet


def bars(panels):
    """Draws bars with their values, one panel per quantity.

    Args:
        panels: dict from the title of each panel to a dict from names to numbers.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), 4.2, 3.6)
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        drawn = axes.bar(list(values), list(values.values()), color=TINTS[: len(values)], width=0.6)
        axes.bar_label(drawn, fmt="{:.3g}", padding=2, fontsize=9)
        axes.set_title(title, fontsize=11)
        axes.margins(y=0.14)
    return sheet


def confusion(matrix, names):
    """Draws a confusion matrix: rows are ground truth, columns predictions; the shade is the share of the row.

    Args:
        matrix: int [n, n].
        names: n names.

    Returns:
        Figure.
    """
    shares = matrix / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
    side = 1.6 + 0.95 * len(names)
    sheet, (axes,) = _sheet(1, side + 0.6, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        ink = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=10)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="ground truth")
    return sheet


def gradient_map(gradient, box, title=""):
    """Draws the gradient of a unit on a logarithmic scale, with its theoretical receptive field as a frame.

    Args:
        gradient: float32 [H, W], as `receptive_field.probe` returns it.
        box: x1, y1, x2, y2 of the frame in pixels.
        title: title of the plot.

    Returns:
        Figure.
    """
    sheet, (axes,) = _sheet(1, 6.2, 5.2)
    level = np.log10(np.maximum(gradient / gradient.max(), 1e-4))
    shown = axes.imshow(level, cmap="magma", vmin=-4, vmax=0, extent=(0, gradient.shape[1], gradient.shape[0], 0))
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="cyan", linewidth=1.6))
    bar = sheet.colorbar(shown, ax=axes, ticks=[-4, -3, -2, -1, 0], shrink=0.85)
    bar.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1"])
    bar.set_label("mean |gradient| / maximum")
    axes.set(title=title, xlabel="pixels", ylabel="pixels")
    return sheet


def _sheet(count, width, height):
    """A Figure of `count` panels in a row, each of this size in inches, and the list of its axes."""
    sheet = Figure(figsize=(width * count, height), layout="constrained")
    all_axes = list(sheet.subplots(1, count, squeeze=False)[0])
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    return sheet, all_axes
