"""Geometric transformations of samples: image, boxes, masks and fields together."""

import dataclasses
import math

import numpy as np

from keras_maskrcnn.data.fields import instances, move_fields
from keras_maskrcnn.data.mini_masks import mask_boxes, resample


def flip(sample, vertical=False):
    """Returns a sample mirrored left to right, or top to bottom."""
    image, masks, boxes = sample["image"], sample["masks"], sample["boxes"].copy()
    height, width = image.shape[:2]
    low, high = (1, 3) if vertical else (0, 2)
    boxes[:, [low, high]] = (height if vertical else width) - boxes[:, [high, low]]
    index = np.s_[::-1] if vertical else np.s_[:, ::-1]
    mirrored = np.empty_like(image)
    for channel in range(image.shape[2]):  # per channel, because NumPy copies reversed RGB pixels slowly
        mirrored[..., channel] = image[index][..., channel]
    masks = masks[:, ::-1] if vertical else masks[:, :, ::-1]
    matrix = [[1, 0, 0], [0, -1, height]] if vertical else [[-1, 0, width], [0, 1, 0]]
    fields = move_fields(sample, matrix, (height, width))
    return {**sample, **fields, "image": mirrored, "boxes": boxes, "masks": masks}


def transpose(sample):
    """Returns a sample with rows and columns exchanged (mirrored at the main diagonal)."""
    image = np.ascontiguousarray(sample["image"].swapaxes(0, 1))
    boxes = sample["boxes"][:, [1, 0, 3, 2]]
    fields = move_fields(sample, [[0, 1, 0], [1, 0, 0]], image.shape[:2])
    return {**sample, **fields, "image": image, "boxes": boxes, "masks": sample["masks"].swapaxes(1, 2)}


def reframe(sample, scaled, offset, frame, min_visible, recolour, antialias=True):
    """Returns a sample resized, shifted and cut, or padded with zeros, to a frame.

    Args:
        sample: A validated sample.
        scaled: (height, width) after resizing, int array.
        offset: Position (y, x) of the top left corner in the frame, int array; negative where it is cut off.
        frame: (height, width) of the result, int array.
        min_visible: Minimum share of the mask's area inside the frame; instances below it are dropped.
        recolour: Function from the pixels of the visible part of the image, without padding, to their new colours.
        antialias: Whether the image is smoothed where it shrinks.

    Returns:
        A sample. The box of an instance that was cut is computed from the rest of its mask; other boxes are moved.
    """
    image, masks = sample["image"], np.zeros((len(sample["masks"]), *frame), bool)
    move = _Move(np.array(image.shape[:2]), scaled, offset, np.maximum(0, offset), np.minimum(frame, offset + scaled))
    canvas = np.zeros((*frame, image.shape[2]), image.dtype)
    if (move.stop > move.start).all():
        move.part(canvas)[:] = recolour(move.pixels(image, antialias))
    boxes, cut = move.boxes(sample["boxes"])
    kept = np.flatnonzero(move.visible_shares(sample["masks"], cut) >= max(min_visible, 1e-9))
    for index in kept:
        move.mask(sample["masks"][index], masks[index])
    again = kept[cut[kept]]
    boxes[again] = mask_boxes(masks[again])
    kept = [index for index in kept if (boxes[index, 2:] > boxes[index, :2]).all() and masks[index].any()]
    fields = move_fields(sample, move.matrix, frame)
    return instances({**sample, **fields, "image": canvas, "boxes": boxes, "masks": masks}, kept)


@dataclasses.dataclass(frozen=True)
class _Move:
    """Position of a resized image in a frame; all attributes are int arrays (y, x).

    Attributes:
        size: Size before resizing.
        scaled: Size after resizing.
        offset: Position of its top left corner in the frame; negative where it is cut off.
        start: Top left corner of the visible part, in the frame.
        stop: Bottom right corner of the visible part, in the frame.
    """

    size: np.ndarray
    scaled: np.ndarray
    offset: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @property
    def matrix(self):
        """The affine map of x, y from the image to the frame: float64 [2, 3]."""
        return np.column_stack([np.diag((self.scaled / self.size)[::-1]), self.offset[::-1]])

    def window(self, low, high):
        """Returns the part of the image under a part of the frame: x1, y1, x2, y2, float64."""
        low, high = (np.clip((corner - self.offset) * self.size / self.scaled, 0, self.size) for corner in (low, high))
        return np.array([low[1], low[0], high[1], high[0]])

    def part(self, canvas):
        """Returns a view of the visible part in an array of the size of the frame."""
        return canvas[self.start[0] : self.stop[0], self.start[1] : self.stop[1]]

    def pixels(self, image, antialias):
        """Returns the visible part of the image, resized."""
        window = self.window(self.start, self.stop)
        if (self.size == self.scaled).all():
            x1, y1, x2, y2 = np.rint(window).astype(int)
            return image[y1:y2, x1:x2]
        return resample(image, window, self.stop - self.start, antialias)

    def boxes(self, boxes):
        """Returns the boxes in the frame, float32 [n, 4], clipped to the visible part, and bool [n], which were cut."""
        boxes = boxes * np.tile((self.scaled / self.size)[::-1], 2) + np.tile(self.offset[::-1], 2)
        low, high = np.tile(self.start[::-1], 2), np.tile(self.stop[::-1], 2)
        cut = ((boxes < low - 1e-3) | (boxes > high + 1e-3)).any(1)
        return np.clip(boxes, low, np.maximum(low, high)).astype(np.float32), cut

    def visible_shares(self, masks, cut):
        """Returns the visible share of the area of each instance, float [n]; 1 where its box was not cut."""
        x1, y1, x2, y2 = np.rint(self.window(self.start, self.stop)).astype(int)
        shares = np.ones(len(masks))
        for index in np.flatnonzero(cut):
            shares[index] = np.count_nonzero(masks[index, y1:y2, x1:x2]) / np.count_nonzero(masks[index])
        return shares

    def mask(self, mask, target):
        """Resamples a mask into the frame, around its extent only; a mask thinner than a pixel keeps its maximum."""
        # Not the annotated box, because a mask may extend beyond it.
        x1, y1, x2, y2 = mask_boxes(mask[None])[0].astype(int)
        extent = np.array([[y1, x1], [y2, x2]]) * self.scaled / self.size + self.offset
        low = np.maximum(np.floor(extent[0]).astype(int) - 1, self.start)
        high = np.minimum(np.ceil(extent[1]).astype(int) + 1, self.stop)
        if (high <= low).any():
            return
        window = self.window(low, high)
        part = target[low[0] : high[0], low[1] : high[1]]
        if (self.size == self.scaled).all():
            x1, y1, x2, y2 = np.rint(window).astype(int)
            part[:] = mask[y1:y2, x1:x2]
            return
        # Zeros around the extent, also beyond the border of the image: Pillow would average over the pixels inside
        # only, so that a mask that ends next to the border would grow towards it.
        margin = 2 * math.ceil(max(self.size / self.scaled)) + 1
        padded = np.zeros((y2 - y1 + 2 * margin, x2 - x1 + 2 * margin), bool)
        padded[margin:-margin, margin:-margin] = mask[y1:y2, x1:x2]
        coverage = resample(padded, window - np.tile([x1 - margin, y1 - margin], 2), part.shape)
        part[:] = coverage >= max(1, min(128, coverage.max()))
