"""Drawing on images: detections, ground truth next to predictions, groups of boxes, anchors by role, contact sheets.

Images are drawn with NumPy and Pillow; only `curves` imports matplotlib. Line widths and font sizes follow the size of
the image. Lines have a dark seam and labels a filled plate, so that both are visible on dark and light images.
"""

import csv
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_maskrcnn.heads.detection import OUTPUTS

# Colours that are distinct under any colour vision: M. Okabe and K. Ito, "Color Universal Design" (2008), without
# black, ordered so that neighbours in the list differ most.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178), (213, 94, 0))
SEAM = (24, 24, 24)
PAPER = (245, 245, 245)
GREEN, BLUE, GREY, PURPLE = (0, 190, 130), (60, 150, 240), (150, 150, 150), (204, 121, 167)
YELLOW, CYAN, WHITE = (255, 221, 0), (0, 220, 235), (255, 255, 255)
PLATES = 0.25  # maximum share of the image under labels; with hundreds of objects the highest scores get a label
MINIMUM_SIDE = 512  # small images are enlarged to about this side: labels would cover a 64-pixel image


def draw(
    image,
    found,
    class_names=None,
    colour_by="instance",
    opacity=0.4,
    boxes=True,
    labels=True,
    line_width=None,
    font_size=None,
    scale=1,
):
    """Draws objects on an image: filled and outlined masks, boxes, and names with scores.

    A label is omitted if it would hide another one, or if labels would cover more than `PLATES` of the image. Earlier
    objects (higher scores, as `detect` sorts them) take precedence.

    Args:
        image: uint8 [H, W, 3] or greyscale [H, W]; it is not changed.
        found: result of `MaskRCNN.detect`, or a sample: `boxes` [n, 4] in pixels, `labels` [n] in 1..K, optionally
            `scores` [n] and `masks` [n, H, W]. Crowd regions of a sample are labelled "crowd". Outputs with a caption
            in the schema of the detections are added to the label.
        class_names: K names; by default the number of the label is drawn.
        colour_by: "instance" (consecutive objects differ) or "class".
        opacity: opacity of the mask fill, 0..1.
        boxes: draw boxes.
        labels: draw names and scores.
        line_width: line width of boxes in pixels; by default from the size of the image.
        font_size: font size in pixels; by default from the size of the image.
        scale: integer factor by which the image is enlarged before drawing.

    Returns:
        uint8 [H·scale, W·scale, 3].

    Raises:
        ValueError: the image is not uint8 [H, W, 3] or [H, W], or `colour_by` is unknown.
    """
    if colour_by not in ("instance", "class"):
        raise ValueError(f'colour_by must be "instance" or "class", got {colour_by!r}')
    pixels = _enlarge(_as_rgb(image), scale).copy()
    count = len(found["labels"])
    keys = range(count) if colour_by == "instance" else [int(label) - 1 for label in found["labels"]]
    colours = [colour(key) for key in keys]
    shortest = min(pixels.shape[:2])
    line_width = line_width or max(1, round(shortest / 300))
    font_size = font_size or int(np.clip(shortest / (32 if count <= 25 else 48), 10, 40))
    # From the largest to the smallest, so that no object hides a smaller one.
    drawn_boxes = np.asarray(found["boxes"], np.float64).reshape(-1, 4)
    areas = np.prod(drawn_boxes[:, 2:] - drawn_boxes[:, :2], axis=1)
    order = np.argsort(-areas, kind="stable")
    if found.get("masks") is not None:
        for index in order:
            _draw_mask(pixels, np.asarray(found["masks"][index]), colours[index], opacity, line_width, scale)
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    if boxes:
        for index in order:
            _draw_box(pen, drawn_boxes[index] * scale, colours[index], line_width)
    if labels:
        texts = [_text(found, index, class_names) for index in range(count)]
        _draw_labels(pen, canvas.size, texts, drawn_boxes * scale, colours, font_size)
    return np.asarray(canvas)


def side_by_side(image, truth, found, class_names=None, titles=("ground truth", "prediction"), **options):
    """Draws ground truth (left) next to predictions (right), with a title above each.

    Args:
        image: uint8 [H, W, 3].
        truth: a sample, or any dict that `draw` takes.
        found: detections.
        class_names: K names.
        titles: the two titles.
        **options: as for `draw`; `scale` defaults to `fitting_scale(image)`.

    Returns:
        uint8 [h, w, 3].
    """
    options.setdefault("scale", fitting_scale(image))
    panels = [draw(image, part, class_names, **options) for part in (truth, found)]
    size = int(np.clip(min(panels[0].shape[:2]) / 24, 12, 32))
    return grid([titled(panel, title, size) for panel, title in zip(panels, titles, strict=True)], columns=2)


def save(path, image, found, class_names=None, **options):
    """Draws objects on an image and writes it to a file; missing folders are created.

    Args:
        path: file to write; the suffix selects the format.
        image: uint8 [H, W, 3].
        found: detections or a sample.
        class_names: K names.
        **options: as for `draw`; `scale` defaults to `fitting_scale(image)`.

    Returns:
        pathlib.Path of the file.
    """
    options.setdefault("scale", fitting_scale(image))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(image, found, class_names, **options)).save(path)
    return path


def grid(images, columns=None, gap=8):
    """Arranges images of any size in a grid of equal cells, each centred in its cell.

    Args:
        images: list of uint8 [h, w, 3] or [h, w].
        columns: images per row; by default the square root of their number, rounded up.
        gap: pixels between cells.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: `images` is empty.
    """
    if not len(images):
        raise ValueError("a grid needs at least one image")
    images = [_as_rgb(image) for image in images]
    columns = min(columns or int(np.ceil(np.sqrt(len(images)))), len(images))
    rows = -(-len(images) // columns)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.full(shape, PAPER, np.uint8)
    for index, image in enumerate(images):
        top = (index // columns) * (height + gap) + (height - image.shape[0]) // 2
        left = (index % columns) * (width + gap) + (width - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def titled(image, title, size=16):
    """Adds a strip with a title above an image; an image narrower than its title is padded.

    Args:
        image: uint8 [h, w, 3].
        title: text.
        size: font size in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    font = ImageFont.load_default(size=size)
    missing = max(0, int(np.ceil(font.getlength(title))) + size - image.shape[1])
    image = np.concatenate([image, np.full((len(image), missing, 3), PAPER, np.uint8)], axis=1)
    strip = Image.new("RGB", (image.shape[1], round(size * 1.6)), PAPER)
    ImageDraw.Draw(strip).text((size // 3, size * 0.2), title, fill=SEAM, font=font)
    return np.concatenate([np.asarray(strip), image])


def outline(image, groups, scale=None):
    """Draws groups of boxes or points, one colour per group, with a legend below the image.

    Args:
        image: uint8 [H, W, 3] or [H, W].
        groups: list of (name, marks, colour, width), drawn in this order. `marks` are boxes [n, 4] or points [n, 2] as
            (x, y), in image pixels; `width` is the line width or the radius, in pixels of the result. Thin lines (1)
            and small points (below 5) have no seam. A group with an empty name is not in the legend.
        scale: integer factor by which the image is enlarged; by default `fitting_scale(image)`.

    Returns:
        uint8 [H·scale + height of the legend, W·scale, 3].
    """
    scale = scale or fitting_scale(image)
    canvas = Image.fromarray(_enlarge(_as_rgb(image), scale))
    pen = ImageDraw.Draw(canvas)
    for _, marks, tint, width in groups:
        marks = np.atleast_2d(np.asarray(marks, np.float64)) * scale
        for mark in marks if marks.size else ():
            if len(mark) == 4:
                _draw_box(pen, mark, tint, width, seam=width > 1)
            else:
                pen.ellipse((*(mark - width), *(mark + width)), fill=tint, outline=SEAM if width >= 5 else tint)
    names = {name: tint for name, _, tint, _ in groups if name}
    return _with_legend(np.asarray(canvas), names) if names else np.asarray(canvas)


def anchor_roles(image, anchors, role, crossing, boxes):
    """Draws the centre of each anchor in the colour of its role, and the boxes of positive anchors.

    Args:
        image: uint8 [H, W, 3].
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

    Args:
        history: dict of lists (as `History.history`), or path of a CSVLogger file.
        path: file to write; the suffix selects the format.

    Returns:
        pathlib.Path of the file.
    """
    from keras_maskrcnn import plots

    columns = history if isinstance(history, dict) else _read_csv(history)
    endings = {"loss": "loss", "COCO scores": ("_AP", "_AP50", "_AP75")}
    panels = {title: {k: v for k, v in columns.items() if k.endswith(end)} for title, end in endings.items()}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.curves(panels).savefig(path, dpi=110)
    return path


def colour(index):
    """Colour (r, g, b) of the index-th object or class: the palette, then the same hues darker and lighter."""
    hue = np.array(PALETTE[index % len(PALETTE)], np.float64)
    shade = (index // len(PALETTE)) % 3
    if shade == 1:
        hue = hue * 0.62
    elif shade == 2:
        hue = hue + (255 - hue) * 0.5
    return tuple(round(channel) for channel in hue)


def fitting_scale(image):
    """Integer factor that enlarges the longer side of a small image to about `MINIMUM_SIDE` pixels; 1 for others."""
    return max(1, round(MINIMUM_SIDE / max(np.shape(image)[:2])))


def _read_csv(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else {})}


def _as_rgb(image):
    image = np.asarray(image)
    if image.dtype == np.uint8 and image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}")
    return image


def _enlarge(array, scale):
    return array if scale == 1 else array.repeat(scale, axis=0).repeat(scale, axis=1)


def _draw_mask(pixels, mask, tint, opacity, line_width, scale):
    """Blends the fill of a mask into `pixels` and draws its outline; only the bounding rectangle is processed."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    area = _enlarge(mask[top:bottom, left:right], scale)
    view = pixels[top * scale : bottom * scale, left * scale : right * scale]
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


def _with_legend(image, tints):
    """Adds a strip below an image with a square of each colour and its name, on as many lines as necessary."""
    size = int(np.clip(min(image.shape[:2]) / 26, 12, 20))
    font = ImageFont.load_default(size=size)
    places, x, row = [], size // 2, 0
    for name in tints:
        width = font.getlength(name) + 2.6 * size
        if x > size and x + width > image.shape[1]:
            x, row = size // 2, row + 1
        places.append((x, (row * 1.7 + 0.35) * size))
        x += width
    strip = Image.new("RGB", (image.shape[1], round((row + 1) * 1.7 * size)), PAPER)
    pen = ImageDraw.Draw(strip)
    for (name, tint), (x, y) in zip(tints.items(), places, strict=True):
        pen.rectangle((x, y, x + size, y + size), fill=tint, outline=SEAM)
        pen.text((x + 1.4 * size, y - 0.15 * size), name, fill=SEAM, font=font)
    return np.concatenate([image, np.asarray(strip)])


def _text(found, index, class_names):
    label = int(found["labels"][index])
    name = class_names[label - 1] if class_names and 0 < label <= len(class_names) else str(label)
    if "crowd" in found and found["crowd"][index]:
        return f"{name} (crowd)"
    captioned = [output for output in getattr(found, "schema", OUTPUTS) if output.caption and output.name in found]
    return " ".join([name, *(output.caption.format(float(found[output.name][index])) for output in captioned)])


def _draw_labels(pen, frame, texts, boxes, tints, size):
    """Draws each text on a plate near its box, until the plates cover the share `PLATES` of the frame."""
    font = ImageFont.load_default(size=size)
    pad = max(1, size // 6)
    ascent, descent = font.getmetrics()
    room = PLATES * frame[0] * frame[1]
    placed, covered = np.zeros((0, 4)), 0
    for text, box, tint in zip(texts, boxes, tints, strict=True):
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
