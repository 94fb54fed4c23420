"""Labels of drawn objects: a text on a plate near its box, placed so that it hides no other label."""

import numpy as np
from PIL import ImageFont

from keras_maskrcnn.heads.detection import OUTPUTS

PLATES = 0.25  # maximum share of the image under labels; with hundreds of objects the highest scores get a label
SEAM = (24, 24, 24)


def label_text(found, index, class_names=None):
    """Text of an object's label: its class unless there is only one, and the captions of its outputs.

    Args:
        found: `Detections`, or a dict such as a sample; without a schema the outputs of every detector are captioned.
        index: row of the object.
        class_names: K names; None for the number of the class.

    Returns:
        str, empty for an object of the only class without scores and other captioned outputs.
    """
    label = int(found["labels"][index])
    name = class_names[label - 1] if class_names and 0 < label <= len(class_names) else str(label)
    name = "" if class_names and len(class_names) == label == 1 else name
    if "crowd" in found and found["crowd"][index]:
        return f"{name} (crowd)" if name else "crowd"
    captioned = [output for output in getattr(found, "schema", OUTPUTS) if output.caption and output.name in found]
    values = (np.asarray(found[output.name][index]).tolist() for output in captioned)
    return " ".join(
        [
            *([name] if name else []),
            *(output.caption.format(value) for output, value in zip(captioned, values, strict=True)),
        ]
    )


def draw_labels(pen, frame, texts, boxes, tints, size):
    """Draws each text that is not empty on a plate near its box, until plates cover the share `PLATES` of the frame."""
    font = ImageFont.load_default(size=size)
    pad = max(1, size // 6)
    ascent, descent = font.getmetrics()
    room = PLATES * frame[0] * frame[1]
    placed, covered = np.zeros((0, 4)), 0
    for text, box, tint in zip(texts, boxes, tints, strict=True):
        if not text:
            continue
        width, height = font.getlength(text) + 2 * pad, ascent + descent + pad
        plate, hidden = _free_place(_places(box, width, height, frame), placed)
        area = (width + 1) * (height + 1)  # Pillow draws the last row and column of a rectangle too
        if len(placed) and (hidden > 0.2 * area or covered + area > room):
            continue
        covered += area
        placed = np.concatenate([placed, plate[None]])
        pen.rectangle(tuple(plate), fill=tint, outline=SEAM)
        pen.text((plate[0] + pad, plate[1] + pad / 2), text, fill=_ink(tint), font=font)


def _places(box, width, height, frame):
    """Candidate rectangles [8, 4] of a plate in order of preference, clipped to the frame."""
    x1, y1, x2, y2 = box
    lefts = [x1, x1, x1, x2 - width, x2 - width, x2 - width, x2, x1 - width]
    tops = [y1 - height, y1, y2, y1 - height, y2 - height, y2, y1, y1]
    left = np.clip(lefts, 0, max(frame[0] - 1 - width, 0))
    top = np.clip(tops, 0, max(frame[1] - 1 - height, 0))
    return np.round(np.stack([left, top, left + width, top + height], axis=1))


def _free_place(places, placed):
    """The place with the smallest overlap with existing plates (the first of equals), and that overlap in pixels."""
    low = np.maximum(places[:, None, :2], placed[None, :, :2])
    high = np.minimum(places[:, None, 2:], placed[None, :, 2:])
    hidden = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return places[hidden.argmin()], hidden.min()


def _ink(tint):
    """Black or white, by the higher contrast with a colour (relative luminance as in WCAG 2.1)."""
    linear = (np.array(tint) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)
