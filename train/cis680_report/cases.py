"""Cases that the report of part B selects from the outputs of a network."""

import collections

import numpy as np
from keras import ops

from keras_maskrcnn import evaluation
from keras_maskrcnn.evaluation.matching import overlap_matrix
from keras_maskrcnn.ops import boxes as box_ops

FALSE_POSITIVE = 0.3  # a prediction whose IoU with all objects is lower has no ground truth

# A detection whose proposal covers about half of the object; IoU of its proposal (before) and its box (after).
Half = collections.namedtuple("Half", "sample proposals boxes truth covered before after label score")
FalsePositive = collections.namedtuple("FalsePositive", "sample box label score overlap")


def half_covered(model, dataset):
    """The `Half` whose proposal covers the share of its object nearest to 50 % (35 to 65 %), or None.

    Detections of the right class with an IoU above 0.7 are considered.
    """
    cases = []
    for sample, found in evaluation.predictions(model, dataset, score_threshold=0.5):
        after = overlap_matrix(sample, found, "bbox") * (found["labels"][:, None] == sample["labels"][None])
        before = overlap_matrix(sample, {**found, "boxes": found["proposals"]}, "bbox")
        shared = ops.convert_to_numpy(box_ops.intersection(found["proposals"], sample["boxes"]))
        covered = shared / np.prod(sample["boxes"][:, 2:] - sample["boxes"][:, :2], axis=1)
        good = (after > 0.7) & (np.abs(covered - 0.5) <= 0.15) & ~np.asarray(sample["crowd"], bool)
        for i, j in zip(*np.nonzero(good), strict=True):
            boxes = found["proposals"][i], found["boxes"][i], sample["boxes"][j]
            numbers = (float(part[i, j]) for part in (covered, before, after))
            cases.append(Half(sample, *boxes, *numbers, int(found["labels"][i]), float(found["scores"][i])))
    return min(cases, key=lambda case: abs(case.covered - 0.5), default=None)


def false_positive(model, dataset):
    """The `FalsePositive` of highest score, or None."""
    best = None
    score = model.detection.limits().score_threshold
    for sample, found in evaluation.predictions(model, dataset, score_threshold=score):
        overlap = overlap_matrix(sample, found, "bbox").max(axis=1, initial=0.0)
        for row in np.flatnonzero(overlap < FALSE_POSITIVE)[:1]:  # scores descend
            case = [found["boxes"][row], int(found["labels"][row]), float(found["scores"][row]), float(overlap[row])]
            if best is None or case[2] > best.score:
                best = FalsePositive(sample, *case)
    return best
