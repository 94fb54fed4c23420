"""Differences between the results of both sides, and their bars. Needs NumPy only.

Every measure is a row (name, value, bar, good); `good` is whether the value meets the bar.
"""

import typing

import numpy as np

LEVELS = ("P2", "P3", "P4", "P5", "P6", "P7")
DENSE = (*LEVELS, "rpn_logits", "rpn_deltas", "class_logits", "box_deltas", "mask_logits", "keypoint_logits")
DENSE += ("coefficients", "prototypes", "semantic_logits")

BOX_BAR, SCORE_BAR = 0.05, 1e-4  # pixels of the image, probability
# Errors of float32 that exceed the bar in torch's own runs may be this many times as large here: the largest of
# six runs is exceeded by one run in seven that has the same distribution.
MARGIN = 2
POINT_BAR = 0.1  # pixels of the image
# A constant added to a heat map does not change its softmax: this gradient is zero but for rounding.
ZERO_GRADIENT = "roi_heads.keypoint_predictor.kps_score_lowres.bias"


class Row(typing.NamedTuple):
    """One line of the table."""

    name: str
    value: float
    bar: float
    good: bool


def at_most(name, value, bar):
    """A value that must not exceed its bar; NaN does."""
    return Row(name, float(value), bar, bool(value <= bar))


def at_least(name, value, bar):
    """A value that must reach its bar."""
    return Row(name, float(value), bar, bool(value >= bar))


def bar(own, usual=1e-3):
    """The bar for a measure in which rounding causes errors of up to `own` in torch itself."""
    return max(usual, MARGIN * own)


def relative(found, wanted):
    """‖found - wanted‖ / ‖wanted‖; 0 if both are zero, inf if the shapes differ."""
    found, wanted = np.asarray(found, "float64"), np.asarray(wanted, "float64")
    if found.shape != wanted.shape:
        return np.inf
    error, size = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
    return error / size if size else (np.inf if error else 0.0)


def picture_rows(found, wanted):
    """Rows of one image, from the arrays of both sides."""
    dense = [at_most(name, relative(found[name], wanted[name]), 1e-4) for name in DENSE if name in wanted]
    pairs = partners(found, wanted)
    proposals = proposal_rows(found["proposals"], wanted["proposals"]) if "proposals" in wanted else []
    rows = [*dense, *proposals, *detection_rows(found, wanted, pairs)]
    return [*rows, *keypoint_rows(found, wanted, pairs)] if "keypoints" in wanted else rows


def proposal_rows(found, wanted):
    """Numbers of proposals without a partner within 0.05 pixels on the other side, and at another position.

    The overlap of some of half a million pairs is so near to the NMS threshold that the last bit of a float32 decides.
    Therefore one proposal in a thousand may differ; positions are only counted.
    """
    near = np.abs(found[:, None] - wanted[None]).max(axis=2) <= BOX_BAR
    alone = max((~near.any(axis=0)).sum(), (~near.any(axis=1)).sum())
    same_place = min(len(found), len(wanted))
    moved = (~near.diagonal()[:same_place]).sum()
    return [
        at_most("proposals without a partner", alone, len(wanted) // 1000 + 1),
        at_most("proposals at another place", moved, np.inf),
    ]


def detection_rows(found, wanted, pairs):
    """Detections: each one must have a partner on the other side.

    Partners have the same label, and boxes and scores within the bars. Scores are in descending order on both sides, so
    the scores of partners at different positions differ by less than the bar; they are counted. So are masks whose
    boxes torchvision truncates to other whole pixels, as with 159.9999 and 160.0001: they are shifted by a pixel.
    YOLACT's masks cover the canvas, and are not placed by their boxes.
    """
    count = max(len(found["scores"]), len(wanted["scores"]))
    rows = [at_most("detections without a partner", count - len(pairs), 0)]
    if not pairs:
        return rows
    mine, theirs = np.array(pairs).T
    boxes, wanted_boxes = found["boxes"][mine], wanted["boxes"][theirs]
    rows = [
        *rows,
        at_most("detections at another place, scores alike", (mine != theirs).sum(), np.inf),
        at_most("detections: box, pixels", np.abs(boxes - wanted_boxes).max(), BOX_BAR),
        at_most("detections: score", np.abs(found["scores"][mine] - wanted["scores"][theirs]).max(), SCORE_BAR),
    ]
    if "masks" not in wanted:
        return rows
    moved = (whole_pixels(boxes) != whole_pixels(wanted_boxes)).any(axis=1) & ("prototypes" not in wanted)
    ious = [1.0] + [mask_overlap(found["masks"][i], wanted["masks"][j]) for i, j in np.array(pairs)[~moved]]
    return [
        *rows,
        at_most("detections cut to other whole pixels", moved.sum(), count // 50 + 1),
        at_least("detections: lowest mask IoU of the others, a single pixel forgiven", min(ious), 0.995),
    ]


def keypoint_rows(found, wanted, pairs):
    """Keypoints of partners: places within `POINT_BAR`, and scores.

    A heat map has hundreds of values per cell after its enlargement to pixels. Where the two largest differ in the last
    bits of a float32, rounding decides which pixel is taken: one keypoint in two hundred may differ in its place, but
    none in its score.
    """
    if not pairs:
        return []
    mine, theirs = np.array(pairs).T
    points, wanted_points = found["keypoints"][mine], wanted["keypoints"][theirs]
    apart = np.abs(points[..., :2] - wanted_points[..., :2]).max(axis=-1)
    scores = found["keypoint_scores"][mine] - wanted["keypoint_scores"][theirs]
    near = apart[apart <= POINT_BAR]
    return [
        at_most(f"keypoints, of {apart.size}, that take another pixel", (apart > POINT_BAR).sum(), apart.size // 200),
        at_most("keypoints: places of the others, pixels", near.max(initial=0), POINT_BAR),
        at_most(
            "keypoints: score, relative to the largest",
            np.abs(scores).max() / np.abs(wanted["keypoint_scores"]).max(),
            1e-4,
        ),
        at_most("keypoints: visibility", np.abs(points[..., 2] - wanted_points[..., 2]).max(), 0),
    ]


def whole_pixels(boxes):
    """Corners at which torchvision pastes a mask of 28×28 cells (`expand_boxes` in models/detection/roi_heads.py)."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (30 / 28)
    return np.concatenate([centre - half, centre + half], axis=1).astype("int64")


def partners(found, wanted):
    """Pairs (row of `found`, row of `wanted`): same label, boxes and scores within the bars, nearest position first."""
    free, pairs = list(range(len(found["scores"]))), []
    for j in range(len(wanted["scores"])):
        good = [i for i in sorted(free, key=lambda i: abs(i - j)) if _alike(found, i, wanted, j)]
        if good:
            free.remove(good[0])
            pairs.append((good[0], j))
    return pairs


def _alike(found, i, wanted, j):
    return (
        found["labels"][i] == wanted["labels"][j]
        and abs(found["scores"][i] - wanted["scores"][j]) <= SCORE_BAR
        and np.abs(found["boxes"][i] - wanted["boxes"][j]).max() <= BOX_BAR
    )


def mask_overlap(first, second):
    """IoU of two masks; 1 if at most one pixel differs, which would be below the bar for a mask of 199 pixels."""
    apart = (first ^ second).sum()
    return 1.0 if apart <= 1 else (first & second).sum() / (first | second).sum()


def loss_rows(found, wanted, names):
    """Rows for the losses before the first step, and for those of all steps.

    Args:
        found: dict of `losses`, `[steps, L]`.
        wanted: the same in float64, and `own_losses`, the largest error that rounding causes in torch itself.
        names: names of the L losses.
    """
    error = np.abs(found["losses"] - wanted["losses"]) / np.abs(wanted["losses"])
    own = float(wanted["own_losses"])
    first = [at_most(f"loss: {name}", e, 1e-4) for name, e in zip(names, error[0], strict=True)]
    return [
        *first,
        at_most(f"losses over {len(error)} steps of SGD", error.max(), bar(own)),
        at_most("  (torch's own, rounded against float64)", own, np.inf),
    ]


def gradient_rows(found, wanted):
    """Errors of the gradients, and the number of variables that only one side trains.

    A ReLU that rounding switches changes the gradients of its block, on either side. The bars are therefore the errors
    that rounding causes in torch itself, times `MARGIN`, where these exceed 1e-3.

    Args:
        found: dict in which "gradient/NAME" are arrays.
        wanted: dict of the same names in float64, and `own_gradients`: the largest median and the largest maximum of
            the errors that rounding causes in torch.
    """
    median, worst = (float(value) for value in wanted["own_gradients"])
    mine, theirs = ({name for name in arrays if name.startswith("gradient/")} for arrays in (found, wanted))
    mine, theirs = (names - {f"gradient/{ZERO_GRADIENT}"} for names in (mine, theirs))
    errors = {name: relative(found[name], wanted[name]) for name in mine & theirs}
    most = max(errors, key=errors.get)
    return [
        at_most("variables that one side alone trains", len(mine ^ theirs), 0),
        at_most(f"gradients of {len(errors)} variables, median", np.median(list(errors.values())), bar(median)),
        at_most("  (torch's own, rounded against float64)", median, np.inf),
        at_most("gradients, worst", errors[most], bar(worst)),
        at_most(f"  (that of {most.removeprefix('gradient/')})", errors[most], np.inf),
        at_most("  (torch's own)", worst, np.inf),
    ]


def table(title, rows):
    """Rows as text."""
    lines = [f"{title}"]
    for row in rows:
        sign = " " if row.bar == np.inf else ("≤" if "IoU" not in row.name else "≥")
        bar = "counted only" if row.bar == np.inf else f"{sign} {row.bar:g}"
        lines.append(f"  {row.name:<72} {row.value:<12.4g} {bar:<14} {'' if row.good else 'MISSED'}")
    return "\n".join(lines)
