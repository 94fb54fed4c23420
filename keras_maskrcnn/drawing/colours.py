"""Colours of drawn objects: distinct from each other, and from the pixels that they are drawn on."""

import numpy as np

# Colours that are distinct under any colour vision: M. Okabe and K. Ito, "Color Universal Design" (2008), without
# black, ordered so that neighbours in the list differ most.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178), (213, 94, 0))
CONTRAST = 40  # minimum distance in CIELAB (CIE 1976) between the colour of an object and the pixels under it
SAMPLES = 48  # pixels per side of a box that are compared
# Linear sRGB to XYZ, divided by the white point D65 (IEC 61966-2-1).
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ /= XYZ.sum(axis=1, keepdims=True)


def colour(index):
    """Colour (r, g, b) of the index-th object or class: the palette, then the same hues darker and lighter."""
    hue = np.array(PALETTE[index % len(PALETTE)], np.float64)
    shade = (index // len(PALETTE)) % 3
    if shade == 1:
        hue = hue * 0.62
    elif shade == 2:
        hue = hue + (255 - hue) * 0.5
    return tuple(round(channel) for channel in hue)


def contrasting(image, found, taken=()):
    """Colours for the objects of an image, each different from the pixels under its mask and in the rest of its box.

    Args:
        image: uint8 [H, W, 3].
        found: dict of `boxes` [n, 4] in pixels, and optionally `masks` [n, H, W].
        taken: colours that other objects have; they are used again only when the others are used up.

    Returns:
        list of n colours (r, g, b), of which the first 21 differ.
    """
    tints = [colour(index) for index in range(3 * len(PALETTE))]
    used = np.array([list(taken).count(tint) for tint in tints])
    chosen = []
    for index in range(len(found["boxes"])):
        grounds = _grounds(image, found, index)
        distance = np.linalg.norm(lab(tints)[:, None] - lab(grounds)[None], axis=-1).min(axis=1)
        free = np.flatnonzero(used == used.min())
        clear = free[distance[free] >= CONTRAST]
        best = int(clear[0]) if len(clear) else int(free[distance[free].argmax()])
        used[best] += 1
        chosen.append(tints[best])
    return chosen


def lab(colours):
    """Convert sRGB colours 0…255 `[..., 3]` to CIELAB, in which distances correspond to visible differences."""
    share = np.asarray(colours, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _grounds(image, found, index):
    """Mean colours [1 or 2, 3] under an object's mask and in the rest of its box."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = np.nan_to_num(np.asarray(found["boxes"][index], np.float64))
    columns = np.linspace(x1, max(x2 - 1, x1), SAMPLES).round().clip(0, width - 1).astype(int)
    rows = np.linspace(y1, max(y2 - 1, y1), SAMPLES).round().clip(0, height - 1).astype(int)
    pixels = image[np.ix_(rows, columns)]
    if found.get("masks") is None:
        return pixels.mean(axis=(0, 1))[None]
    inside = np.asarray(found["masks"][index])[np.ix_(rows, columns)].astype(bool)
    return np.array([pixels[part].mean(axis=0) for part in (inside, ~inside) if part.any()])
