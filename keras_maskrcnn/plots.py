"""Plots of numbers with matplotlib: curves, histograms, bars, confusion matrices, gradient and feature maps.

pyplot is not used: no window opens, and calls share no state.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_maskrcnn.drawing.colours import PALETTE

INK = "#22252a"
# The palette of drawn objects without yellow, which does not show on white.
TINTS = [tuple(channel / 255 for channel in tint) for tint in PALETTE if tint != (240, 228, 66)]


def curves(panels, xlabel="epoch", ylabel=""):
    """Draws panels of curves side by side; the horizontal axis counts values from 1.

    Args:
        panels: dict from the title of each panel to a dict of columns (name -> list of numbers). A column "val_x" has
            the colour of column "x" and is dashed, and so is "segm_x" next to "bbox_x"; "loss" has a wider line.
        xlabel: name of the horizontal axis.
        ylabel: name of the vertical axis.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), max(8.2 / len(panels), 5.5), 4.2)
    for axes, (title, columns) in zip(all_axes, panels.items(), strict=True):
        names = list(dict.fromkeys(_solid(name, columns) for name in columns))
        for name, values in columns.items():
            solid = _solid(name, columns)
            axes.plot(
                np.arange(1, len(values) + 1),
                np.asarray(values, np.float64),
                linestyle="-" if name == solid else "--",
                linewidth=2.4 if solid == "loss" else 1.5,
                marker="." if len(values) < 30 else None,
                color=TINTS[names.index(solid) % len(TINTS)],
                label=name,
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        if columns:
            axes.legend(fontsize=8, frameon=False)
    return sheet


def learning_rates(rates, losses, smoothed, marks):
    """Draws the loss over the learning rate on a logarithmic axis.

    Args:
        rates: numbers above 0, rising.
        losses: as many losses, drawn faintly.
        smoothed: their moving average.
        marks: dict from names to rates that are marked by a line, or None, which is left out.

    Returns:
        Figure.
    """
    sheet, (axes,) = _sheet(1, 7.0, 4.4)
    axes.plot(rates, losses, ".", color=TINTS[1], alpha=0.4, label="loss of a step")
    axes.plot(rates, smoothed, color=TINTS[1], linewidth=2, label="moving average")
    shown = {name: rate for name, rate in marks.items() if rate is not None}
    for (name, rate), style in zip(shown.items(), ("--", ":", "-."), strict=False):
        axes.axvline(rate, color=INK, linewidth=1.4, linestyle=style, label=f"{name} {rate:.2g}")
    axes.set_xscale("log")
    axes.set(xlabel="learning rate", ylabel="loss")
    if len(smoothed):  # losses that diverge would flatten the rest
        axes.set_ylim(0, min(max(losses), 2 * max(smoothed[: max(len(smoothed) // 5, 1)])) * 1.05)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, frameon=False)
    return sheet


def _solid(name, columns):
    """The column whose colour a column has: that of training for one of validation, that of boxes for one of masks."""
    partner = name.replace("segm_", "bbox_") if "segm_" in name else name.removeprefix("val_")
    return partner if partner in columns else name


def compared(panels, xlabel):
    """Draws curves of several trainings together, a panel for each quantity; a training looks the same in all panels.

    Args:
        panels: dict from the title of each panel to a dict from names of trainings to (x, y), two lists of numbers;
            places where y is NaN are left out.
        xlabel: name of the horizontal axis.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), 4.6, 3.6, columns=3)
    drawn = {}
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for name, (x, y) in lines.items():
            known, index = np.isfinite(y), list(drawn).index(name) if name in drawn else len(drawn)
            style = {"color": TINTS[index % len(TINTS)], "linestyle": ("-", "--", ":")[index // len(TINTS) % 3]}
            (drawn[name],) = axes.plot(np.asarray(x)[known], np.asarray(y)[known], marker=".", **style)
        axes.set(xlabel=xlabel, title=title)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    sheet.legend(drawn.values(), map(plain, drawn), loc="outside upper right", fontsize=8, frameon=False)
    return sheet


def bin_edges(values, count, logarithmic=False):
    """Edges of the bins of a histogram, from the minimum to the maximum.

    Args:
        values: numbers, not empty; positive if `logarithmic`.
        count: number of bins.
        logarithmic: bins of equal ratio instead of equal width.

    Returns:
        float64 [count + 1].
    """
    low, high = float(np.min(values)), float(np.max(values))
    if high <= low:
        low, high = low * 0.95, high * 1.05
    return np.geomspace(low, high, count + 1) if logarithmic else np.linspace(low, high, count + 1)


def mode(values, edges):
    """Centre of the fullest bin (the first of equals), as a float: the geometric mean for bins of unequal width."""
    fullest = int(np.argmax(np.histogram(values, edges)[0]))
    low, high = edges[fullest : fullest + 2]
    return float((low + high) / 2 if _equal(edges) else np.sqrt(low * high))


def histograms(panels):
    """Draws histograms side by side, each with its mode marked.

    Args:
        panels: list of (values, edges of the bins, name of the axis). Bins of unequal width get a logarithmic axis.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), 5.4, 3.8)
    for axes, (values, edges, name) in zip(all_axes, panels, strict=True):
        axes.hist(values, edges, color=TINTS[1], edgecolor="white", linewidth=0.8)
        mark = mode(values, edges)
        axes.axvline(mark, color=INK, linewidth=1.2, linestyle="--", label=f"mode {mark:.3g}")
        if not _equal(edges):
            axes.set_xscale("log")
            ticks = [2.0**power for power in range(-6, 16) if edges[0] <= 2.0**power <= edges[-1]]
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


def beside(panels, xlabel, columns=4):
    """Draws repeated measurements beside published values: a row per name, dots, their mean as a bar, and a diamond.

    Args:
        panels: dict from the title of each panel to a dict from names to (list of numbers, which may be empty, and a
            published number or None).
        xlabel: name of the horizontal axes.
        columns: maximum number of panels side by side.

    Returns:
        Figure.
    """
    sheet, all_axes = _sheet(len(panels), 4.6, 2.9, columns)
    for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
        for place, (values, published) in enumerate(lines.values()):
            if values:
                axes.barh(place, np.mean(values), color=TINTS[1], alpha=0.35, height=0.6)
                axes.plot(values, [place] * len(values), "o", color=TINTS[1], markersize=5)
            if published is not None:
                axes.plot(published, place, "D", color=INK, markerfacecolor="none", markersize=7)
        axes.set_yticks(range(len(lines)), list(lines), fontsize=8)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(xlabel, fontsize=8)
    sheet.suptitle("dots: seeds, bar: mean, diamond: paper", fontsize=9)
    return sheet


def ranking(counts, title, most=40):
    """Draws horizontal bars of counts, the largest on top, on a logarithmic axis.

    Args:
        counts: dict from names to numbers; those of zero are named without a bar.
        title: title of the plot.
        most: maximum number of bars; the smallest of more are left out, which the title then says.

    Returns:
        Figure.
    """
    ordered = sorted(counts.items(), key=lambda item: -item[1])[:most]
    title += f" ({len(counts) - most} smaller ones not shown)" if len(counts) > most else ""
    sheet, (axes,) = _sheet(1, 7.0, 1.2 + 0.22 * len(ordered))
    drawn = axes.barh([name for name, _ in ordered], [count for _, count in ordered], color=TINTS[1], height=0.7)
    axes.bar_label(drawn, padding=3, fontsize=8)
    axes.set_xscale("symlog")
    axes.set_title(title, fontsize=11)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12, y=0.01)
    axes.invert_yaxis()
    return sheet


def reached(values, thresholds, xlabel):
    """Draws which share of numbers in 0..1 reaches each threshold.

    Args:
        values: dict from names to numbers [n], n > 0.
        thresholds: numbers that are marked on the horizontal axis.
        xlabel: name of the horizontal axis.

    Returns:
        Figure.
    """
    sheet, (axes,) = _sheet(1, 5.4, 3.8)
    levels = np.linspace(0, 1, 101)
    for index, (name, numbers) in enumerate(values.items()):
        shares = (np.asarray(numbers)[:, None] >= levels).mean(axis=0)
        axes.plot(levels, shares, color=TINTS[index % len(TINTS)], linewidth=1.8, label=name)
    for threshold in thresholds:
        axes.axvline(threshold, color=INK, linewidth=1.0, linestyle="--")
    axes.set(xlabel=xlabel, ylabel="share", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
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


def shaded(values):
    """Maps numbers to colours from the minimum (dark) to the maximum (light): float [h, w] to uint8 [h, w, 3]."""
    values = np.asarray(values, np.float64)
    share = (values - values.min()) / max(np.ptp(values), 1e-12)
    return (colormaps["magma"](share)[..., :3] * 255).astype(np.uint8)


def components(feature):
    """Maps the three principal components of a feature map to red, green and blue.

    Args:
        feature: float [H, W, C].

    Returns:
        uint8 [H, W, 3]; a constant map is grey.
    """
    values = np.asarray(feature, np.float64).reshape(-1, feature.shape[-1])
    values = values - values.mean(axis=0)
    found = values @ np.linalg.svd(values, full_matrices=False)[2][:3].T
    found = np.pad(found, ((0, 0), (0, 3 - found.shape[1])))
    # 2.5 standard deviations fill the range, so that outliers do not compress all other values.
    spread = np.maximum(found.std(axis=0), 1e-12) * 2.5
    return (np.clip(0.5 + 0.5 * found / spread, 0, 1) * 255).astype(np.uint8).reshape(*feature.shape[:2], 3)


def plain(name):
    """A name in which matplotlib finds no formula."""
    return name.replace("$", r"\$")


def _equal(edges):
    return np.allclose(np.diff(edges), edges[1] - edges[0])


def _sheet(count, width, height, columns=None):
    """A Figure of `count` panels, each of this size in inches, at most `columns` in a row, and the list of its axes."""
    columns = min(columns or count, count)
    rows = -(-count // columns)
    sheet = Figure(figsize=(width * columns, height * rows), layout="constrained")
    all_axes = list(sheet.subplots(rows, columns, squeeze=False).ravel())
    for axes in all_axes[count:]:
        axes.remove()
    for axes in all_axes[:count]:
        axes.spines[["top", "right"]].set_visible(False)
    return sheet, all_axes[:count]
