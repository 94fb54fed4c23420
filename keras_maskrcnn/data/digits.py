"""Generated images of several handwritten digits, for instance and semantic segmentation without downloads."""

import functools
import os

import numpy as np
from PIL import Image

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.fields import LabelMap
from keras_maskrcnn.data.idx import read_mnist
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.data.texture import texture
from keras_maskrcnn.options import check_choice

NAMES = tuple("0123456789")
LEVEL = 0.4  # ink, 0..1, from which a pixel belongs to a digit
EDGE = 1.5  # width in pixels of the transition from the background to a digit
ATTEMPTS = 20  # places that are tried for a digit
HELD_OUT = 5  # every fifth image of each class is of the split "val"


class Digits(Dataset):
    """Images with several digits of different sizes, composed from images of single handwritten digits.

    An image depends only on the source, the split, the seed and its index. Masks are those of the visible parts: of two
    digits that overlap, the later one is in front. Samples have the field `semantic`, uint8 [H, W], see
    `fields.LabelMap`: 0 background, and 1 to 10 for the digits 0 to 9, the same numbers as `labels`. The union of the
    masks is where the map is not 0.

    Args:
        count: Number of images.
        image_size: (height, width) in pixels.
        seed: Non-negative int; use different ones for training and validation.
        source: Where the single digits come from. None: the 1,797 images of 8×8 pixels that scikit-learn contains
            (`sklearn.datasets.load_digits`), which needs no download. The path of an IDX file of images, as those of
            MNIST, whose labels are beside it, or a pair of the paths of images and labels; see `idx.read_mnist`.
        split: "train" or "val" for four fifths or one fifth of the single digits of each class, so that the two have
            none in common; None for all.
        digits: Minimum and maximum number of digits per image. A digit for which no place is found is left out.
        digit_size: Minimum and maximum length of the longer side of a digit before its rotation, in pixels.
        rotation: Maximum angle of a digit, in degrees to both sides.
        overlap: Maximum overlap of the boxes of two digits, as a share of the smaller one.
        colour: Random colours of digits and backgrounds; False for white digits on black.
        contrast: Minimum distance, in grey levels, of the random colour of a digit from the background's mean colour.
        texture: Minimum and maximum standard deviation of the background's smooth variations, in grey levels.
        noise: Minimum and maximum standard deviation of the noise of the pixels, in grey levels.

    Attributes:
        singles: List of uint8 [h, w], the single digits of the split, cropped to their ink.
        single_labels: Their classes, int [n], 0 to 9.

    Raises:
        DataError: scikit-learn is not installed, or a file cannot be used.
        ValueError: A range or a share is not possible.
    """

    fields = (LabelMap("semantic", class_names=("background", *NAMES)),)

    def __init__(
        self,
        count,
        image_size=(128, 128),
        seed=0,
        source=None,
        split=None,
        digits=(1, 5),
        digit_size=(32, 64),
        rotation=15,
        overlap=0.1,
        colour=True,
        contrast=100,
        texture=(5, 30),
        noise=(2, 12),
    ):
        check_choice("split", split, (None, "train", "val"))
        for name, (low, high), least in (("digits", digits, 0), ("digit_size", digit_size, 1)):
            if not least <= low <= high:
                raise ValueError(f"{name}={low, high} must be two numbers of at least {least}, the smaller one first")
        if not 0 <= overlap <= 1:
            raise ValueError(f"overlap={overlap} must be a share in 0…1")
        self._count, self.image_size, self.seed = count, tuple(image_size), seed
        self.source, self.split = source, split
        self.digits, self.digit_size = tuple(digits), tuple(digit_size)
        self.rotation, self.overlap = rotation, overlap
        self.colour, self.contrast, self.texture, self.noise = colour, contrast, tuple(texture), tuple(noise)
        self.class_names = list(NAMES)
        self.singles, self.single_labels = _part(source, split)

    def __len__(self):
        return self._count

    def read(self, position):
        """Draws one image."""
        rng = np.random.default_rng([self.seed, position])
        canvas = self._ground(rng)
        ground = canvas.mean((0, 1))
        labels, masks, boxes = [], [], np.zeros((0, 4))
        for _ in range(rng.integers(self.digits[0], self.digits[1] + 1)):
            label, ink = self._digit(rng)
            corner = self._place(ink.shape, boxes, rng)
            if corner is None:
                continue
            mask = _paint(canvas, ink, corner, self._tint(ground, rng))
            for below in masks:
                below &= ~mask
            labels, masks = [*labels, label], [*masks, mask]
            boxes = np.concatenate([boxes, mask_boxes(mask[None])])
        canvas += rng.uniform(*self.noise) * rng.standard_normal(canvas.shape, np.float32)
        kept = [index for index, mask in enumerate(masks) if mask.any()]
        masks = np.array([masks[index] for index in kept], bool).reshape(-1, *self.image_size)
        labels = np.array([labels[index] for index in kept], np.int32)
        return {
            "image": self.image_type.convert(np.clip(canvas, 0, 255).astype(np.uint8)),
            "labels": labels,
            "masks": masks,
            "semantic": np.max(masks * labels[:, None, None], axis=0, initial=0).astype(np.uint8),
            "image_id": position,
            "source": f"Digits(seed={self.seed})[{position}]",
        }

    def _ground(self, rng):
        """The background, float32 [H, W, 3]."""
        if not self.colour:
            return np.zeros((*self.image_size, 3), np.float32)
        return texture(rng, self.image_size, amplitude=rng.uniform(*self.texture))

    def _tint(self, ground, rng):
        """A colour that differs from the background's mean colour; the most different of eight if none does."""
        if not self.colour:
            return np.full(3, 255.0)
        found = rng.uniform(0, 255, (8, 3))
        distance = np.linalg.norm(found - ground, axis=1)
        return found[np.minimum(distance, self.contrast).argmax()]

    def _digit(self, rng):
        """The label of a digit, 1 to 10, and its coverage of the pixels, float32 [h, w], 0.5 or more inside."""
        chosen = int(rng.integers(len(self.single_labels)))
        # A square of this side fits in the image at every angle.
        side = min(rng.uniform(*self.digit_size), min(self.image_size) / np.sqrt(2) - 1)
        return int(self.single_labels[chosen]) + 1, _coverage(
            self.singles[chosen], side, rng.uniform(-1, 1) * self.rotation
        )

    def _place(self, shape, boxes, rng):
        """Top and left of a digit in the image, or None if each place that is tried overlaps another digit too much."""
        size = np.array(shape[::-1])
        areas = np.minimum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(size))
        for _ in range(ATTEMPTS):
            corner = rng.integers(0, np.array(self.image_size[::-1]) - size + 1)
            common = np.minimum(boxes[:, 2:], corner + size) - np.maximum(boxes[:, :2], corner)
            if (np.prod(np.maximum(common, 0), axis=1) <= self.overlap * areas).all():
                return int(corner[1]), int(corner[0])
        return None


def _paint(canvas, ink, corner, tint):
    """Blends a digit into the canvas in place; returns its mask, bool [H, W]."""
    area = tuple(slice(start, start + length) for start, length in zip(corner, ink.shape, strict=True))
    canvas[area] += ink[..., None] * (tint - canvas[area])
    mask = np.zeros(canvas.shape[:2], bool)
    mask[area] = ink >= 0.5
    return mask


def _coverage(single, side, angle):
    """Enlarges and rotates the image of a digit.

    Args:
        single: uint8 [h, w], 0 no ink, without empty rows and columns at its sides.
        side: Length of the longer side in pixels.
        angle: Degrees.

    Returns:
        float32 [h, w], share of each pixel that the digit covers, cropped to where it is above 0; one is at least 0.5.
    """
    scale = side / max(single.shape)
    length = int(np.ceil(side * np.sqrt(2))) + 2
    cosine, sine = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    source = Image.fromarray(np.pad(single, 1))
    # Pillow maps the centre of each pixel of the result to the source.
    centre = np.array(source.size) / 2 - np.array([[cosine, sine], [-sine, cosine]]) @ np.full(2, length / 2)
    matrix = (cosine, sine, centre[0], -sine, cosine, centre[1])
    ink = source.transform((length, length), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    # An edge of the source is about one of its pixels wide, `scale` pixels here.
    share = np.clip((np.asarray(ink, np.float32) / 255 - LEVEL) * max(scale / EDGE, 1) + 0.5, 0, 1)
    if share.max() < 0.5:  # thin lines that were made small
        share[length // 2, length // 2] = 0.5
    x1, y1, x2, y2 = mask_boxes((share > 0)[None])[0].astype(int)
    return share[y1:y2, x1:x2]


def _part(source, split):
    """Images, a list of uint8 [h, w], and labels, int [n], of the digits of a split."""
    if source is not None:
        source = (source,) if isinstance(source, str | os.PathLike) else tuple(source)
        source = tuple(os.fspath(path) for path in source)
    images, labels = _singles(source)
    order = np.zeros(len(labels), int)
    for label in np.unique(labels):
        order[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = {None: order >= 0, "train": order % HELD_OUT != HELD_OUT - 1, "val": order % HELD_OUT == HELD_OUT - 1}
    chosen = np.flatnonzero(chosen[split])
    if not len(chosen):
        raise DataError(_name(source), f"has no digits for the split {split!r}")
    return [images[index] for index in chosen], labels[chosen]


@functools.lru_cache(maxsize=4)
def _singles(source):
    """All images of single digits that have ink, cropped to it, and their labels."""
    images, labels = _scikit_learn() if source is None else read_mnist(*source)
    if labels.size and labels.max() >= len(NAMES):
        raise DataError(source[-1], f"has the label {labels.max()}, digits have 0 to {len(NAMES) - 1}")
    inked = np.flatnonzero((images >= 255 * LEVEL).any((1, 2)))
    boxes = mask_boxes(images[inked] >= 255 * LEVEL / 2).astype(int)
    cropped = [images[index][y1:y2, x1:x2] for index, (x1, y1, x2, y2) in zip(inked, boxes, strict=True)]
    return cropped, labels[inked].astype(int)


def _scikit_learn():
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        reason = 'need the package scikit-learn: pip install "keras3-maskrcnn[digits]"'
        raise DataError("digits", reason) from None
    found = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target


def _name(source):
    return "digits" if source is None else source[0]
