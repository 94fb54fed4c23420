"""A picture stretched to a fixed size and put in the middle of a canvas, as the CIS 680 assignment asks for."""

import dataclasses

import numpy as np

from keras_maskrcnn.data.geometry import flip, reframe


@dataclasses.dataclass(frozen=True)
class Centred:
    """Resizes a sample to `size` and centres it in a `canvas`: image, boxes and masks together.

    Height and width are scaled separately, so that any picture fills `size`. It takes the place of an augmentation in
    `data.batches`, whose `image_size` is then `canvas`: every row has the canvas for its size, border included.

    The assignment pads with zeros after normalisation. Here images are padded before it, with ImageNet's mean colour
    (123.675, 116.28, 103.53) rounded to whole numbers: less than half a grey level off, below 0.01 once it is
    normalised by mean and deviation.

    Attributes:
        size: (height, width) of the resized picture; 300 x 400 pictures are 800 x 1066 in the assignment.
        canvas: (height, width) of the result, not smaller than `size`. Where the border is odd, the bottom and the
            right have one pixel more.
        fill: R, G, B of the border, 0..255.
        flip: Share mirrored left to right.
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
        """Place of the picture's top left corner in the canvas: int [2], y and x."""
        return (np.array(self.canvas) - self.size) // 2

    def __call__(self, sample, rng):
        """Returns a changed copy.

        Args:
            sample: A validated sample.
            rng: numpy.random.Generator; one number is drawn, whatever `flip` is.

        Returns:
            A sample of the canvas' size with all instances of the input.
        """
        if rng.random() < self.flip:
            sample = flip(sample)
        moved = reframe(sample, np.array(self.size), self.offset, np.array(self.canvas), 0, np.asarray)
        (top, left), (height, width) = self.offset, self.size
        image = np.empty_like(moved["image"])
        image[:] = self.fill
        picture = np.s_[top : top + height, left : left + width]
        image[picture] = moved["image"][picture]
        return {**moved, "image": image}

    def restore(self, boxes, original_size):
        """Maps boxes in the canvas back to the picture as it was before, not mirrored.

        Args:
            boxes: float [..., 4], x1, y1, x2, y2 in pixels of the canvas.
            original_size: (height, width) of the picture.

        Returns:
            float32 [..., 4] in pixels of the picture, clipped to it.
        """
        original = np.tile(original_size[::-1], 2)
        moved = (np.asarray(boxes) - np.tile(self.offset[::-1], 2)) * (original / np.tile(self.size[::-1], 2))
        return np.clip(moved, 0, original).astype(np.float32)
