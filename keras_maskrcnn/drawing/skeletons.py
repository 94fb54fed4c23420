"""Keypoints of objects as points, connected by lines where their names are those of a person's skeleton."""

import numpy as np

from keras_maskrcnn.data.coco_keypoints import LIMBS, NAME, PERSON
from keras_maskrcnn.drawing.labels import SEAM

THRESHOLD = 2.0  # minimum score of a sure keypoint, a logit, as in Detectron's drawings


def skeletons_of(found, threshold=THRESHOLD):
    """What `draw_skeleton` needs for each object of a result of `detect`, or of a sample.

    Args:
        found: detections with `keypoints` [n, K, 3] and `keypoint_scores` [n, K], or a sample with `keypoints`, whose
            third column is the visibility.
        threshold: score above which a keypoint of a detection is sure. Of a sample visible points are sure, hidden ones
            are not, and others are not drawn.

    Returns:
        (points float64 [n, K, 2], drawn bool [n, K], sure bool [n, K], limbs: list of pairs of 0…K-1); None without
        keypoints.
    """
    if found.get(NAME) is None:
        return None
    keypoints = np.asarray(found[NAME], np.float64)
    scores = found.get("keypoint_scores")
    drawn = keypoints[..., 2] > 0
    sure = keypoints[..., 2] > 1 if scores is None else np.asarray(scores) > threshold
    return keypoints[..., :2], drawn, drawn & sure, limbs_of(_names(found, keypoints.shape[1]))


def limbs_of(names):
    """Pairs of indices of the keypoints that a line connects."""
    places = {name.lower(): index for index, name in enumerate(names or ())}
    return [(places[one], places[other]) for one, other in LIMBS if one in places and other in places]


def _names(found, count):
    """Names of the keypoints from the schema of detections or the fields of a sample; COCO's for 17 without names."""
    described = (*getattr(found, "schema", ()), *found.get("fields", ()))
    names = next((part.names for part in described if part.name == NAME and part.names), None)
    return names or (PERSON if count == len(PERSON) else ())


def draw_skeleton(pen, points, drawn, sure, limbs, tint, width):
    """Draws the keypoints of one object: sure ones filled and connected, others as rings.

    Args:
        pen: `PIL.ImageDraw.ImageDraw`.
        points: float [K, 2], x and y in pixels of the drawing.
        drawn: bool [K].
        sure: bool [K].
        limbs: list of pairs of indices.
        tint: colour (r, g, b).
        width: width of the lines in pixels.
    """
    lines = [(*points[one], *points[other]) for one, other in limbs if sure[one] and sure[other]]
    edge = max(1, width // 2)
    for colour, extra in ((SEAM, 2 * edge), (tint, 0)):
        for line in lines:
            pen.line(line, fill=colour, width=width + extra)
    radius = 1.5 * width
    for index in np.flatnonzero(drawn):
        x, y = points[index]
        circle = (x - radius, y - radius, x + radius, y + radius)
        if sure[index]:
            pen.ellipse(circle, fill=tint, outline=SEAM, width=edge)
        else:
            pen.ellipse(circle, outline=SEAM, width=2 * edge + 1)
            pen.ellipse(circle, outline=tint, width=edge)
