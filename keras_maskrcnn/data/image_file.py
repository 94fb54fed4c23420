"""Image files of any mode as uint8 RGB."""

import contextlib

import numpy as np
from PIL import Image, ImageOps

from keras_maskrcnn.data.sample import DataError

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others may start programs, as EPS does


def read_image(path, turn=True):
    """Reads an image file as uint8 RGB.

    16-bit grey is scaled to 8 bits, transparency is composited over white, palettes and CMYK are converted, and only
    the first of several frames is read. An image of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels is refused before
    it is decoded; assign another number, or None for no limit.

    Args:
        path: str or Path.
        turn: Apply the EXIF orientation. False for annotations of the pixels as stored (COCO).

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: The file is missing, truncated, too large or not an image in one of the `FORMATS`.
    """
    with opened(path, "an image") as image:
        image.load()
        return np.array(_to_rgb(ImageOps.exif_transpose(image) if turn else image))


@contextlib.contextmanager
def opened(path, kind):
    """Opens an image file with Pillow; an error inside the block becomes a DataError ("cannot be read as `kind`")."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image, path)
            yield image
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except DataError:
        raise
    except Exception as error:  # decoders raise exceptions of any class for arbitrary bytes
        raise DataError(path, f"cannot be read as {kind} ({error})") from error


def _check_pixels(image, path):
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        limit = f"more than the {Image.MAX_IMAGE_PIXELS} of PIL.Image.MAX_IMAGE_PIXELS"
        raise DataError(path, f"has {image.width} x {image.height} pixels, {limit}")


def _to_rgb(image):
    if image.mode in SIXTEEN_BIT:
        return _eight_bits(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers")
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    if image.getextrema()[3] == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _eight_bits(image):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels have more than 16 bits")
    values = values.astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 257 * 255
