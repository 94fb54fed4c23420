"""Pictures for people: detections drawn on an image, truth beside prediction, contact sheets, training curves.

Everything is drawn with NumPy and Pillow; matplotlib only draws `curves`. Line widths and letters follow the size of
the image. Each line carries a dark seam and each name stands on a plate, so that both read on dark and light ground.
"""

import csv
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Colours that people with any colour vision tell apart: M. Okabe and K. Ito, "Color Universal Design" (2008), without
# black, ordered so that neighbours in the list differ most.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178), (213, 94, 0))
SEAM = (24, 24, 24)
PAPER = (245, 245, 245)
PLATES = 0.25  # names may cover this share of a picture; of hundreds of objects the surest get theirs
MINIMUM_SIDE = 512  # saved pictures are enlarged to at least this, or names would cover a 64-pixel image


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

    A name that would hide another, or leave too little of a crowded picture to see, is left out: later objects (lower
    scores, as `detect` sorts them) give way to earlier ones.

    Args:
        image: uint8 [H, W, 3] or grey [H, W]; it is not changed.
        found: what `MaskRCNN.detect` returns, or a sample: `boxes` [n, 4] in pixels, `labels` [n] in 1..K, and where
            there are some `scores` [n] and `masks` [n, H, W]. Crowd regions of a sample bear the word "crowd".
        class_names: K names; without them the label's number is written.
        colour_by: "instance", neighbours in differing colours, or "class".
        opacity: how much of the image a mask's fill hides, 0..1.
        boxes: draw boxes.
        labels: draw names and scores.
        line_width: pixels of a box's line; by default from the image's size.
        font_size: pixels of the letters; by default from the image's size.
        scale: whole factor by which the picture is enlarged before it is drawn on.

    Returns:
        uint8 [H·scale, W·scale, 3].

    Raises:
        ValueError: the image is not uint8 [H, W, 3] or [H, W], or `colour_by` is unknown.
    """
    if colour_by not in ("instance", "class"):
        raise ValueError(f'colour_by must be "instance" or "class", got {colour_by!r}')
    picture = _enlarge(_as_rgb(image), scale).copy()
    count = len(found["labels"])
    keys = range(count) if colour_by == "instance" else [int(label) - 1 for label in found["labels"]]
    colours = [colour(key) for key in keys]
    shortest = min(picture.shape[:2])
    line_width = line_width or max(1, round(shortest / 300))
    font_size = font_size or int(np.clip(shortest / (32 if count <= 25 else 48), 10, 40))
    # From the largest to the smallest, so that no object hides one that lies on it.
    drawn_boxes = np.asarray(found["boxes"], np.float64).reshape(-1, 4)
    areas = np.prod(drawn_boxes[:, 2:] - drawn_boxes[:, :2], axis=1)
    order = np.argsort(-areas, kind="stable")
    if found.get("masks") is not None:
        for index in order:
            _draw_mask(picture, np.asarray(found["masks"][index]), colours[index], opacity, line_width, scale)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    if boxes:
        for index in order:
            _draw_box(pen, drawn_boxes[index] * scale, colours[index], line_width)
    if labels:
        texts = [_text(found, index, class_names) for index in range(count)]
        _draw_labels(pen, canvas.size, texts, drawn_boxes * scale, colours, font_size)
    return np.asarray(canvas)


def side_by_side(image, truth, found, class_names=None, titles=("ground truth", "prediction"), **options):
    """Ground truth on the left, prediction on the right, a title above each.

    Args:
        image: uint8 [H, W, 3].
        truth: a sample, or any dict that `draw` takes.
        found: detections.
        class_names: K names.
        titles: the two titles.
        **options: as for `draw`; a small image is enlarged unless `scale` says otherwise.

    Returns:
        uint8 [h, w, 3].
    """
    options.setdefault("scale", fitting_scale(image))
    panels = [draw(image, part, class_names, **options) for part in (truth, found)]
    size = int(np.clip(min(panels[0].shape[:2]) / 24, 12, 32))
    return grid([_titled(panel, title, size) for panel, title in zip(panels, titles, strict=True)], columns=2)


def save(path, image, found, class_names=None, **options):
    """Draws and writes a picture file; its folder is made. A small image is enlarged unless `scale` says otherwise.

    Args:
        path: file to write, its ending chooses the format.
        image: uint8 [H, W, 3].
        found: detections or a sample.
        class_names: K names.
        **options: as for `draw`.

    Returns:
        pathlib.Path of the file.
    """
    options.setdefault("scale", fitting_scale(image))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(image, found, class_names, **options)).save(path)
    return path


def grid(images, columns=None, gap=8):
    """A contact sheet: pictures of any sizes in equal cells, each in the middle of its cell.

    Args:
        images: list of uint8 [h, w, 3] or [h, w].
        columns: pictures in a row; by default a sheet about as wide as high.
        gap: pixels between cells.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: there is no picture.
    """
    if not len(images):
        raise ValueError("a contact sheet needs at least one picture")
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


def curves(history, path):
    """Plots losses and COCO figures over epochs into a picture file.

    Args:
        history: dict of lists (as `History.history`), or the path of a CSVLogger file.
        path: file to write, its ending chooses the format.

    Returns:
        pathlib.Path of the file.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no state shared between calls

    columns = history if isinstance(history, dict) else _read_csv(history)
    panels = {
        "loss": [name for name in columns if name.endswith("loss")],
        "COCO figures": [name for name in columns if name.endswith(("_AP", "_AP50", "_AP75"))],
    }
    sheet = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, (title, names) in zip(sheet.subplots(1, 2), panels.items(), strict=True):
        _plot(axes, {name: np.asarray(columns[name], np.float64) for name in names})
        axes.set(xlabel="epoch", title=title)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=110)
    return path


def colour(index):
    """The colour of the index-th object or class: the palette, then the same hues darker and lighter, as (r, g, b)."""
    hue = np.array(PALETTE[index % len(PALETTE)], np.float64)
    shade = (index // len(PALETTE)) % 3
    if shade == 1:
        hue = hue * 0.62
    elif shade == 2:
        hue = hue + (255 - hue) * 0.5
    return tuple(round(channel) for channel in hue)


def fitting_scale(image):
    """The whole factor that makes the longer side of a small image about `MINIMUM_SIDE` pixels, 1 for all others."""
    return max(1, round(MINIMUM_SIDE / max(np.shape(image)[:2])))


def _plot(axes, columns):
    """Draws one line a column; training and validation of the same value share a colour, validation is dashed."""
    tints = [tint for tint in PALETTE if tint != (240, 228, 66)]  # yellow does not show on white
    names = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
    for name, values in columns.items():
        trained = name.removeprefix("val_")
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            linestyle="--" if name != trained and trained in columns else "-",
            marker="." if len(values) < 30 else None,
            color=np.array(tints[names.index(trained) % len(tints)]) / 255,
            label=name,
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if columns:
        axes.legend(fontsize=8)


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


def _draw_mask(picture, mask, tint, opacity, line_width, scale):
    """Blends a mask's fill into `picture` and draws its outline, within the mask's own rectangle only."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    area = _enlarge(mask[top:bottom, left:right], scale)
    view = picture[top * scale : bottom * scale, left * scale : right * scale]
    view[area] = (view[area] * (1 - opacity) + np.array(tint) * opacity).astype(np.uint8)
    edge = area & ~_eroded(area, line_width)
    view[edge] = tint


def _eroded(mask, pixels):
    """The mask less `pixels` at its edge; outside the rectangle counts as outside the mask."""
    inner = np.pad(mask, 1)
    for _ in range(pixels):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return inner[1:-1, 1:-1]


def _draw_box(pen, box, tint, line_width):
    """A box of one colour between two dark seams, so that it shows on ground of the same colour."""
    x1, y1, x2, y2 = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    seam = max(1, line_width // 2)
    pen.rectangle((x1 - seam, y1 - seam, x2 + seam, y2 + seam), outline=SEAM, width=line_width + 2 * seam)
    pen.rectangle((x1, y1, x2, y2), outline=tint, width=line_width)


def _text(found, index, class_names):
    label = int(found["labels"][index])
    name = class_names[label - 1] if class_names and 0 < label <= len(class_names) else str(label)
    if "scores" in found:
        return f"{name} {float(found['scores'][index]):.2f}"
    return f"{name} (crowd)" if "crowd" in found and found["crowd"][index] else name


def _draw_labels(pen, frame, texts, boxes, tints, size):
    """Writes each text on a plate near its box, as long as there is room for plates."""
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
    """Rectangles [8, 4] for a plate, the best first, moved into the frame: above, within, below, at either side."""
    x1, y1, x2, y2 = box
    lefts = [x1, x1, x1, x2 - width, x2 - width, x2 - width, x2, x1 - width]
    tops = [y1 - height, y1, y2, y1 - height, y2 - height, y2, y1, y1]
    left = np.clip(lefts, 0, max(frame[0] - 1 - width, 0))
    top = np.clip(tops, 0, max(frame[1] - 1 - height, 0))
    return np.round(np.stack([left, top, left + width, top + height], axis=1))


def _free_place(places, placed):
    """The first place that overlaps no plate, else the one that overlaps least, and that overlap in pixels."""
    low = np.maximum(places[:, None, :2], placed[None, :, :2])
    high = np.minimum(places[:, None, 2:], placed[None, :, 2:])
    hidden = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return places[hidden.argmin()], hidden.min()


def _ink(tint):
    """Black or white, whichever has the higher contrast on a colour (relative luminance as in WCAG 2.1)."""
    linear = (np.array(tint) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


def _titled(panel, title, size):
    """A picture with a strip above it that bears a title."""
    font = ImageFont.load_default(size=size)
    strip = Image.new("RGB", (panel.shape[1], round(size * 1.6)), PAPER)
    ImageDraw.Draw(strip).text((size // 3, size * 0.2), title, fill=SEAM, font=font)
    return np.concatenate([np.asarray(strip), panel])
