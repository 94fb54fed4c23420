"""Colours and grey levels: the percentile stretch, and the changes that `Augment` draws. NumPy and Pillow only."""

import fractions
import functools

import numpy as np
from PIL import Image

from keras_maskrcnn.data.sample import Same
from keras_maskrcnn.ops.placement import divided

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma, as in Pillow's mode L
# Grey levels: the noise of an empty image is amplified at most 16 times; that of a camera of 12 bits, which uses the
# lowest sixteenth of uint16, likewise in relation to its own range.
MIN_RANGE = {"uint8": 16, "uint16": 256}
# Optical densities of haematoxylin, eosin and DAB in R, G, B (Ruifrok & Johnston 2001, table 1); unit vectors.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
LIGHT = (np.arange(256) + 1) / 256  # share of the light that each grey level lets through: 10^-density

# Percentile stretch -----------------------------------------------------------------------------------------------


def stretch(image, percentiles):
    """Returns an image with its grey levels stretched linearly, so that two percentiles become 0 and the highest level.

    The percentiles are those of all values of R, G and B together, so that hues stay; in an image of another number of
    channels, each channel has its own. If they are less than `MIN_RANGE` levels apart, the lower one and the level
    `MIN_RANGE` above it become 0 and the highest level.

    Args:
        image: uint8 or uint16 [H, W, C]; the highest level is 255 or 65535.
        percentiles: (low, high) in [0, 100]; (1, 99.8) is usual for fluorescence images.

    Returns:
        [H, W, C] of the same dtype; stretching it once more changes it by rounding at most.
    """
    if image.shape[2] not in (1, 3):
        planes = np.split(image, image.shape[2], axis=2)
        return np.concatenate([stretch(plane, percentiles) for plane in planes], axis=2)
    top = np.iinfo(image.dtype).max
    reached = np.cumsum(_histogram(image))
    low, high = (int(np.argmax(reached >= rank)) for rank in ranks(image.size, percentiles))
    table = np.clip(np.rint((np.arange(top + 1) - low) * top / max(high - low, MIN_RANGE[image.dtype.name])), 0, top)
    return _looked_up(table.astype(image.dtype), image)


def _histogram(image):
    if image.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(image).reshape(len(image), -1)).histogram()
    return np.bincount(image.ravel(), minlength=65536)


def _looked_up(table, image):
    """`table[image]`; Pillow is faster with 8 bits."""
    if image.dtype != np.uint8:
        return np.take(table, image)
    rows = Image.fromarray(np.ascontiguousarray(image).reshape(len(image), -1))
    return np.asarray(rows.point(table.tolist())).reshape(image.shape)


def ranks(size, percentiles, xp=np):
    """Ranks of percentiles among some values in ascending order, counted from 1.

    Args:
        size: number of values, or an int32 scalar tensor.
        percentiles: floats in [0, 100].
        xp: module of `size`, `numpy` or `tensorflow`.
    """

    def rank(share):
        # Products with the smaller share do not exceed int32.
        return _part(size, share, 1) if share <= 50 else size - _part(size, 100 - share, 0)

    return [xp.maximum(rank(share), 1) for share in percentiles]


def _part(size, share, up):
    """`share` percent of `size`, rounded up or down, with no intermediate result beyond int32."""
    finest = int((2**30 / (100 * max(share, 1e-6))) ** 0.5)
    share = fractions.Fraction(share).limit_denominator(finest)
    numerator, denominator = share.numerator, 100 * share.denominator
    whole = divided(size, denominator)
    rest = size - whole * denominator
    return whole * numerator + divided(rest * numerator + up * (denominator - 1), denominator)


class Stretched(Same):
    """A data set with its images stretched, see `stretch`: the training set of a model with the option `stretch`.

    Such a model stretches the images that it detects objects in by itself.

    Args:
        dataset: A Dataset.
        percentiles: (low, high) in [0, 100].
    """

    def __init__(self, dataset, percentiles=(1.0, 99.8)):
        super().__init__(dataset)
        self.percentiles = tuple(percentiles)

    def read(self, position):
        """Returns a sample of the original data set with its image stretched."""
        sample = self.dataset[position]
        return {**sample, "image": stretch(sample["image"], self.percentiles)}


# Changes drawn by `Augment` ---------------------------------------------------------------------------------------


def restain(amounts, image):
    """Changes the amount of each stain of tissue; an image without colours stays as it is.

    Args:
        amounts: float [2, 3]: factor, and summand in units of optical density, for haematoxylin, eosin and DAB.
        image: uint8 [H, W, 3]; the colours of stains are those of bright-field photos, which have this type.
    """
    sparse = image[::4, ::4].astype(int)
    if (sparse.max(axis=-1) - sparse.min(axis=-1)).mean() < 2:  # the noise of a JPEG file is no stain
        return image
    factor, summand = amounts
    matrix = np.linalg.inv(STAINS) * factor @ STAINS  # from densities in R, G, B to stains and back
    # 10^-(density · matrix) is a product of one power per channel, which is looked up.
    powers = (LIGHT[:, None, None] ** matrix).astype(np.float32)
    changed = np.empty_like(image)
    for channel, start in enumerate(256 * 10 ** -(summand @ STAINS)):
        level = np.float32(start)
        for source in range(3):
            level = level * np.take(powers[:, source, channel], image[..., source])
        changed[..., channel] = np.clip(np.rint(level) - 1, 0, 255)
    return changed


def retone(exponent, inverted, image):
    """Raises brightness, 0 to 1, to a power, after inverting it if `inverted`."""
    if exponent == 1 and not inverted:
        return image
    top = np.iinfo(image.dtype).max
    levels = np.linspace(1, 0, top + 1) if inverted else np.linspace(0, 1, top + 1)
    return np.take(np.rint(top * levels**exponent).astype(image.dtype), image)


def recolour(brightness, contrast, saturation, image):
    """Changes brightness, contrast and saturation: all are affine in the colour, so one C x (C + 1) matrix is enough.

    The grey of a pixel of other than R, G and B is the mean of its channels.
    """
    if (brightness, contrast, saturation) == (1, 1, 1):
        return image
    channels = image.shape[2]
    grey = GREY if channels == 3 else np.full(channels, 1 / channels)
    matrix = contrast * brightness * (saturation * np.eye(channels) + (1 - saturation) * grey)
    middle = brightness * image[::4, ::4].reshape(-1, channels).mean(0) @ grey
    offset = np.full(channels, (1 - contrast) * middle)
    if channels == 3 and image.dtype == np.uint8:
        rows = np.column_stack([matrix, offset])
        pixels = Image.fromarray(np.ascontiguousarray(image))
        return np.array(pixels.convert("RGB", tuple(rows.ravel().tolist())))
    changed = image.astype(np.float32) @ matrix.T.astype(np.float32) + offset.astype(np.float32)
    return np.clip(np.rint(changed), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def chain(*changes):
    """The function that applies functions of an image one after the other."""
    return functools.partial(functools.reduce, lambda image, change: change(image), changes)
