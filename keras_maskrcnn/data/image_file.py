"""From a picture on disk to uint8 RGB, whatever its mode."""

import struct

import numpy as np
from PIL import Image, ImageOps

from keras_maskrcnn.data.sample import DataError

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path, turn=True):
    """Reads a picture as a person would expect to see it.

    16-bit grey is scaled to 8 bits, transparency is laid over white, palettes and CMYK are converted, and of several
    frames the first is taken.

    Args:
        path: str or Path.
        turn: Apply the EXIF orientation. False for annotations that were made on the pixels as stored (COCO).

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: The file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if turn:
                picture = ImageOps.exif_transpose(picture)
            return np.array(_to_rgb(picture))
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except BROKEN as error:
        raise DataError(path, f"cannot be read as a picture ({error})") from error


def _to_rgb(picture):
    if picture.mode in SIXTEEN_BIT:
        return _eight_bits(picture).convert("RGB")
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers")
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    picture = picture.convert("RGBA")
    if picture.getextrema()[3] == (255, 255):
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _eight_bits(picture):
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels have more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 257 * 255
