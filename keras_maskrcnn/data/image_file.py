"""Image files of any mode as uint8 RGB."""

import contextlib
import io
import logging
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_maskrcnn.data.sample import DataError

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # from EXIF orientations to the methods that turn an image upright
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
logger = logging.getLogger(__name__)
_LOGGED = set()  # folders with an image whose annotations do not decide on its orientation

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others may start programs, as EPS does


def read_image(path, turn=True):
    """Reads an image file as uint8 RGB.

    16-bit grey is scaled to 8 bits, transparency is composited over white, palettes and CMYK are converted, and only
    the first of several frames is read. An image of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels is refused before
    it is decoded; assign another number, or None for no limit.

    Args:
        path: str or Path.
        turn: Apply the EXIF orientation. Readers of annotated images use `read_stored`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: The file is missing, truncated, too large or not an image in one of the `FORMATS`.
    """
    stored = read_stored(path)
    return stored.turned() if turn else np.array(stored.image)


class Stored(NamedTuple):
    """An image as stored, with the orientation that its file states.

    Attributes:
        path: str or Path.
        image: PIL image, RGB.
        orientation: EXIF orientation, 1..8; 1 where the file has none.
    """

    path: str
    image: Image.Image
    orientation: int

    @property
    def sizes(self):
        """(H, W) as stored and, where it differs, turned upright: a list."""
        width, height = self.image.size
        turned = [(width, height)] if self.orientation >= 5 and width != height else []
        return [(height, width), *turned]

    def turned(self):
        """Returns the image upright: uint8 [H, W, 3]."""
        return np.array(self.image.transpose(TURNS[self.orientation]) if self.orientation > 1 else self.image)

    def fitted(self, size, folder, upright=False):
        """Returns the image that annotations of a size belong to: uint8 [H, W, 3].

        It is turned upright if only then it has this size. Annotations that fit both are of the stored pixels, as is
        the custom of COCO and of mask files, or of the upright image with `upright`, as browsers and LabelMe show it;
        this is logged once per folder.

        Args:
            size: (H, W) of the annotations.
            folder: The folder of the data set.
            upright: Whether annotations that fit both are of the upright image.
        """
        if tuple(size) in self.sizes[1:]:
            return self.turned()
        fits_both = self.orientation > 1 and self.sizes == [tuple(size)]
        if fits_both and folder not in _LOGGED:
            _LOGGED.add(folder)
            used = "upright" if upright else "as stored"
            reason = f"its annotations fit it turned and as stored, and are used {used} (logged once)"
            logger.warning("%s has the EXIF orientation %d; %s", self.path, self.orientation, reason)
        return self.turned() if fits_both and upright else np.array(self.image)


def read_stored(path, content=None):
    """Reads an image as `read_image` does, without a decision on its orientation: a `Stored`.

    Args:
        path: str or Path; with `content` only for messages.
        content: bytes of the file; None reads them.
    """
    with opened(path, "an image", content) as image:
        image.load()
        return Stored(path, _to_rgb(image), _orientation(image))


def _orientation(image):
    """Returns the EXIF orientation of a loaded image; Pillow has applied and removed that of a TIFF file."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF
        return 1
    return orientation if orientation in list(TURNS) else 1


@contextlib.contextmanager
def opened(path, kind, content=None):
    """Opens an image file, or its bytes, with Pillow.

    An error inside the block becomes a DataError ("cannot be read as `kind`").
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
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
