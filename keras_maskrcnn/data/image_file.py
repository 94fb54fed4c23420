"""Image files of any mode, decoded by one rule to the channels and the dtype that are wanted."""

import contextlib
import logging
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_maskrcnn.data import array_file
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_type import RGB, ImageType

TURNS = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}  # from EXIF orientations to the functions that turn an image upright
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
GREY = ("1", "L", *SIXTEEN_BIT)
logger = logging.getLogger(__name__)
_LOGGED: set = set()  # folders with an image whose annotations do not decide on its orientation

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # others may start programs, as EPS does


def read_image(path: str | os.PathLike, turn: bool = True, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    """Reads an image file.

    | in the file                       | result                                                                |
    |-----------------------------------|-----------------------------------------------------------------------|
    | 1 bit, grey                       | one channel                                                           |
    | palette, CMYK, YCbCr, LAB         | R, G, B                                                               |
    | transparency                      | composited over white; of LA with `channels=2` and of RGBA with       |
    |                                   | `channels=4`, alpha is the last channel as stored                     |
    | 16-bit grey, 32-bit whole numbers | 16 bits; numbers outside 0…65535 are refused                          |
    | 16-bit colour                     | 16 bits with `dtype="uint16"`, else the upper 8 of them               |
    | floating-point numbers            | refused                                                               |
    | several frames or pages           | the first; TIFF pages that are grey and as many as `channels` are the |
    |                                   | channels                                                              |
    | TIFF of 2 to 8 samples per pixel  | all if they are `channels`, else those called grey or R, G, B         |
    | `.npy`, `[H, W]` or `[H, W, n]`   | n channels                                                            |

    Then `ImageType.convert` makes grey of R, G, B or three channels of grey, and 8 bits of 16 or 16 of 8; a file of any
    other number of channels is refused. TIFF files of more channels than Pillow reads, and all 16 bits of colour, need
    `pip install "keras3-maskrcnn[channels]"`.

    An image of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels, or with tiles of more, is refused before it is decoded;
    None is no limit.

    Args:
        path: str or Path.
        turn: Apply the EXIF orientation. Readers of annotated images use `read_stored`.
        channels: 1 to 8, C.
        dtype: "uint8" or "uint16".

    Returns:
        `[H, W, C]` of this dtype.

    Raises:
        DataError: The file is missing, truncated, too large, has other channels, or is not an image in one of the
            `FORMATS`.
    """
    stored = read_stored(path, ImageType(channels, dtype))
    return stored.turned() if turn else stored.image


class Stored(NamedTuple):
    """An image as stored, with the orientation that its file states.

    Attributes:
        path: str or Path.
        image: `[H, W, C]`.
        orientation: EXIF orientation, 1..8; 1 where the file has none.
    """

    path: str
    image: np.ndarray
    orientation: int

    @property
    def sizes(self):
        """(H, W) as stored and, where it differs, turned upright: a list."""
        height, width = self.image.shape[:2]
        turned = [(width, height)] if self.orientation >= 5 and width != height else []
        return [(height, width), *turned]

    def turned(self):
        """Returns the image upright: `[H, W, C]`."""
        return np.ascontiguousarray(TURNS[self.orientation](self.image))

    def fitted(self, size, folder, upright=False):
        """Returns the image that annotations of a size belong to: `[H, W, C]`.

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
        return self.turned() if fits_both and upright else self.image


def read_stored(path, image_type=RGB, content=None):
    """Reads an image as `read_image` does, without a decision on its orientation: a `Stored`.

    Args:
        path: str or Path; with `content` only for messages.
        image_type: `ImageType` of the result; readers pass that of their data set.
        content: bytes of the file, which is no `.npy` file; None reads them.
    """
    with _one_line(path, "an image"):
        if content is None and str(path).lower().endswith(".npy"):
            pixels, orientation = array_file.npy(path), 1
        else:
            pixels, orientation = _decoded(path, image_type, path if content is None else content)
        return Stored(path, image_type.convert(pixels), orientation)


def _decoded(path, wanted, source):
    """Returns the pixels of a file, uint8 or uint16 [H, W] or [H, W, n], and its EXIF orientation.

    `source` is the path of the file, or its bytes.
    """
    try:
        image = Image.open(array_file.stream(source), formats=FORMATS)
    except UnidentifiedImageError:
        if not array_file.is_tiff(source):
            raise
        return _whole_tiff(source), 1
    with image:
        _check_pixels(image, path)
        if image.format in ("PNG", "TIFF") and _is_reduced(image, wanted):
            return _whole(image, source, wanted)
        if image.format == "TIFF" and image.mode in GREY and wanted.channels > 1 and _has_pages(image, wanted.channels):
            return _pages(image, wanted.channels, path), 1
        image.load()
        return _channels(image, wanted), orientation_of(image)


def _is_reduced(image, wanted):
    """Whether Pillow would leave out channels or bits of a file that are wanted."""
    bands, is_deep = len(image.getbands()), ";16" in str(image.tile[:1]) and image.mode not in SIXTEEN_BIT
    samples = image.tag_v2.get(277, bands) if image.format == "TIFF" else bands
    return (is_deep and wanted.dtype == "uint16") or (bands != wanted.channels == samples)


def _whole(image, source, wanted):
    """Returns all channels and bits, or of the channels those that Pillow names, and the orientation."""
    is_png = image.format == "PNG"
    pixels = array_file.png(source) if is_png else _whole_tiff(source)
    if pixels.ndim == 3 and pixels.shape[2] != wanted.channels:
        named = len(image.getbands())
        pixels = _over_white(pixels) if "A" in image.getbands() else pixels[..., :named]
    return pixels, orientation_of(image) if is_png else 1


def _whole_tiff(source):
    """Returns a TIFF file as tifffile reads it, turned upright as Pillow turns it."""
    pixels, orientation = array_file.tiff(source)
    return TURNS.get(orientation, TURNS[1])(pixels)


def _has_pages(image, count):
    """Whether a TIFF file has this number of pages. `n_frames` would walk through all of what may be millions."""
    found = []
    for page in (count - 1, count):
        with contextlib.suppress(EOFError):
            image.seek(page)
            found.append(page)
    image.seek(0)
    return found == [count - 1]


def _pages(image, count, path):
    """Returns the grey pages of a TIFF file as channels."""
    size, pages = image.size, []
    for page in range(count):
        image.seek(page)
        _check_pixels(image, path)
        if image.size != size or image.mode not in GREY:
            raise ValueError(f"page {page + 1} is {image.mode} of {image.width} x {image.height} pixels, unlike page 1")
        pages.append(_grey(image))
    return np.stack(pages, axis=-1)


def _channels(image, wanted):
    """Returns what Pillow decoded: uint8 [H, W] or [H, W, n], or uint16 [H, W]."""
    if image.mode in GREY and (image.mode in SIXTEEN_BIT or "transparency" not in image.info):
        return _grey(image)
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers")
    if image.mode == {2: "LA", 4: "RGBA"}.get(wanted.channels):
        return np.array(image)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.array(image.convert("RGB"))
    image = image.convert("RGBA")
    if image.getextrema()[3] == (255, 255):
        return np.array(image.convert("RGB"))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, image).convert("RGB"))


def _grey(image):
    """Returns the image in one of the modes in GREY as uint8 or uint16 [H, W]."""
    if image.mode not in SIXTEEN_BIT:
        return np.array(image.convert("L"))
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels have more than 16 bits")
    return values.astype(np.uint16)


def _over_white(pixels):
    """Composites colours over white by their last channel, alpha."""
    colours, alpha = pixels[..., :-1].astype(np.float64), pixels[..., -1:] / np.iinfo(pixels.dtype).max
    return np.rint(colours * alpha + np.iinfo(pixels.dtype).max * (1 - alpha)).astype(pixels.dtype)


def orientation_of(image):
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
    source = array_file.stream(path if content is None else content)
    with _one_line(path, kind), Image.open(source, formats=FORMATS) as image:
        _check_pixels(image, path)
        yield image


@contextlib.contextmanager
def _one_line(path, kind):
    """Turns an error inside the block into a DataError with the path."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(path, "no such file" + _other_case(path)) from None
    except DataError:
        raise
    except Exception as error:  # decoders raise exceptions of any class for arbitrary bytes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(path, f"cannot be read as {kind} ({reason})") from error


def _other_case(path):
    """Names a file that differs from a missing one in upper and lower case, as of photos that come from Windows."""
    folder, name = os.path.split(os.fspath(path))
    stem, ending = os.path.splitext(name)
    names = (stem + ending.swapcase(), name.lower(), name.upper())  # few, since folders may hold millions of files
    found = next((other for other in names if other != name and os.path.isfile(os.path.join(folder, other))), None)
    return f", but {found}: rename one" if found else ""


def decoded_sizes(image):
    """Returns the (width, height) of an open image and of the tiles of a TIFF file, which decoding holds whole."""
    tags = getattr(image, "tag_v2", {})
    return [image.size, (tags.get(322, 0), tags.get(323, 0))]


def _check_pixels(image, path):
    for width, height in decoded_sizes(image):
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            limit = f"more than the {Image.MAX_IMAGE_PIXELS} of PIL.Image.MAX_IMAGE_PIXELS"
            raise DataError(path, f"has {width} x {height} pixels, {limit}")
