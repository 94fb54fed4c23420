"""Sheets of several images, and strips with a title or a legend."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_maskrcnn.data.colour import stretch
from keras_maskrcnn.data.image_type import DTYPES, MAX_CHANNELS, ImageType
from keras_maskrcnn.drawing.labels import SEAM

PAPER = (245, 245, 245)
SHOWN = (0.1, 99.9)  # percentiles of 16-bit images
ENLARGED = 2  # maximum factor by which `grid` enlarges an image


def grid(images, columns=None, gap=8):
    """Arranges images in rows of equal width, in their order; equal images keep their size.

    Images of unequal sizes are resized: those of a row to one height, and each row to the median width of the rows, but
    no image to more than `ENLARGED` times its size.

    Args:
        images: list of images as `as_rgb` takes them.
        columns: images per row; by default the square root of their number, rounded up.
        gap: pixels between images.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: `images` is empty.
    """
    if not len(images):
        raise ValueError("a grid needs at least one image")
    images = [as_rgb(image) for image in images]
    columns = min(columns or int(np.ceil(np.sqrt(len(images)))), len(images))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = _row_heights(rows)
    rows = [[_resized(image, height) for image in row] for row, height in zip(rows, heights, strict=True)]
    width = max(sum(image.shape[1] for image in row) + gap * (len(row) - 1) for row in rows)
    sheet = np.full((sum(heights) + gap * (len(rows) - 1), width, 3), PAPER, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for image in row:
            sheet[top : top + height, left : left + image.shape[1]] = image
            left += image.shape[1] + gap
        top += height + gap
    return sheet


def _row_heights(rows):
    """Heights at which rows of images are equally wide; a last row with fewer images is as high as the others."""
    lowest = [min(image.shape[0] for image in row) for row in rows]
    shares = [sum(image.shape[1] / image.shape[0] for image in row) for row in rows]
    full = [index for index, row in enumerate(rows) if len(row) == len(rows[0])]
    natural = [np.median([image.shape[0] for image in row]) for row in rows]
    width = np.median([natural[index] * shares[index] for index in full])
    heights = [width / share for share in shares]
    if len(full) < len(rows):
        heights[-1] = min(heights[-1], np.median([heights[index] for index in full]))
    return [max(1, round(min(height, ENLARGED * low))) for height, low in zip(heights, lowest, strict=True)]


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


def with_legend(image, tints):
    """Adds a strip below an image with a square of each colour and its name, on as many lines as necessary."""
    size = max(12, int(min(extent(image) / 26, max(20, extent(image) / 50))))
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


def extent(image):
    """Length that line widths and font sizes are a share of: the shorter side, at least 0.4 of the longer."""
    shorter, longer = sorted(image.shape[:2])
    return max(shorter, 0.4 * longer)


def _resized(image, height):
    if height == len(image):
        return image
    width = max(1, round(image.shape[1] * height / len(image)))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def as_rgb(image):
    """An image as it is shown: uint8 [h, w, 3].

    One channel is grey; of two, the first is magenta and the second green, which can be told apart under any colour
    vision; of more, the first three are R, G, B. 16 bits are stretched, so that the percentiles in `SHOWN` become black
    and white, see `data.stretch`.

    Args:
        image: uint8 or uint16 [h, w] or [h, w, C] of 1 to 8 channels.

    Raises:
        ValueError: in one line, for other arrays.
    """
    image = np.asarray(image)
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if image.dtype.name not in DTYPES or not 1 <= channels <= MAX_CHANNELS:
        wanted = f"uint8 or uint16 [H, W] or [H, W, C] of 1 to {MAX_CHANNELS} channels"
        raise ValueError(f"an image must be {wanted}, got {image.dtype} {list(image.shape)}")
    if channels == 3 and image.dtype == np.uint8:
        return image
    image = image[..., None] if image.ndim == 2 else image[..., :3]
    image = image if image.dtype == np.uint8 else ImageType(image.shape[2]).convert(stretch(image, SHOWN))
    return image[..., {1: [0, 0, 0], 2: [0, 1, 0]}.get(channels, [0, 1, 2])]
