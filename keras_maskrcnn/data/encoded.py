"""The image of a sample as the bytes of a file, for formats that hold or copy image files."""

import io
import os
import pathlib

import numpy as np
from PIL import Image

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import opened, read_stored
from keras_maskrcnn.data.image_type import RGB, ImageType

ENDINGS = {"JPEG": "jpg", "PNG": "png"}  # formats whose bytes are kept
MODES = ("L", "P", "RGB", "RGBA")  # those that other decoders turn into the same 8-bit colours


def encoded_image(sample):
    """Returns the image of a sample as (bytes, format), the format "JPEG" or "PNG".

    The bytes are those of the sample's file where they are JPEG or PNG, upright, and decode to the sample's image
    without an orientation or transparency to consider; else they are PNG, which is exact.

    Raises:
        DataError: the image has a number of channels or bits that Pillow does not write as PNG.
    """
    source = sample["source"]
    if os.path.isfile(source):
        content = pathlib.Path(source).read_bytes()
        found = _format(content, source, sample["image"])
        if found:
            return content, found
    stream, image = io.BytesIO(), sample["image"]
    try:
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    except (TypeError, OSError, ValueError):
        raise DataError(source, f"cannot be written as PNG: it is {image.dtype} {list(image.shape)}") from None
    return stream.getvalue(), "PNG"


def _format(content, source, wanted):
    """Format of the bytes if they can stand for the image, else None."""
    try:
        image_type = ImageType(wanted.shape[2], str(wanted.dtype))
        stored = read_stored(source, image_type, content)
        if stored.orientation > 1 or not np.array_equal(stored.image, wanted):
            return None
        with opened(source, "an image", content) as image:
            same = image_type != RGB or (image.mode in MODES and np.array_equal(image.convert("RGB"), wanted))
            return image.format if same and image.format in ENDINGS else None
    except DataError:  # the sample comes from elsewhere, and only names this file
        return None
