"""The type of images: their channels and the numbers in them. Data sets, models and placements hold one."""

import dataclasses

import numpy as np

MAX_CHANNELS = 8
DTYPES = ("uint8", "uint16")
LUMA = np.array([19595, 38470, 7471], np.uint32)  # ITU-R BT.601 in 1/65536, the integers of Pillow's mode L


@dataclasses.dataclass(frozen=True)
class ImageType:
    """Channels and dtype of images `[H, W, channels]`.

    Attributes:
        channels: 1 to 8; 3 are R, G, B.
        dtype: "uint8" or "uint16".

    Raises:
        ValueError: in one line, for other values.
    """

    channels: int = 3
    dtype: str = "uint8"

    def __post_init__(self):
        if not isinstance(self.channels, int | np.integer) or not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"channels={self.channels!r} must be a whole number from 1 to {MAX_CHANNELS}")
        if self.dtype not in DTYPES:
            raise ValueError(f"the dtype of images must be {' or '.join(DTYPES)}, not {self.dtype!r}")

    def __str__(self):
        return f"{self.dtype} [H, W, {self.channels}]"

    @property
    def scale(self):
        """Levels of this dtype per level of uint8: 1, or 257, because 65535 = 257 * 255."""
        return 1 if self.dtype == "uint8" else 257

    def fits(self, image):
        """Whether an array is an image of this type with at least one pixel."""
        return image.dtype == self.dtype and image.ndim == 3 and image.shape[2] == self.channels and image.size > 0

    def convert(self, image):
        """Returns an image of another type as one of this type.

        Grey becomes three equal channels, and R, G, B become grey (ITU-R BT.601 luma); no other number of channels is
        changed. 8 bits are multiplied by 257 to become 16, and 16 bits divided by 257 and rounded to become 8.

        Args:
            image: uint8 or uint16 `[H, W]` or `[H, W, n]`.

        Raises:
            ValueError: in one line, for another dtype, or a number of channels that cannot be changed.
        """
        image = image[..., None] if image.ndim == 2 else image
        if image.dtype not in DTYPES:
            raise ValueError(f"the image is {image.dtype}, not {' or '.join(DTYPES)}")
        if image.ndim != 3:
            raise ValueError(f"the image has shape {list(image.shape)}, not [height, width, channels]")
        found = image.shape[2]
        if (found, self.channels) == (1, 3):
            image = np.repeat(image, 3, axis=2)
        elif (found, self.channels) == (3, 1):
            image = ((image @ LUMA + 2**15) >> 16).astype(image.dtype)[..., None]
        elif found != self.channels:
            raise ValueError(f"the image has {found} channels, not {self.channels}")
        if image.dtype == self.dtype:
            return image
        if self.dtype == "uint16":
            return image * np.uint16(257)
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)

    def statistics(self, values, of):
        """Returns means or standard deviations of pixels of another type in the unit of this one.

        With another number of channels, each channel has the mean of the values.

        Args:
            values: one number per channel of the other type.
            of: the other `ImageType`.

        Returns:
            Tuple of `channels` floats.
        """
        factor = self.scale / of.scale
        if of.channels != self.channels:
            values = (float(np.mean(values)),) * self.channels
        return tuple(value * factor for value in values) if factor != 1 else tuple(values)


RGB = ImageType()
