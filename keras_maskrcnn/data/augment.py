"""Random augmentation of image, boxes, masks and fields together."""

import dataclasses
import functools
import math

import numpy as np

from keras_maskrcnn.data import colour, copy_paste
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
        scale: Minimum and maximum factor on the image's size.
        uniform_scale: Whether the factor is uniform, as in large-scale jitter; else its logarithm is.
        crop: (height, width) of the frame, at a random position; an image smaller than that is padded with zeros, also
            at a random position. "canvas": the frame is `fit`, and `scale` refers to the size at which the image fits
            in it. None keeps the size of the (unscaled) image.
        fit: (height, width) that an output without `crop` is resized to fit in, keeping its aspect; None keeps its
            size. `data.batches` sets it to its canvas, so that each image is resized once.
        copy_paste: Share of samples over which random objects of another sample of the data set are pasted, see
            `copy_paste.paste`; all other changes are drawn for each of the two.
        brightness: Maximum relative change b: colours are multiplied by 1 - b .. 1 + b.
        contrast: Maximum relative change of the distance to the mean grey.
        saturation: Maximum relative change of the distance of each pixel to its own grey.
        grey: Share of samples converted to grey.
        gamma: Maximum relative change g of the exponent of brightness, 1 / (1 + g) .. 1 + g; log-uniform.
        invert: Share of samples with dark and bright exchanged, as between fluorescence and bright-field images.
        stain: Maximum change s of the stains of coloured tissue, see `colour.restain`: factors 1 - s .. 1 + s, and
            summands -s .. s of the optical density (Tellez et al. 2018).
        min_visible: Minimum share of the mask's area inside the frame, and of that the share which no pasted object
            hides; instances below it are dropped. Crowd regions are kept while any part is visible.
        antialias: Whether images are smoothed where they shrink; `data.batches` sets it to the rule of the model.
    """

    flip: float = 0.0
    vertical_flip: float = 0.0
    transpose: float = 0.0
    scale: tuple = (1.0, 1.0)
    uniform_scale: bool = False
    crop: tuple | str | None = None
    fit: tuple | None = None
    copy_paste: float = 0.0
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

    @property
    def mixes(self):
        """Whether a call needs `partner`."""
        return self.copy_paste > 0

    def __call__(self, sample, rng, partner=None):
        """Returns a changed copy.

        Args:
            sample: A validated sample.
            rng: numpy.random.Generator; without `copy_paste`, the number of draws does not depend on the sample.
            partner: For `copy_paste`, function from `rng` to another sample of the data set, or to None where there is
                none that can be read.

        Returns:
            A sample without the instances that left the frame.
        """
        self.check(ImageType(sample["image"].shape[2], sample["image"].dtype.name))
        if not self.mixes:
            return self._changed(sample, rng)
        if partner is None:
            raise ValueError("copy_paste needs `partner`, which `data.batches` passes")
        pastes = rng.random() < self.copy_paste
        target = self._changed(sample, rng)
        other = partner(rng) if pastes else None
        if other is None:
            return target
        source = self._changed(other, rng, target["image"].shape[:2])
        return copy_paste.paste(source, copy_paste.chosen(source, rng), target, self.min_visible)

    def _changed(self, sample, rng, frame=None):
        """Returns a changed copy, of the size of `frame` if it is given."""
        mirror, upside_down, exchange, grey = rng.random(4) < [self.flip, self.vertical_flip, self.transpose, self.grey]
        amounts = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = 1 + amounts * rng.uniform(-1, 1, 3)
        recolour = functools.partial(colour.recolour, brightness, contrast, 0.0 if grey else saturation)
        sample = self._move(sample, exchange, colour.chain(*self._tones(rng), recolour), rng, frame)
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

    def _move(self, sample, exchange, recolour, rng, frame):
        """Scales and crops in the orientation of the input, which is cheaper than transposing the whole image."""
        if self.crop is None and self.scale == (1.0, 1.0) and not self.mixes:
            return {**sample, "image": recolour(sample["image"])}  # `Prepare` does `fit`: masks are not resampled twice
        size, order = np.array(sample["image"].shape[:2]), -1 if exchange else 1
        own_frame, unit = self._own_frame(size, order)
        frame = own_frame if frame is None else np.array(frame[::order])
        factor = unit * self._factor(rng)
        places = rng.random(2)
        scaled = np.maximum(1, np.rint(size * factor).astype(int))
        if (frame == size).all() and (scaled == size).all():
            return {**sample, "image": recolour(sample["image"])}
        offset = np.rint(places * (frame - scaled)).astype(int)  # negative: cut off, positive: padding
        return reframe(sample, scaled, offset, frame, self.min_visible, recolour, self.antialias)

    def _own_frame(self, size, order):
        """Returns the frame of an image of a size, int [2], and the factor on the image's size at scale 1."""
        if self.crop not in (None, "canvas"):
            return np.array(self.crop[::order]), 1.0
        if self.fit is None:
            return size, 1.0
        canvas = self.fit[::order]
        fitted = fitted_size(size, canvas)
        return np.array(canvas) if self.crop else fitted, (fitted / size).max()

    def _factor(self, rng):
        low, high = self.scale
        return rng.uniform(low, high) if self.uniform_scale else math.exp(rng.uniform(math.log(low), math.log(high)))


# Large-scale jitter of Ghiasi et al. 2021, section 3: 0.1 to 2 times the size at which the image fits in the canvas.
LSJ = Augment(flip=0.5, scale=(0.1, 2.0), uniform_scale=True, crop="canvas", min_visible=0.0)
PRESETS = {
    "flip": Augment(flip=0.5),
    "standard": Augment(flip=0.5, scale=(0.8, 1.5), brightness=0.2, contrast=0.2, saturation=0.2),
    "strong": Augment(flip=0.5, scale=(0.4, 2.0), brightness=0.4, contrast=0.4, saturation=0.4, grey=0.1),
    "lsj": LSJ,
    "copy_paste": dataclasses.replace(LSJ, copy_paste=0.5),
}


def get(identifier, image_type=RGB):
    """Returns an augmentation by name.

    Args:
        identifier: "flip", "standard", "strong", "lsj", "copy_paste", a callable (sample, rng) -> sample, or None.
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
