"""What is right and wrong in each image, in figures and in words."""

import numpy as np

from keras_maskrcnn.evaluation.errors import ERRORS, IGNORED, RIGHT, image_errors
from keras_maskrcnn.evaluation.report import rates

NAMED = 5  # errors of a type that are named one by one
WORDS = {
    "missed": "missed",
    "classification": "wrong class",
    "localisation": "badly placed",
    "both": "wrong class and place",
    "duplicate": "duplicate",
    "background": "on background",
}


def per_image(found, kind=None, iou=0.5, score_threshold=0.5):
    """Scores and errors of each image at one score threshold.

    Args:
        found: `Collected`.
        kind: "segm" or "bbox"; None takes masks if there are any.
        iou: minimum intersection over union of a match, 0..1.
        score_threshold: detections that score higher than this are counted.

    Returns:
        list of dicts, one per image: `image` (its source), `image_id`; `precision`, `recall`, `f1`, `true_positives`,
        `false_positives`, `false_negatives`; `errors`: {type: count}, see `evaluation.errors`; `wrong`: the errors in
        words, such as "2 missed: person (area 54 px), …; 1 duplicate: person (score 0.71)", empty without errors.
    """
    rows = []
    for image in (image.above(score_threshold) for image in found.images(found.checked_kind(kind))):
        errors = image_errors(image, iou, min(0.1, iou / 2))
        right = np.count_nonzero(errors.kinds == RIGHT)
        detected = np.count_nonzero(errors.kinds != IGNORED)
        counts = {name: int(np.count_nonzero(errors.kinds == name)) for name in ERRORS}
        counts["missed"] = int(errors.missed.sum())
        rows.append(
            {
                "image": image.image["file_name"],
                "image_id": image.image["id"],
                **rates(right, detected, np.count_nonzero(~image.crowd)),
                "errors": counts,
                "wrong": in_words(image, errors, found.class_names),
            }
        )
    return rows


def worst(rows, count):
    """The rows of `per_image` with errors that have the lowest F1, and of equals the most errors."""
    wrong = [row for row in rows if row["false_positives"] or row["false_negatives"]]
    return sorted(wrong, key=lambda row: (row["f1"], -sum(row["errors"].values())))[:count]


def in_words(image, errors, class_names):
    """The errors of one image as text.

    Args:
        image: `matching.ImageResult`.
        errors: its `errors.ImageErrors`.
        class_names: K names.
    """
    groups = {"missed": [_object(image, index, class_names) for index in np.flatnonzero(errors.missed)]}
    for kind in ERRORS[:-1]:
        rows = np.flatnonzero(errors.kinds == kind)
        groups[kind] = [_detection(image, index, errors.partner[index], kind, class_names) for index in rows]
    return "; ".join(
        f"{len(items)} {WORDS[kind]}: {', '.join(items[:NAMED])}{', …' if len(items) > NAMED else ''}"
        for kind, items in groups.items()
        if items
    )


def _object(image, index, class_names):
    return f"{class_names[image.true_labels[index] - 1]} (area {image.objects[index]['area']:.0f} px)"


def _detection(image, index, partner, kind, class_names):
    name, details = class_names[image.labels[index] - 1], [f"score {image.scores[index]:.2f}"]
    if kind in ("localisation", "both"):
        details.append(f"IoU {image.overlaps[index, partner]:.2f}")
    if kind in ("classification", "both"):
        name += f" for {class_names[image.true_labels[partner] - 1]}"
    return f"{name} ({', '.join(details)})"
