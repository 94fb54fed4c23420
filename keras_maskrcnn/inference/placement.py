"""Where an image lies on the canvas of the network: one rule, as numbers and as a TensorFlow graph."""

import dataclasses
import fractions
import math
import os

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.data.colour import MIN_RANGE, ranks, stretch
from keras_maskrcnn.data.image_type import RGB, ImageType
from keras_maskrcnn.inference.tiles import check_tiles
from keras_maskrcnn.ops.placement import MAX_SIDE, limited
from keras_maskrcnn.options import Options, check_choice

MAX_BYTES = 2**32  # of the canvases of a batch; assign another number to change the limit


@dataclasses.dataclass(frozen=True)
class Resize(Options):
    """How images are brought to the network's scale at inference.

    A model with an `image_size` fits every image into that canvas. A model without one follows the rule of the papers:
    the shorter side becomes `shorter` pixels, unless the longer one would exceed `longer` (FPN paper, section 5), and
    the canvas is the next multiple of the backbone's stride and of `multiple`. With `scale`, all images are resized by
    the same factor instead: in microscopy the size of an object in pixels does not depend on the image's size.

    Attributes:
        scale: factor from pixels of the image to pixels of the network's input, which replaces `shorter` and `longer`;
            1 keeps every image as it is. `fit` then takes no canvas from its data.
        shorter: pixels of the shorter side.
        longer: maximum of the longer side in pixels.
        rounding: of the other side: "nearest" (detectron2) or "down" (torchvision).
        antialias: whether images are smoothed when they shrink (Pillow, detectron2) or not (torchvision).
        multiple: pixels of which the canvas's sides are multiples, in addition to the backbone's stride; None for no
            such multiple. XLA and JAX compile the network once per canvas: 256 leaves about a dozen.
        keep_aspect: whether an image that is fitted into an `image_size` keeps its aspect, with padding at the right or
            at the bottom, or fills the canvas (YOLACT). Without an `image_size` every image keeps it.
        tiles: (height, width) in pixels of the image: larger images are detected in by overlapping tiles of this size,
            each of them resized as an image of its own, see `inference.tiles`. None detects in whole images.
        overlap: minimum number of pixels that neighbouring tiles share; more than the size of the objects.

    Raises:
        ValueError: for another `rounding`, if `longer` is less than `shorter`, for a `multiple` that is not a whole
            number, a `scale` that is not positive, or tiles that are not larger than their overlap.
    """

    shorter: int = 800
    longer: int = 1333
    rounding: str = "nearest"
    antialias: bool = True
    multiple: int | None = None
    scale: float | None = None
    tiles: tuple | None = None
    overlap: int = 64
    keep_aspect: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_choice("rounding", self.rounding, ("nearest", "down"))
        if self.longer < self.shorter:
            raise ValueError(f"longer={self.longer} is less than shorter={self.shorter}")
        if self.multiple is not None and (not isinstance(self.multiple, int) or self.multiple < 1):
            raise ValueError(f"multiple={self.multiple!r} must be a whole number of pixels, or None")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"scale={self.scale!r} must be a positive number, or None")
        check_tiles(self.tiles, self.overlap)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The rule of one model: its pixels are stretched, and its place is the top left of its canvas.

    Attributes:
        image_size: (height, width) of the one canvas of all images, or None for a canvas per image.
        resize: `Resize`.
        stride: pixels of which the sides of a canvas are multiples, the backbone's coarsest stride.
        stretch: percentiles of an image that become 0 and the highest level, see `data.stretch`; None keeps its pixels.
        image_type: `ImageType` of the images.
        canvas: (height, width) of the one canvas of an exported file, for a model without `image_size`: images have the
            size of the rule, and those that would then exceed the canvas are fitted into it. None for a canvas per
            image.
    """

    image_size: tuple | None
    resize: Resize
    stride: int
    stretch: tuple | None = None
    image_type: ImageType = RGB
    canvas: tuple | None = None

    @property
    def one_canvas(self):
        """(height, width) of the canvas of all images, or None."""
        return self.image_size or self.canvas

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
        canvas, fitted = self._placed(np.asarray(size))
        return tuple(map(int, canvas)), tuple(map(int, fitted))

    def _placed(self, size, xp=np, portable=False):
        """`place` for a size int `[2]`: an array or, with TensorFlow as `xp`, a tensor; `portable` as for `graph`."""
        rule, rounding = self.resize, "up"
        if rule.rounding == "down":  # engines may have no float64
            rounding = "down" if portable else "float_down"
        if self.image_size and not rule.keep_aspect:
            return self.image_size, self.image_size
        if self.image_size:
            return self.image_size, limited(size, _sides(self.image_size, size), "even", xp)
        if rule.scale:
            finest = int(MAX_SIDE / max(rule.scale, 1))
            factors = [fractions.Fraction(rule.scale).limit_denominator(finest).as_integer_ratio()]
        else:
            factors = [(rule.shorter, xp.minimum(size[0], size[1])), (rule.longer, xp.maximum(size[0], size[1]))]
        if self.canvas:
            return self.canvas, limited(size, [*factors, *_sides(self.canvas, size)], rounding, xp)
        fitted = limited(size, factors, rounding, xp)
        return (fitted + self.multiple - 1) // self.multiple * self.multiple, fitted

    def scaled(self, factor):
        """The rule by which the network sees every image larger by a factor; its canvas grows with it."""
        if factor == 1:
            return self
        rule = self.resize
        sides = {name: max(1, round(getattr(rule, name) * factor)) for name in ("shorter", "longer")}
        larger = {
            name: tuple(math.ceil(side * factor / self.stride) * self.stride for side in getattr(self, name))
            for name in ("image_size", "canvas")
            if getattr(self, name)
        }
        return dataclasses.replace(
            self,
            **larger,
            resize=dataclasses.replace(rule, scale=rule.scale and rule.scale * factor, **sides),
        )

    def pixels(self, image):
        """The image as the network sees it, before it is resized: checked by `check_image`, and stretched."""
        image = check_image(image, self.image_type)
        return image if self.stretch is None else stretch(image, self.stretch)

    def batch(self, images, rows):
        """Images on one canvas, and empty ones up to `rows`: a batch for the network.

        Args:
            images: list of `[H, W, C]` from `pixels` that have the same canvas.
            rows: number of images in the batch.

        Returns:
            dict of `images` float32 `[rows, *canvas, C]` and `sizes` float32 `[rows, 2]`.

        Raises:
            ValueError: the canvases take more than `MAX_BYTES`.
        """
        shape = (rows, *self.place(images[0].shape[:2])[0], self.image_type.channels)
        check_bytes(rows, shape[1:])
        batch = {"images": np.zeros(shape, "float32"), "sizes": np.ones((rows, 2), "float32")}
        for i, image in enumerate(images):
            _, (height, width) = self.place(image.shape[:2])
            batch["images"][i, :height, :width] = resized(image, (height, width), self.resize.antialias)
            batch["sizes"][i] = height, width
        return batch

    def graph(self, images, portable=False):
        """`pixels`, `place` and `batch` as a TensorFlow graph, for images of one size, maybe known at run time only.

        Args:
            images: tensor `[B, H, W, C]` of `image_type`.
            portable: whether to use operations only that ONNX, OpenVINO and LiteRT have. In TensorFlow they take up to
                ten times as long as its own kernels.

        Returns:
            float32 `[B, *canvas, C]`, and float32 `[2]`, height and width that the images take there.
        """
        import tensorflow as tf

        from keras_maskrcnn.inference import portable as forms

        images, rule = tf.convert_to_tensor(images), self.resize
        given = images.shape[1:3]
        canvas, size = (
            self.place(given) if given.is_fully_defined() else self._placed(tf.shape(images)[1:3], tf, portable)
        )
        if self.stretch is not None:
            images = (forms.stretched if portable else _stretched)(images, self.stretch, self.image_type)
        if portable and rule.antialias and not self._enlarges(given):
            placed = forms.antialiased(tf.cast(images, tf.float32), size, canvas)
        else:
            resized = tf.image.resize(tf.cast(images, tf.float32), size, antialias=rule.antialias and not portable)
            beyond = tf.convert_to_tensor(canvas) - size
            placed = tf.pad(resized, [[0, 0], [0, beyond[0]], [0, beyond[1]], [0, 0]])
        # Not ensure_shape, which LiteRT does not have. Without it the network in an ONNX file with an open canvas would
        # take sizes from inside this graph: tf2onnx looks for them before a Transpose.
        if self.one_canvas or portable:
            sides = self.one_canvas or tf.unstack(canvas)
            placed = tf.reshape(placed, [images.shape[0] or -1, *sides, self.image_type.channels])
        return placed, tf.cast(size, tf.float32)

    def _enlarges(self, given):
        """Whether no image of a size, a `tf.TensorShape` that may be unknown, shrinks."""
        if given.is_fully_defined():
            return all(new >= side for new, side in zip(self.place(given)[1], given, strict=True))
        return not self.one_canvas and (self.resize.scale or 0) >= 1


def _sides(canvas, size):
    """The factors that bring a size to the sides of a canvas."""
    return [(canvas[axis], size[axis]) for axis in range(2)]


def _stretched(images, percentiles, image_type):
    """`portable.stretched` by TensorFlow's kernels."""
    import tensorflow as tf

    if image_type.channels not in (1, 3):
        alone = dataclasses.replace(image_type, channels=1)
        planes = tf.split(images, image_type.channels, axis=-1)
        return tf.concat([_stretched(plane, percentiles, alone) for plane in planes], axis=-1)
    top = 255 * image_type.scale
    values = tf.cast(tf.reshape(images, [tf.shape(images)[0], -1]), tf.int32)
    reached = tf.cumsum(tf.math.bincount(values, minlength=top + 1, maxlength=top + 1, axis=-1), axis=-1)
    low, high = (tf.argmax(reached >= rank, axis=-1) for rank in ranks(tf.shape(values)[1], percentiles, tf))
    distance = tf.maximum(high - low, MIN_RANGE[image_type.dtype])
    low, distance = (tf.cast(level[:, None], tf.float64) for level in (low, distance))
    table = tf.clip_by_value(tf.round((tf.range(top + 1, dtype=tf.float64) - low) * top / distance), 0, top)
    return tf.reshape(tf.gather(tf.cast(table, images.dtype), values, batch_dims=1), tf.shape(images))


def check_bytes(rows, shape):
    """Raises a ValueError for a batch of more than `MAX_BYTES`: `rows` canvases, float32 of a shape `[H, W, C]`."""
    if 4 * rows * math.prod(map(int, shape)) > MAX_BYTES:
        canvas = "×".join(map(str, shape))
        raise ValueError(f"{rows} images on canvases of {canvas} take more than the {MAX_BYTES} bytes of a batch")


def check_image(image, image_type=RGB):
    """The image as an array; grey `[H, W]` becomes `[H, W, 1]` where that is the type.

    Raises:
        ValueError: if it is not of the type, with at least one pixel.
    """
    if isinstance(image, str | os.PathLike):
        raise ValueError("detect takes arrays; read files with `data.read_image`")
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 and image_type.channels == 1 else image
    if not image_type.fits(image):
        raise ValueError(f"an image must be {image_type}, not {image.dtype} {list(image.shape)}")
    return image


def resized(image, size, antialias=True):
    """An image at another size, bilinear: `[H, W, C]` to float32 `[*size, C]` of the same levels, as an array.

    Args:
        image: uint8 or uint16 `[H, W, C]`.
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
