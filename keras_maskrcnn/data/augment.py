"""Random augmentation of image, boxes, masks and fields together."""

import dataclasses
import functools
import math

import numpy as np

from keras_maskrcnn.data import colour
from keras_maskrcnn.data.geometry import flip, reframe, transpose
from keras_maskrcnn.data.image_type import RGB, ImageType
from keras_maskrcnn.ops.placement import fitted_size


@dataclasses.dataclass(frozen=True)
class Augment:
    """A random change of a sample: geometry (one resize, of the part inside the frame only) and colour.

    Each share below is the probability of the change; amounts are drawn for each sample. Images may have any
    `ImageType`, except for `saturation`, `grey` and `stain`, see `check`.

    Attributes:
        flip: Share of samples mirrored left to right.
        vertical_flip: Share of samples mirrored top to bottom.
        transpose: Share of samples with rows and columns exchanged; with both flips this gives all eight orientations.
        scale: Minimum and maximum factor on the image's size; log-uniform.
        crop: (height, width) of the frame, at a random position; an image smaller than that is padded with zeros, also
            at a random position. None keeps the size of the (unscaled) image.
        fit: (height, width) that an output without `crop` is resized to fit in, keeping its aspect; None keeps its
            size. `data.batches` sets it to its canvas, so that each image is resized once.
        brightness: Maximum relative change b: colours are multiplied by 1 - b .. 1 + b.
        contrast: Maximum relative change of the distance to the mean grey.
        saturation: Maximum relative change of the distance of each pixel to its own grey.
        grey: Share of samples converted to grey.
        gamma: Maximum relative change g of the exponent of brightness, 1 / (1 + g) .. 1 + g; log-uniform.
        invert: Share of samples with dark and bright exchanged, as between fluorescence and bright-field images.
        stain: Maximum change s of the stains of coloured tissue, see `colour.restain`: factors 1 - s .. 1 + s, and
            summands -s .. s of the optical density (Tellez et al. 2018).
        min_visible: Minimum share of the mask's area inside the frame; instances below it are dropped.
        antialias: Whether images are smoothed where they shrink; `data.batches` sets it to the rule of the model.
    """

    flip: float = 0.0
    vertical_flip: float = 0.0
    transpose: float = 0.0
    scale: tuple = (1.0, 1.0)
    crop: tuple | None = None
    fit: tuple | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0
    gamma: float = 0.0
    invert: float = 0.0
    stain: float = 0.0
    min_visible: float = 0.25
    antialias: bool = True

    def check(self, image_type):
        """Raises a ValueError if a change is not defined for a type of images.

        `saturation` and `grey` are changes of R, G and B, and `stain` is one of R, G and B of 8 bits.
        """
        if image_type.channels != 3 and (self.saturation or self.grey):
            raise ValueError(f"saturation and grey of an Augment are for R, G, B; the images are {image_type}")
        if image_type != RGB and self.stain:
            raise ValueError(f"stain of an Augment is for {RGB} images; these are {image_type}")

    def __call__(self, sample, rng):
        """Returns a changed copy.

        Args:
            sample: A validated sample.
            rng: numpy.random.Generator; the number of draws does not depend on the sample.

        Returns:
            A sample without the instances that left the frame.
        """
        self.check(ImageType(sample["image"].shape[2], sample["image"].dtype.name))
        mirror, upside_down, exchange, grey = rng.random(4) < [self.flip, self.vertical_flip, self.transpose, self.grey]
        amounts = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = 1 + amounts * rng.uniform(-1, 1, 3)
        recolour = functools.partial(colour.recolour, brightness, contrast, 0.0 if grey else saturation)
        sample = self._move(sample, exchange, colour.chain(*self._tones(rng), recolour), rng)
        if exchange:
            sample = transpose(sample)
        if mirror:
            sample = flip(sample)
        return flip(sample, vertical=True) if upside_down else sample

    def _tones(self, rng):
        """Draws the changes of stains and tone: a list of functions of an image."""
        changes = []
        if self.stain:
            changes.append(functools.partial(colour.restain, [[1], [0]] + self.stain * rng.uniform(-1, 1, (2, 3))))
        if self.gamma or self.invert:
            exponent = (1 + self.gamma) ** rng.uniform(-1, 1)
            changes.append(functools.partial(colour.retone, exponent, rng.random() < self.invert))
        return changes

    def _move(self, sample, exchange, recolour, rng):
        """Scales and crops in the orientation of the input, which is cheaper than transposing the whole image."""
        if self.crop is None and self.scale == (1.0, 1.0):  # `Prepare` does `fit` alone, without resampling masks twice
            return {**sample, "image": recolour(sample["image"])}
        factor = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        places = rng.random(2)
        size = np.array(sample["image"].shape[:2])
        order = -1 if exchange else 1
        frame = size if self.crop is None else np.array(self.crop[::order])
        if self.crop is None and self.fit is not None:
            frame = fitted_size(size, self.fit[::order])
            factor *= (frame / size).max()
        scaled = np.maximum(1, np.rint(size * factor).astype(int))
        if (frame == size).all() and (scaled == size).all():
            return {**sample, "image": recolour(sample["image"])}
        offset = np.rint(places * (frame - scaled)).astype(int)  # negative: cut off, positive: padding
        return reframe(sample, scaled, offset, frame, self.min_visible, recolour, self.antialias)


PRESETS = {
    "flip": Augment(flip=0.5),
    "standard": Augment(flip=0.5, scale=(0.8, 1.5), brightness=0.2, contrast=0.2, saturation=0.2),
    "strong": Augment(flip=0.5, scale=(0.4, 2.0), brightness=0.4, contrast=0.4, saturation=0.4, grey=0.1),
}


def get(identifier, image_type=RGB):
    """Returns an augmentation by name.

    Args:
        identifier: "flip", "standard", "strong", a callable (sample, rng) -> sample, or None.
        image_type: `ImageType` of the samples; for other than three channels the presets change no `saturation` and
            make no image `grey`.

    Returns:
        The callable, or None.

    Raises:
        ValueError: No preset has that name, or an `Augment` has changes that the images do not allow.
    """
    if isinstance(identifier, Augment):
        identifier.check(image_type)
    if identifier is None or callable(identifier):
        return identifier
    if identifier not in PRESETS:
        raise ValueError(f"augment must be a callable or one of {', '.join(PRESETS)}, not {identifier!r}")
    preset = PRESETS[identifier]
    return preset if image_type.channels == 3 else dataclasses.replace(preset, saturation=0.0, grey=0.0)
