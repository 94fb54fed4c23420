"""The plots of the report: numbers in, a matplotlib Figure out. Nothing here knows a model."""

import math

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window, no state shared between calls
from matplotlib.patches import Rectangle

from keras_maskrcnn import visualize

INK = "#22252a"
# For lines on white: the palette of `visualize` without its yellow.
LINES = [tuple(channel / 255 for channel in tint) for tint in visualize.PALETTE if tint != (240, 228, 66)]


def bin_edges(values, count, logarithmic=False):
    """Edges of `count` equal bins from the least value to the greatest: float64 [count + 1].

    Args:
        values: numbers, of which one at least; above 0 where `logarithmic`.
        count: number of bins.
        logarithmic: equal ratios instead of equal differences, so that 1:2 and 2:1 lie equally far from 1.
    """
    low, high = float(np.min(values)), float(np.max(values))
    if high <= low:  # one value: a bin around it
        low, high = low * 0.95, high * 1.05
    return np.geomspace(low, high, count + 1) if logarithmic else np.linspace(low, high, count + 1)


def mode(values, edges):
    """The middle of the fullest bin.

    Args:
        values: numbers.
        edges: edges of the bins, ascending.

    Returns:
        (middle, low, high): floats; of bins that are equally full, the first.
    """
    counts, _ = np.histogram(values, edges)
    low, high = (float(edge) for edge in edges[int(np.argmax(counts)) :][:2])
    spacing = np.diff(edges)
    equal = np.allclose(spacing, spacing[0])
    return ((low + high) / 2 if equal else math.sqrt(low * high)), low, high


def histograms(panels):
    """Histograms side by side, each with its mode marked.

    Args:
        panels: list of (values, edges, name of the axis); bins of equal ratios get a logarithmic axis.

    Returns:
        Figure.
    """
    sheet = Figure(figsize=(5.4 * len(panels), 3.8), layout="constrained")
    for axes, (values, edges, name) in zip(np.atleast_1d(sheet.subplots(1, len(panels))), panels, strict=True):
        middle, low, high = mode(values, edges)
        counts, _, drawn = axes.hist(values, edges, color=LINES[1], edgecolor="white", linewidth=0.8)
        drawn[int(np.argmax(counts))].set_facecolor(LINES[-1])
        axes.axvline(
            middle, color=INK, linewidth=1.2, linestyle="--", label=f"mode {middle:.3g} ({low:.3g} … {high:.3g})"
        )
        if not np.allclose(np.diff(edges), np.diff(edges)[0]):
            axes.set_xscale("log")
            ticks = [tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8) if edges[0] <= tick <= edges[-1]]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.set(xlabel=name, ylabel="boxes")
        axes.legend(fontsize=9, frameon=False)
        _calm(axes)
    return sheet


def curves(history, names=None, title="", xlabel="epoch"):
    """One line a loss, the total thick and dark; curves of test pictures are dashed, in the colour of the training.

    Args:
        history: dict of lists, as `History.history`; keys with "val_" before them are of test pictures.
        names: dict from the keys to draw to what they are called; None draws every key that ends in "loss".
        title: of the plot.
        xlabel: name of the axis, which starts at 1.

    Returns:
        Figure.
    """
    names = names or {key: key for key in history if key.endswith("loss") and not key.startswith("val_")}
    lines = []
    for i, (key, name) in enumerate(names.items()):
        total = key == "loss"
        look = {"color": INK if total else LINES[i % len(LINES)], "linewidth": 2.2 if total else 1.6}
        lines.append((history[key], {"label": name, **look}))
        if f"val_{key}" in history:
            lines.append((history[f"val_{key}"], {"label": f"{name}, test", "linestyle": "--", **look}))
    return _drawn_curves(lines, xlabel, "loss", title)


def compared_curves(histories, key="loss", ylabel="loss", title="", xlabel="epoch"):
    """The same value of several trainings, one line each.

    Args:
        histories: dict from names to dicts of lists.
        key: which list of each.
        ylabel: name of the value.
        title: of the plot.
        xlabel: name of the axis, which starts at 1.

    Returns:
        Figure.
    """
    lines = [
        (history[key], {"label": name, "color": LINES[i % len(LINES)], "linewidth": 1.8})
        for i, (name, history) in enumerate(histories.items())
    ]
    return _drawn_curves(lines, xlabel, ylabel, title)


def bars(panels):
    """Bars of a few measured values, such as time and accuracy of two ways to train, with the number on each.

    Args:
        panels: dict from the title of a panel to {name of a bar: value}.

    Returns:
        Figure.
    """
    sheet = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axes, (title, values) in zip(np.atleast_1d(sheet.subplots(1, len(panels))), panels.items(), strict=True):
        heights = [float(value) for value in values.values()]
        drawn = axes.bar(list(values), heights, color=[LINES[i % len(LINES)] for i in range(len(values))], width=0.6)
        axes.bar_label(drawn, [f"{value:.3g}" for value in heights], padding=2, fontsize=9)
        axes.set_title(title, fontsize=11)
        axes.margins(y=0.14)
        _calm(axes)
    return sheet


def confusion(matrix, names):
    """A confusion matrix: rows are the truth, columns what was predicted; shades are shares of the row.

    Args:
        matrix: int [n, n].
        names: n names.

    Returns:
        Figure.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.95 * len(names)
    sheet = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = sheet.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        dark = shares[row, column] > 0.55
        axes.text(column, row, f"{count}", ha="center", va="center", color="white" if dark else INK, fontsize=10)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.spines[:].set_visible(False)
    return sheet


def receptive_map(gradient, box, title=""):
    """Where a unit looks: mean |gradient| on a logarithmic scale, and the field that the layers allow as a frame.

    Args:
        gradient: float32 [H, W], as `receptive_field.probe` gives it.
        box: x1, y1, x2, y2 of the theoretical field.
        title: of the plot.

    Returns:
        Figure.
    """
    level = np.log10(np.maximum(gradient / gradient.max(), 1e-4))
    sheet = Figure(figsize=(6.2, 5.2), layout="constrained")
    axes = sheet.subplots()
    shown = axes.imshow(level, cmap="magma", vmin=-4, vmax=0, extent=(0, gradient.shape[1], gradient.shape[0], 0))
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="cyan", linewidth=1.6))
    bar = sheet.colorbar(shown, ax=axes, ticks=[-4, -3, -2, -1, 0], shrink=0.85)
    bar.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1"])
    bar.set_label("mean |gradient|, of its maximum")
    axes.set(title=title, xlabel="pixels", ylabel="pixels")
    return sheet


def layer_table(network):
    """What the layers of a backbone are, for `Page.table`.

    Args:
        network: functional Keras model of convolutions, normalisations, activations and poolings.

    Returns:
        (header, rows): kind, kernel, output channels, stride and parameters of each convolution and pooling; what
        follows a convolution (normalisation, ReLU) stands in its row.
    """
    header, rows, stride = ["layer", "kernel", "channels", "followed by", "stride of its output", "parameters"], [], 1
    for layer in network.layers:
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel:
            kernel, step = (value if isinstance(value, int) else value[0] for value in (kernel, layer.strides))
            stride *= step
            size = f"{kernel} × {kernel}"
            rows.append([layer.name, size, int(layer.output.shape[-1]), "", stride, layer.count_params()])
        elif rows:
            rows[-1][3] = ", ".join(filter(None, (rows[-1][3], type(layer).__name__)))
            rows[-1][5] += layer.count_params()
    return header, rows


def _drawn_curves(lines, xlabel, ylabel, title):
    sheet = Figure(figsize=(8.2, 4.3), layout="constrained")
    axes = sheet.subplots()
    for values, look in lines:
        places = np.arange(1, len(values) + 1)
        axes.plot(places, np.asarray(values, np.float64), marker="." if len(values) < 30 else None, **look)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, frameon=False)
    _calm(axes)
    return sheet


def _calm(axes):
    axes.spines[["top", "right"]].set_visible(False)
