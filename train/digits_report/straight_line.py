"""Step 4: stochastic gradient descent against full batches where every number can be followed: a straight line.

The line y = a x + b is fitted to points by minimising the mean of (a x + b - y)² / 2. Its minimum is known from linear
algebra, so that the distance to it can be measured.
"""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from cis680_report.page import Table
from keras_maskrcnn.plots import INK, TINTS

POINTS, LINE, NOISE = 200, (1.5, -0.5), 0.4
START = (-1.0, 1.5)  # a, b of all descents
PASSES = 20  # times that each point is used


@dataclasses.dataclass(frozen=True)
class Descent:
    """How the line is fitted: points per step, learning rate, and whether the rate falls.

    A falling rate is r / (1 + p) after p passes over the points. Its sum over all steps has no limit and the sum of its
    squares has one, the conditions under which the noise of single points averages out (Robbins & Monro 1951).
    """

    name: str
    batch: int
    rate: float
    falling: bool = False


# The mean of x² is about 1/3, so that a full-batch step has a limit of stability of about 2.
DESCENTS = (
    Descent("full batch", POINTS, 0.5),
    Descent("mini-batches of 20", 20, 0.3),
    Descent("single points", 1, 0.1),
    Descent("single points, falling rate", 1, 0.1, falling=True),
)


def points(seed=0):
    """Points around `LINE`: x and y, float64 [POINTS]."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, POINTS)
    return x, LINE[0] * x + LINE[1] + NOISE * rng.standard_normal(POINTS)


def loss(lines, x, y):
    """Loss of lines, float64 [..., 2] of a and b, on points [n]: float64 [...]."""
    lines = np.asarray(lines, np.float64)
    return np.mean((lines[..., :1] * x + lines[..., 1:] - y) ** 2, axis=-1) / 2


def gradient(line, x, y):
    """Gradient of `loss` with respect to a and b: float64 [2]."""
    error = line[0] * x + line[1] - y
    return np.array([np.mean(error * x), np.mean(error)])


def minimum(x, y):
    """The line of the smallest loss: float64 [2]."""
    return np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)[0]


def descend(descent, x, y, passes=PASSES, seed=0):
    """Fits a line; each pass goes through the points in a new order.

    Args:
        descent: `Descent`.
        x: float64 [n].
        y: float64 [n].
        passes: number of passes.
        seed: of the order.

    Returns:
        Lines before and after each step, float64 [steps + 1, 2].
    """
    rng, lines = np.random.default_rng(seed), [np.array(START)]
    for number in range(passes):
        order = rng.permutation(len(x))
        for start in range(0, len(x), descent.batch):
            chosen = order[start : start + descent.batch]
            rate = descent.rate / (1 + number + start / len(x)) if descent.falling else descent.rate
            lines.append(lines[-1] - rate * gradient(lines[-1], x[chosen], y[chosen]))
    return np.array(lines)


def fill(report, folder):
    """Fills step 4, saves its plot in a folder, and returns the figures for JSON."""
    x, y = points()
    best = minimum(x, y)
    paths = {descent.name: descend(descent, x, y) for descent in DESCENTS}
    excess = {name: loss(lines, x, y) - loss(best, x, y) for name, lines in paths.items()}
    figures = {name: _summary(found) for name, found in excess.items()}
    sheet = plot(x, y, best, paths, excess)
    sheet.savefig(folder / "straight_line.png", dpi=110)
    header = ["descent", "steps", "loss above the minimum after one pass", f"mean of pass {PASSES}"]
    report.step(
        4,
        points=len(x),
        passes=PASSES,
        minimum=f"a = {best[0]:.3f}, b = {best[1]:.3f}",
        smallest=float(loss(best, x, y)),
        descents=Table(header, [[name, *_texts(row)] for name, row in figures.items()]),
        paths=sheet,
    )
    return figures


def _summary(excess):
    """Number of steps, and the loss above the minimum after the first pass and on average over the last one."""
    steps = len(excess) - 1
    each = steps // PASSES
    return {"steps": steps, "first_pass": float(excess[each]), "last_pass": float(excess[-each:].mean())}


def _texts(row):
    return row["steps"], f"{row['first_pass']:.2g}", f"{row['last_pass']:.2g}"


def plot(x, y, best, paths, excess):
    """The points with the best line, the loss against the points used, and the paths in the plane of a and b."""
    sheet = Figure(figsize=(16, 4.8), layout="constrained")
    data, losses, plane = sheet.subplots(1, 3)
    data.plot(x, y, ".", color=INK, alpha=0.4)
    data.plot([-1, 1], [best[1] - best[0], best[1] + best[0]], color=TINTS[0], label="minimum")
    data.set(xlabel="x", ylabel="y", title="points and the best line")
    low, high = np.min([START, best], axis=0) - 0.7, np.max([START, best], axis=0) + 0.7
    a, b = np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80))
    plane.contour(a, b, loss(np.stack([a, b], axis=-1), x, y), levels=18, colors=INK, alpha=0.25, linewidths=0.7)
    for order, ((name, lines), tint) in enumerate(zip(paths.items(), TINTS, strict=False)):
        used, many = np.linspace(0, PASSES * len(x), len(lines)), len(lines) > 1000
        # Long, noisy descents are thin and lie behind the others.
        style = {
            "color": tint,
            "linewidth": 0.5 if many else 2.0,
            "alpha": 0.6 if many else 1.0,
            "zorder": 3 - order / 4,
        }
        losses.plot(used[1:], np.maximum(excess[name][1:], 1e-12), label=name, **style)
        plane.plot(*lines.T, marker="." if len(lines) < 50 else None, **style)
    plane.plot(*best, "*", color=INK, markersize=14, zorder=4)
    plane.set(xlabel="a", ylabel="b", title="paths; the star is the minimum")
    losses.set(xscale="log", yscale="log", xlabel="points used", ylabel="loss above the minimum", title="loss")
    losses.set_ylim(bottom=1e-6)
    losses.legend(fontsize=8, frameon=False)
    return sheet
