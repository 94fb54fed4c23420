"""Where an image lies on the canvas of the network: one rule, as numbers and as a TensorFlow graph."""

import dataclasses
import math
import os

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.ops.placement import fitted_size
from keras_maskrcnn.options import Options, check_choice


@dataclasses.dataclass(frozen=True)
class Resize(Options):
    """How images are brought to the network's scale at inference.

    A model with an `image_size` fits every image into that canvas. A model without one follows the rule of the papers:
    the shorter side becomes `shorter` pixels, unless the longer one would exceed `longer` (FPN paper, section 5), and
    the canvas is the next multiple of the backbone's stride and of `multiple`.

    Attributes:
        shorter: pixels of the shorter side.
        longer: maximum of the longer side in pixels.
        rounding: of the other side: "nearest" (detectron2) or "down" (torchvision).
        antialias: whether images are smoothed when they shrink (Pillow, detectron2) or not (torchvision).
        multiple: pixels of which the canvas's sides are multiples, in addition to the backbone's stride; None for no
            such multiple. XLA and JAX compile the network once per canvas: 256 leaves about a dozen.

    Raises:
        ValueError: for another `rounding`, if `longer` is less than `shorter`, or for a `multiple` that is not a whole
            number.
    """

    shorter: int = 800
    longer: int = 1333
    rounding: str = "nearest"
    antialias: bool = True
    multiple: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_choice("rounding", self.rounding, ("nearest", "down"))
        if self.longer < self.shorter:
            raise ValueError(f"longer={self.longer} is less than shorter={self.shorter}")
        if self.multiple is not None and (not isinstance(self.multiple, int) or self.multiple < 1):
            raise ValueError(f"multiple={self.multiple!r} must be a whole number of pixels, or None")


@dataclasses.dataclass(frozen=True)
class Placement:
    """The rule of one model: the place of an image is the top left of its canvas.

    Attributes:
        image_size: (height, width) of the one canvas of all images, or None for a canvas per image.
        resize: `Resize`.
        stride: pixels of which the sides of a canvas are multiples, the backbone's coarsest stride.
    """

    image_size: tuple | None
    resize: Resize
    stride: int

    @property
    def multiple(self):
        """Pixels of which the sides of a canvas are multiples, for a model without one canvas for all images."""
        return math.lcm(self.resize.multiple or 1, self.stride)

    def place(self, size):
        """The canvas of an image, and the size that the image takes at its top left.

        Args:
            size: (height, width) of the image.

        Returns:
            (canvas, fitted): two (height, width) tuples of int.
        """
        if self.image_size:
            return self.image_size, tuple(fitted_size(size, self.image_size).tolist())
        rule = self.resize
        factor = min(rule.shorter / min(size), rule.longer / max(size))
        half = 0.0 if rule.rounding == "down" else 0.5
        fitted = np.maximum(np.floor(np.asarray(size) * factor + half), 1).astype(int)
        return tuple((-(-fitted // self.multiple) * self.multiple).tolist()), tuple(fitted.tolist())

    def batch(self, images, rows):
        """Images on one canvas, and empty ones up to `rows`: a batch for the network.

        Args:
            images: list of uint8 `[H, W, 3]` that have the same canvas.
            rows: number of images in the batch.

        Returns:
            dict of `images` float32 `[rows, *canvas, 3]` and `sizes` float32 `[rows, 2]`.
        """
        canvas, _ = self.place(images[0].shape[:2])
        batch = {"images": np.zeros((rows, *canvas, 3), "float32"), "sizes": np.ones((rows, 2), "float32")}
        for i, image in enumerate(images):
            _, (height, width) = self.place(image.shape[:2])
            batch["images"][i, :height, :width] = resized(image, (height, width), self.resize.antialias)
            batch["sizes"][i] = height, width
        return batch

    def graph(self, images):
        """`place` and `batch` as a TensorFlow graph, for images of one size that is known at run time only.

        Args:
            images: uint8 tensor `[B, H, W, 3]`.

        Returns:
            float32 `[B, *canvas, 3]`, and float32 `[2]`, height and width that the images take there.
        """
        import tensorflow as tf

        given, rule = tf.cast(tf.shape(images)[1:3], tf.float64), self.resize
        if self.image_size:
            canvas = tf.constant(self.image_size)
            limits = tf.cast(canvas, tf.float64)
            size = tf.cast(tf.clip_by_value(tf.round(given * tf.reduce_min(limits / given)), 1.0, limits), tf.int32)
        else:
            factor = tf.minimum(rule.shorter / tf.reduce_min(given), rule.longer / tf.reduce_max(given))
            size = tf.maximum(tf.floor(given * factor + (0.0 if rule.rounding == "down" else 0.5)), 1.0)
            size = tf.cast(size, tf.int32)
            canvas = -(-size // self.multiple) * self.multiple
        placed = tf.image.resize(images, size, antialias=rule.antialias)
        padding = tf.pad((canvas - size)[:, None], [[1, 1], [1, 0]])
        placed = tf.ensure_shape(tf.pad(placed, padding), [None, *(self.image_size or (None, None)), 3])
        return placed, tf.cast(size, tf.float32)


def check_image(image):
    """The image as an array.

    Raises:
        ValueError: if it is not uint8 `[H, W, 3]` with at least one pixel.
    """
    if isinstance(image, str | os.PathLike):
        raise ValueError("detect takes arrays; read files with `data.read_image`")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return image


def resized(image, size, antialias=True):
    """An image at another size, bilinear: uint8 `[H, W, 3]` to float32 `[*size, 3]`, 0…255, as an array.

    Args:
        image: uint8 `[H, W, 3]`.
        size: (height, width).
        antialias: whether it is smoothed when it shrinks.
    """
    if tuple(size) == image.shape[:2]:
        return image
    return ops.convert_to_numpy(
        keras.ops.image.resize(
            ops.cast(image, "float32"), size, interpolation="bilinear", antialias=antialias, data_format="channels_last"
        )
    )
