"""The drawings of the report: pictures and boxes in, a uint8 picture out. Nothing here knows a model."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_maskrcnn import visualize

GREEN, BLUE, GREY, PURPLE = (0, 190, 130), (60, 150, 240), (150, 150, 150), (204, 121, 167)
YELLOW, CYAN, WHITE, ORANGE = (255, 221, 0), (0, 220, 235), (255, 255, 255), (240, 140, 0)


def outlined(picture, groups, scale=None, legend=True):
    """Boxes in colours on a picture, with a strip below that says what the colours are.

    Args:
        picture: uint8 [H, W, 3].
        groups: list of (name, boxes [n, 4] in pixels, colour, line width); later ones are drawn over earlier ones.
        scale: whole factor by which the picture is enlarged; None makes a small one about 512 pixels long.
        legend: draw the strip.

    Returns:
        uint8 [h, w, 3].
    """
    scale = scale or visualize.fitting_scale(picture)
    canvas = Image.fromarray(np.asarray(picture).repeat(scale, axis=0).repeat(scale, axis=1))
    pen = ImageDraw.Draw(canvas)
    for _, drawn, colour, width in groups:
        for box in np.asarray(drawn, np.float64).reshape(-1, 4) * scale:
            _box(pen, box, colour, width)
    names = {name: colour for name, _, colour, _ in groups} if legend else {}
    return _with_legend(np.asarray(canvas), names)


def anchor_roles(picture, anchors, roles, crossing, truth):
    """Anchors by what the ground truth makes of them: a dot for each centre, the box too where it is positive.

    Args:
        picture: uint8 [H, W, 3].
        anchors: float [A, 4].
        roles: int [A]: 1 positive, 0 negative, -1 ignored.
        crossing: bool [A]: reaches beyond the picture.
        truth: float [n, 4], the objects' boxes.

    Returns:
        uint8 [h, w, 3].
    """
    positive = (roles == 1) & ~crossing
    kinds = [
        ("crosses the border", crossing, PURPLE, 3),
        ("ignored", (roles == -1) & ~crossing, GREY, 3),
        ("negative", (roles == 0) & ~crossing, BLUE, 3),
        ("positive", positive, GREEN, 5),
    ]
    scale = max(2, visualize.fitting_scale(picture))  # so that hundreds of dots leave something of the picture
    drawn = [("object", truth, YELLOW, 2), ("positive", np.asarray(anchors)[positive], GREEN, 1)]
    canvas = Image.fromarray(outlined(picture, drawn, scale, legend=False))
    pen = ImageDraw.Draw(canvas)
    for _, chosen, colour, radius in kinds:
        for x1, y1, x2, y2 in np.asarray(anchors)[chosen] * scale:
            _dot(pen, (x1 + x2) / 2, (y1 + y2) / 2, radius * scale // 2, colour, seam=colour == GREEN)
    counted = {f"{name} ({int(chosen.sum())})": colour for name, chosen, colour, _ in kinds}
    return _with_legend(np.asarray(canvas), {"object": YELLOW, **counted})


def proposals_by_role(picture, proposals, positive, truth=None, negatives=None):
    """Proposals in colours: positive ones green over negative ones blue, objects yellow.

    Args:
        picture: uint8 [H, W, 3].
        proposals: float [n, 4], best first.
        positive: bool [n].
        truth: float [m, 4] or None.
        negatives: most negative proposals drawn; None draws all.

    Returns:
        uint8 [h, w, 3].
    """
    proposals, positive = np.asarray(proposals).reshape(-1, 4), np.asarray(positive, bool)
    groups = [
        ("negative proposal", proposals[~positive][:negatives], BLUE, 1),
        ("positive proposal", proposals[positive], GREEN, 2),
    ]
    if truth is not None:
        groups.append(("object", truth, YELLOW, 2))
    return outlined(picture, groups, max(2, visualize.fitting_scale(picture)))


def refinement(picture, proposals, refined, truth=None):
    """Proposals (yellow) and the boxes that the second stage made of them (cyan).

    Args:
        picture: uint8 [H, W, 3].
        proposals: float [n, 4].
        refined: float [n, 4].
        truth: float [m, 4], the objects (white), or None.

    Returns:
        uint8 [h, w, 3].
    """
    groups = [("proposal", proposals, YELLOW, 2), ("refined box", refined, CYAN, 2)]
    return outlined(picture, [("object", truth, WHITE, 1), *groups] if truth is not None else groups)


def sample_points(box, bins, samples=2, rng=None):
    """Where RoIAlign reads: samples² points in each of bins² bins.

    Args:
        box: x1, y1, x2, y2.
        bins: P, bins a side.
        samples: S, samples a bin along each axis.
        rng: numpy Generator for uniform places within each bin; None puts them on the regular grid.

    Returns:
        float64 [P², S², 2] as (x, y) in the box's pixels.
    """
    x1, y1, x2, y2 = box
    cell = np.array([(x2 - x1) / bins, (y2 - y1) / bins])
    grid = np.stack(np.meshgrid(np.arange(bins), np.arange(bins)), axis=-1).reshape(-1, 1, 2)
    inside = (np.stack(np.meshgrid(np.arange(samples), np.arange(samples)), axis=-1).reshape(1, -1, 2) + 0.5) / samples
    if rng is not None:
        inside = rng.uniform(size=(bins * bins, samples * samples, 2))
    return np.array([x1, y1]) + (grid + inside) * cell


def sampled_box(picture, box, points, bins, scale=None):
    """A box on a picture with its bins and the points that RoIAlign reads.

    Args:
        picture: uint8 [H, W, 3].
        box: x1, y1, x2, y2 in pixels.
        points: float [..., 2] of `sample_points`.
        bins: P.
        scale: whole factor of enlargement; None chooses one for the box to be about 300 pixels long.

    Returns:
        uint8 [h, w, 3]: the box and a little around it.
    """
    x1, y1, x2, y2 = box
    margin = 0.12 * max(x2 - x1, y2 - y1)
    left, top = (max(0, int(low - margin)) for low in (x1, y1))
    part = picture[top : int(np.ceil(y2 + margin)), left : int(np.ceil(x2 + margin))]
    scale = scale or max(1, round(300 / max(part.shape[:2])))
    canvas = Image.fromarray(part.repeat(scale, axis=0).repeat(scale, axis=1))
    pen = ImageDraw.Draw(canvas)
    x1, x2, y1, y2 = (x1 - left) * scale, (x2 - left) * scale, (y1 - top) * scale, (y2 - top) * scale
    for share in np.linspace(0, 1, bins + 1):
        x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
        pen.line((x, y1, x, y2), fill=YELLOW, width=1)
        pen.line((x1, y, x2, y), fill=YELLOW, width=1)
    radius = max(1, round(min(x2 - x1, y2 - y1) / bins / 10))
    for x, y in (np.asarray(points).reshape(-1, 2) - [left, top]) * scale:
        _dot(pen, x, y, radius, CYAN)
    return np.asarray(canvas)


def crops(rows, titles, side=220):
    """A sheet of small arrays, each enlarged to whole cells: crops of a picture and of feature channels for several P.

    Args:
        rows: list of rows of arrays: uint8 [h, w, 3], or float [h, w], which is shown from its least value (dark) to
            its greatest.
        titles: names above the pictures, one list a row.
        side: pixels of the longer side that each is brought to.

    Returns:
        uint8 [H, W, 3].
    """
    cells = []
    for arrays, names in zip(rows, titles, strict=True):
        for array, name in zip(arrays, names, strict=True):
            array = array if np.asarray(array).ndim == 3 else shaded(array)
            cells.append(titled(_resized(array, side), name))
    return visualize.grid(cells, columns=max(len(row) for row in rows))


def pyramid(features, side=300):
    """The levels of a pyramid as pictures of one size: the three strongest components of the channels as colours.

    Args:
        features: dict from names to float [H, W, C].
        side: pixels of the longer side of each picture.

    Returns:
        uint8 [H, W, 3].
    """
    panels = []
    for name, feature in features.items():
        height, width = feature.shape[:2]
        picture = _resized(components(feature), side)
        panels.append(titled(picture, f"{name}: {height} x {width} x {feature.shape[2]}"))  # Pillow's letters have no ×
    return visualize.grid(panels, columns=min(3, len(panels)))


def components(feature):
    """The three principal components of a feature map as red, green, blue.

    Args:
        feature: float [H, W, C].

    Returns:
        uint8 [H, W, 3]; a constant map is grey.
    """
    height, width, channels = feature.shape
    values = np.asarray(feature, np.float64).reshape(-1, channels)
    values = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(values, full_matrices=False)
    found = values @ axes[:3].T
    found = np.pad(found, ((0, 0), (0, 3 - found.shape[1])))
    # Two and a half deviations fill the range; a few outliers would leave everything else grey.
    spread = np.maximum(found.std(axis=0), 1e-12) * 2.5
    return (np.clip(0.5 + 0.5 * found / spread, 0, 1) * 255).astype(np.uint8).reshape(height, width, 3)


def shaded(values):
    """Numbers as colours, from the least (dark) to the greatest (light): float [h, w] to uint8 [h, w, 3]."""
    from matplotlib import colormaps

    values = np.asarray(values, np.float64)
    share = (values - values.min()) / max(np.ptp(values), 1e-12)
    return (colormaps["magma"](share)[..., :3] * 255).astype(np.uint8)


def titled(picture, title, size=16):
    """A picture below a strip that bears a title: uint8 [h, w, 3]."""
    font = ImageFont.load_default(size=size)
    width = max(picture.shape[1], math.ceil(font.getlength(title)) + size)
    strip = Image.new("RGB", (width, round(1.7 * size)), visualize.PAPER)
    ImageDraw.Draw(strip).text((size // 3, size * 0.2), title, fill=visualize.SEAM, font=font)
    body = np.full((picture.shape[0], width, 3), visualize.PAPER, np.uint8)
    body[:, : picture.shape[1]] = picture
    return np.concatenate([np.asarray(strip), body])


def _resized(picture, side):
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize(size, way))


def _with_legend(picture, names):
    """A strip below a picture: a square of each colour and its name, in as many lines as they need."""
    if not names:
        return picture
    size = int(np.clip(min(picture.shape[:2]) / 26, 12, 20))
    font = ImageFont.load_default(size=size)
    places, x, row = [], size // 2, 0
    for name in names:
        width = font.getlength(name) + 2.6 * size
        if x > size and x + width > picture.shape[1]:
            x, row = size // 2, row + 1
        places.append((x, row))
        x += width
    strip = Image.new("RGB", (picture.shape[1], round((row + 1) * 1.7 * size)), visualize.PAPER)
    pen = ImageDraw.Draw(strip)
    for (name, colour), (x, row) in zip(names.items(), places, strict=True):
        y = row * 1.7 * size + 0.35 * size
        pen.rectangle((x, y, x + size, y + size), fill=colour, outline=visualize.SEAM)
        pen.text((x + 1.4 * size, y - 0.15 * size), name, fill=visualize.SEAM, font=font)
    return np.concatenate([picture, np.asarray(strip)])


def _box(pen, box, colour, width):
    """A box on a dark seam, so that it shows on ground of the same colour."""
    x1, y1, x2, y2 = box[0], box[1], max(box[2] - 1, box[0]), max(box[3] - 1, box[1])
    if width > 1:
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=visualize.SEAM, width=width + 2)
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)


def _dot(pen, x, y, radius, colour, seam=True):
    pen.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=colour, outline=visualize.SEAM if seam else colour
    )
