"""The images that a model takes: their type, and how their pixels are normalised."""

import keras
import numpy as np
from keras import ops

from keras_maskrcnn.data.image_type import RGB

# Of R, G, B, 0 to 255, as torchvision has them.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Images:
    """Mixin for models.

    Attributes:
        image_type: `data.ImageType` of the images.
    """

    def _set_images(self, image_type, pixel_mean, pixel_std):
        self.image_type = image_type
        self._pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        for option, values in self._pixels.items():
            if values is None:
                continue
            if np.ndim(values) != 1 or len(values) != image_type.channels:
                raise ValueError(
                    f"{option}={values!r} has {np.size(values)} numbers for {image_type.channels} channels"
                )
            if not np.isfinite(values).all() or (option == "pixel_std" and min(values) <= 0):
                raise ValueError(f"{option}={values!r} must be finite{' and above 0' * (option == 'pixel_std')}")

    @property
    def pixel_mean(self):
        """Mean of each channel that the network expects, in levels of the images' dtype."""
        return self._of_pixels("pixel_mean", IMAGENET_MEAN)

    @property
    def pixel_std(self):
        """Standard deviation of each channel that the network expects, in levels of the images' dtype."""
        return self._of_pixels("pixel_std", IMAGENET_STD)

    def _of_pixels(self, name, usual):
        if self._pixels[name] is not None:
            return tuple(self._pixels[name])
        values = getattr(getattr(self, "backbone", None), name, None)
        return self.image_type.statistics(usual if values is None else values, of=RGB)

    def normalise(self, images, sizes):
        """Pixels to standardised float32, zero in the padding right of and below each image."""
        mean, std = (np.asarray(v, "float32") for v in (self.pixel_mean, self.pixel_std))
        (height, width), channels = ops.shape(images)[1:3], self.image_type.channels
        # Rows of C·W numbers: broadcasting along an inner axis of 3 takes TensorFlow four times as long.
        rows = ops.cast(ops.reshape(images, (-1, height, channels * width)), "float32")
        rows = (rows - ops.tile(mean, [width])) / ops.tile(std, [width])
        inside = _inside(height, channels * width, ops.ceil(sizes) * np.array([1, channels], "float32"))
        return ops.reshape(ops.where(inside, rows, 0.0), (-1, height, width, channels))

    def check_images(self, images):
        """Raises a ValueError unless the images of a batch have the model's channels, and its dtype or float."""
        dtype, wanted = keras.backend.standardize_dtype(images.dtype), self.image_type
        if images.shape[-1] != wanted.channels or not dtype.startswith(("float", wanted.dtype)):
            reason = f"the data has images {dtype} [H, W, {images.shape[-1]}], the model takes {wanted}"
            needed = f"channels={wanted.channels}, dtype={wanted.dtype!r}"
            raise ValueError(f"{reason}: dataset.decoded({needed}) reads them so")


def _inside(height, width, sizes):
    """Bool `[B, height, width]`: canvas pixels that belong to the image, `sizes` being float32 `[B, 2]`."""
    rows = ops.cast(ops.arange(height), "float32")[None, :] < sizes[:, :1]
    columns = ops.cast(ops.arange(width), "float32")[None, :] < sizes[:, 1:]
    return ops.logical_and(rows[:, :, None], columns[:, None, :])
