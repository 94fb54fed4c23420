"""From the bytes of a file to the pixels that a model takes."""

import io

from PIL import Image, UnidentifiedImageError

from keras_maskrcnn.data import array_file
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import FORMATS, decoded_sizes, read_stored
from keras_maskrcnn.serve.errors import RequestError


def decoded(content, image_type, max_pixels):
    """The image in a file, as `data.read_image` reads it: upright by its EXIF orientation.

    Args:
        content: bytes of the file.
        image_type: `ImageType` of the result.
        max_pixels: of the image, and of a tile of a TIFF file; the header states their sizes, and no pixel of a larger
            one is decoded.

    Returns:
        `[H, W, C]` of the type.

    Raises:
        RequestError: 400 if the bytes are no image in one of Pillow's `FORMATS`, or damaged; 413 for too many pixels.
    """
    if not content:
        raise RequestError(400, "the file is empty")
    for width, height in _stated_sizes(content, max_pixels):
        if width * height > max_pixels:
            raise RequestError(413, f"the image has {width} x {height} pixels, more than {max_pixels}")
    try:
        return read_stored("upload", image_type, content).turned()
    except DataError as error:
        raise RequestError(400, f"the image {error.reason}") from None


def _stated_sizes(content, max_pixels):
    """(width, height) in the header of a file: of the image, and of the tiles of a TIFF file."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return decoded_sizes(image)
    except Image.DecompressionBombError:
        raise RequestError(413, f"the image has more than {max_pixels} pixels") from None
    except UnidentifiedImageError:
        if array_file.is_tiff(content):
            return _tiff_sizes(content)
        raise RequestError(400, f"the file is no image in a format that is read: {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise exceptions of any class for arbitrary bytes
        raise RequestError(400, f"the image cannot be read ({error})") from None


def _tiff_sizes(content):
    """(width, height) of the image and of the tiles of a TIFF file of more channels than Pillow reads."""
    try:
        import tifffile

        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            sides = (page.imagewidth, page.imagelength), (page.tilewidth, page.tilelength)
            return [(int(width), int(height)) for width, height in sides]
    except Exception as error:  # as above
        raise RequestError(400, f"the TIFF file cannot be read ({error})") from None
