"""Drawing on images: detections, ground truth next to predictions, groups of boxes, anchors by role, contact sheets.

Images are drawn with NumPy and Pillow; only `curves` imports matplotlib. Line widths and font sizes follow the size of
the image. Lines have a dark seam, labels have a filled plate, and an object's colour differs from the pixels under it.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from keras_maskrcnn import history as history_file
from keras_maskrcnn.data.cropped_masks import crop_of
from keras_maskrcnn.drawing import skeletons
from keras_maskrcnn.drawing.colours import PALETTE as PALETTE
from keras_maskrcnn.drawing.colours import colour, contrasting
from keras_maskrcnn.drawing.labels import SEAM, draw_labels, label_text
from keras_maskrcnn.drawing.panoptic import draw_panoptic as draw_panoptic
from keras_maskrcnn.drawing.panoptic import draw_semantic
from keras_maskrcnn.drawing.sheets import as_rgb, extent, grid, titled, with_legend

GREEN, BLUE, GREY, PURPLE = (0, 190, 130), (60, 150, 240), (150, 150, 150), (204, 121, 167)
YELLOW, CYAN, WHITE = (255, 221, 0), (0, 220, 235), (255, 255, 255)
MINIMUM_SIDE = 512  # small images are enlarged to about this side: labels would cover a 64-pixel image
MATCHED = 0.5  # minimum IoU of a detection and an object of the ground truth that get the same colour


def draw(
    image: np.ndarray,
    found: Mapping,
    class_names: Sequence[str] | None = None,
    colour_by: str = "instance",
    opacity: float = 0.4,
    boxes: bool = True,
    labels: bool = True,
    line_width: float | None = None,
    font_size: float | None = None,
    scale: int = 1,
    keypoint_threshold: float = skeletons.THRESHOLD,
) -> np.ndarray:
    """Draws objects on an image: filled and outlined masks, boxes, skeletons, and names with scores.

    A label is omitted if it would hide another one, or if labels would cover more than `labels.PLATES` of the image.
    Earlier objects (higher scores, as `detect` sorts them) take precedence. If there is only one class, labels have no
    name.

    Args:
        image: uint8 [H, W, 3], or of other channels or 16 bits, see `drawing.sheets.as_rgb`; it is not changed.
        found: result of `MaskRCNN.detect`, or a sample: `boxes` [n, 4] in pixels, `labels` [n] in 1..K, optionally
            `scores` [n], `masks` [n, H, W] and `keypoints` [n, K, 3], see `drawing.skeletons`. Crowd regions of a
            sample are labelled "crowd". Outputs with a caption in the schema of the detections are added to the label.
            Of a model without objects, the regions of `semantic` [H, W] are drawn, see `draw_semantic`.
        class_names: K names; by default the number of the label is drawn.
        colour_by: "instance" (objects differ from each other and from the pixels under them), "class" (each class has
            the same colour in all images), or a list of n colours (r, g, b).
        opacity: opacity of the mask fill, 0..1.
        boxes: draw boxes.
        labels: draw names and scores.
        line_width: line width of boxes in pixels; by default from the size of the image.
        font_size: font size in pixels; by default from the size of the image.
        scale: integer factor by which the image is enlarged before drawing.
        keypoint_threshold: keypoints that score higher are filled and connected, others are rings.

    Returns:
        uint8 [H·scale, W·scale, 3].

    Raises:
        ValueError: the image cannot be shown, or `colour_by` is unknown.
    """
    if "boxes" not in found:
        return draw_semantic(image, found["semantic"], class_names, opacity=opacity, labels=labels, scale=scale)
    image = as_rgb(image)
    colours = _colours(image, found, colour_by)
    pixels = _enlarge(image, scale).copy()
    count, side = len(found["labels"]), extent(pixels)
    line_width = line_width or max(1, round(side / 300))
    font_size = font_size or max(10, int(side / (32 if count <= 25 else 48)))
    # From the largest to the smallest, so that no object hides a smaller one.
    drawn_boxes = np.asarray(found["boxes"], np.float64).reshape(-1, 4)
    areas = np.prod(drawn_boxes[:, 2:] - drawn_boxes[:, :2], axis=1)
    order = np.argsort(-areas, kind="stable")
    if found.get("masks") is not None:
        for index in order:
            _draw_mask(pixels, crop_of(found["masks"], index), colours[index], opacity, line_width, scale)
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    if boxes:
        for index in order:
            _draw_box(pen, drawn_boxes[index] * scale, colours[index], line_width)
    parts = skeletons.skeletons_of(found, keypoint_threshold)
    for index in order if parts else ():
        points, drawn, sure, limbs = parts
        width = max(1, round(1.5 * line_width))
        skeletons.draw_skeleton(pen, points[index] * scale, drawn[index], sure[index], limbs, colours[index], width)
    if labels:
        texts = [label_text(found, index, class_names) for index in range(count)]
        draw_labels(pen, canvas.size, texts, drawn_boxes * scale, colours, font_size)
    return np.asarray(canvas)


def side_by_side(
    image: np.ndarray,
    truth: Mapping,
    found: Mapping,
    class_names: Sequence[str] | None = None,
    titles=("ground truth", "prediction"),
    **options,
) -> np.ndarray:
    """Draws ground truth (left) next to predictions (right), with a title above each.

    An object and the detection that overlaps it most, by an IoU of boxes of at least `MATCHED`, have the same colour.
    Detections without such an object have further colours. Next to a map without objects, the sample's map is drawn.

    Args:
        image: as for `draw`.
        truth: a sample, or any dict that `draw` takes.
        found: detections.
        class_names: K names.
        titles: the two titles.
        **options: as for `draw`; `scale` defaults to `fitting_scale(image)`.

    Returns:
        uint8 [h, w, 3].
    """
    options.setdefault("scale", fitting_scale(image))
    if "boxes" not in found:
        truth, class_names = _map_of(truth, class_names)
    sides = [options.pop("colour_by", "instance")] * 2
    if sides[0] == "instance" and "boxes" in truth:
        sides = _paired_colours(as_rgb(image), truth, found)
    panels = [
        draw(image, part, class_names, colour_by=side, **options)
        for part, side in zip((truth, found), sides, strict=True)
    ]
    size = max(12, int(extent(panels[0]) / 24))
    return grid([titled(panel, title, size) for panel, title in zip(panels, titles, strict=True)], columns=2)


def _map_of(sample, class_names):
    """The map of a sample alone, and the names of its classes where they are known."""
    field = next((field for field in sample.get("fields", ()) if field.name == "semantic"), None)
    semantic = sample["semantic"]
    if field is None:
        return {"semantic": semantic}, class_names
    names = list(field.class_names[1:]) if field.class_names else class_names
    return {"semantic": np.where(semantic == field.ignore, 0, semantic)}, names


def save(
    path: str | os.PathLike, image: np.ndarray, found: Mapping, class_names: Sequence[str] | None = None, **options
) -> pathlib.Path:
    """Draws objects on an image and writes it to a file; missing folders are created.

    Args:
        path: file to write; the suffix selects the format.
        image: as for `draw`.
        found: detections or a sample.
        class_names: K names.
        **options: as for `draw`; `scale` defaults to `fitting_scale(image)`.

    Returns:
        pathlib.Path of the file.

    Example:
        >>> from keras_maskrcnn import data, visualize
        >>> shapes = data.Shapes(1)
        >>> visualize.save("drawn/shapes.png", shapes[0]["image"], shapes[0], shapes.class_names).name
        'shapes.png'
    """
    options.setdefault("scale", fitting_scale(image))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(image, found, class_names, **options)).save(path)
    return path


def outline(image, groups, scale=None):
    """Draws groups of boxes or points, one colour per group, with a legend below the image.

    Args:
        image: as for `draw`.
        groups: list of (name, marks, colour, width), drawn in this order. `marks` are boxes [n, 4] or points [n, 2] as
            (x, y), in image pixels; `width` is the line width or the radius, in pixels of the result. Thin lines (1)
            and small points (below 5) have no seam. A group with an empty name is not in the legend.
        scale: integer factor by which the image is enlarged; by default `fitting_scale(image)`.

    Returns:
        uint8 [H·scale + height of the legend, W·scale, 3].
    """
    scale = scale or fitting_scale(image)
    canvas = Image.fromarray(_enlarge(as_rgb(image), scale))
    pen = ImageDraw.Draw(canvas)
    for _, marks, tint, width in groups:
        marks = np.atleast_2d(np.asarray(marks, np.float64)) * scale
        for mark in marks if marks.size else ():
            if len(mark) == 4:
                _draw_box(pen, mark, tint, width, seam=width > 1)
            else:
                pen.ellipse((*(mark - width), *(mark + width)), fill=tint, outline=SEAM if width >= 5 else tint)
    names = {name: tint for name, _, tint, _ in groups if name}
    return with_legend(np.asarray(canvas), names) if names else np.asarray(canvas)


def anchor_roles(image, anchors, role, crossing, boxes):
    """Draws the centre of each anchor in the colour of its role, and the boxes of positive anchors.

    Args:
        image: as for `draw`.
        anchors: float [A, 4] in image pixels.
        role: int [A]: 1 positive, 0 negative, -1 ignored.
        crossing: bool [A]: the anchor extends beyond the image and has the role -1.
        boxes: float [n, 4], ground truth.

    Returns:
        uint8 [h, w, 3], enlarged at least twice, with the number of anchors of each role in the legend.
    """
    scale = max(2, fitting_scale(image))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    roles = (
        ("crosses the border", crossing, PURPLE, 1.5),
        ("ignored", (role == -1) & ~crossing, GREY, 1.5),
        ("negative", role == 0, BLUE, 1.5),
        ("positive", role == 1, GREEN, 2.5),
    )
    groups = [("object", boxes, YELLOW, 2), ("", anchors[role == 1], GREEN, 1)]
    groups += [
        (f"{name} ({chosen.sum()})", centres[chosen], tint, radius * scale) for name, chosen, tint, radius in roles
    ]
    return outline(image, groups, scale)


def curves(history, path):
    """Plots losses and COCO scores over epochs and writes the plot to a file.

    Validation losses are dashed lines next to those of training; of the scores, those of masks are dashed.

    Args:
        history: dict of lists (as `History.history`), or path of a CSVLogger file.
        path: file to write; the suffix selects the format.

    Returns:
        pathlib.Path of the file.
    """
    from keras_maskrcnn import plots

    columns = history if isinstance(history, dict) else history_file.read(history)
    losses = {name: values for name, values in columns.items() if name.endswith("loss")}
    scores = {name: values for name, values in columns.items() if name.endswith(("_AP", "_AP50", "_AP75", "mean_IoU"))}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.curves({"loss": losses, "COCO scores": scores}).savefig(path, dpi=110)
    return path


def fitting_scale(image):
    """Integer factor that enlarges the longer side of a small image to about `MINIMUM_SIDE` pixels; 1 for others."""
    return max(1, round(MINIMUM_SIDE / max(np.shape(image)[:2])))


def _colours(image, found, colour_by):
    if isinstance(colour_by, str):
        if colour_by == "instance":
            return contrasting(image, found)
        if colour_by == "class":
            return [colour(int(label) - 1) for label in found["labels"]]
        raise ValueError(f'colour_by must be "instance", "class" or a list of colours, got {colour_by!r}')
    return list(colour_by)


def _paired_colours(image, truth, found):
    """Colours of ground truth and of detections; matched ones are equal. Pairs are made in the order of their IoU."""
    first = contrasting(image, truth)
    overlap = _iou(truth["boxes"], found["boxes"])
    partner = {}
    for flat in np.argsort(-overlap, axis=None, kind="stable")[: np.count_nonzero(overlap >= MATCHED)]:
        own, other = np.unravel_index(flat, overlap.shape)
        if other not in partner and own not in partner.values():
            partner[int(other)] = int(own)
    alone = [index for index in range(len(found["boxes"])) if index not in partner]
    rest = {name: np.asarray(found[name])[alone] for name in ("boxes", "masks") if found.get(name) is not None}
    further = iter(contrasting(image, rest, taken=first))
    return first, [first[partner[index]] if index in partner else next(further) for index in range(len(found["boxes"]))]


def _iou(boxes, others):
    """IoU float64 [n, m] of boxes [n, 4] and [m, 4]."""
    boxes, others = (np.asarray(each, np.float64).reshape(-1, 4) for each in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    area, other_area = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others))
    return both / np.maximum(area[:, None] + other_area[None] - both, 1e-9)


def _enlarge(array, scale):
    return array if scale == 1 else array.repeat(scale, axis=0).repeat(scale, axis=1)


def _draw_mask(pixels, crop, tint, opacity, line_width, scale):
    """Blends the fill of a mask, a `data.cropped_masks.Crop`, into `pixels` and draws its outline."""
    left, top, right, bottom = (edge * scale for edge in crop.box)
    area = _enlarge(crop.mask, scale)
    view = pixels[top:bottom, left:right]
    view[area] = (view[area] * (1 - opacity) + np.array(tint) * opacity).astype(np.uint8)
    edge = area & ~_eroded(area, line_width)
    view[edge] = tint


def _eroded(mask, pixels):
    """Erodes a mask by a number of pixels; pixels outside the array count as outside the mask."""
    inner = np.pad(mask, 1)
    for _ in range(pixels):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return inner[1:-1, 1:-1]


def _draw_box(pen, box, tint, line_width, seam=True):
    """Draws a box, by default between two dark seams, so that it is visible on a background of the same colour."""
    x1, y1, x2, y2 = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    if seam:
        edge = max(1, line_width // 2)
        pen.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=SEAM, width=line_width + 2 * edge)
    pen.rectangle((x1, y1, x2, y2), outline=tint, width=line_width)
