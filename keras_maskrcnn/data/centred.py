"""Images stretched to a fixed size and centred in a canvas, as the CIS 680 assignment specifies."""

import dataclasses

import numpy as np

from keras_maskrcnn.data.geometry import flip, reframe


@dataclasses.dataclass(frozen=True)
class Centred:
    """Resizes a sample to `size` and centres it in a `canvas`: image, boxes, masks and fields together.

    Height and width are scaled separately, so that every image fills `size`. Pass it to `data.batches` as `augment`,
    with `image_size` equal to `canvas`; the size of every row is then the canvas, border included.

    The assignment pads with zeros after normalisation. Here images are padded before it, with ImageNet's mean colour
    (123.675, 116.28, 103.53) rounded to integers: an error below half a grey level, or below 0.01 after normalisation
    by mean and standard deviation.

    Attributes:
        size: (height, width) of the resized image; the assignment resizes 300 x 400 to 800 x 1066.
        canvas: (height, width) of the result, not smaller than `size`. An odd border has one pixel more at the
            bottom and on the right.
        fill: R, G, B of the border, 0..255.
        flip: Share of samples mirrored left to right.
    """

    size: tuple = (800, 1066)
    canvas: tuple = (800, 1088)
    fill: tuple = (124, 116, 104)
    flip: float = 0.0

    def __post_init__(self):
        if min(self.size) < 1 or (np.array(self.size) > self.canvas).any():
            raise ValueError(f"size {self.size} does not fit in the canvas {self.canvas}")

    @property
    def offset(self):
        """Position of the image's top left corner in the canvas: int [2], y and x."""
        return (np.array(self.canvas) - self.size) // 2

    def __call__(self, sample, rng):
        """Returns a changed copy.

        Args:
            sample: A validated sample.
            rng: numpy.random.Generator; exactly one number is drawn.

        Returns:
            A sample of the size of the canvas with all instances of the input.
        """
        if rng.random() < self.flip:
            sample = flip(sample)
        moved = reframe(sample, np.array(self.size), self.offset, np.array(self.canvas), 0, np.asarray)
        (top, left), (height, width) = self.offset, self.size
        image = np.empty_like(moved["image"])
        image[:] = self.fill
        inside = np.s_[top : top + height, left : left + width]
        image[inside] = moved["image"][inside]
        return {**moved, "image": image}
