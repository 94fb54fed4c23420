"""Generated landscapes with shapes: objects and the regions around them, for panoptic segmentation without files."""

import numpy as np

from keras_maskrcnn.data.fields import LabelMap
from keras_maskrcnn.data.shapes import Shapes

COLOURS = {"sky": (150, 190, 235), "ground": (120, 110, 60), "water": (30, 80, 140)}
STUFF = ("things", *COLOURS)


class Scenes(Shapes):
    """Shapes over a sky, a ground and, in every second image or so, water: each region has a texture of its own.

    Samples have the field `semantic`, uint8 [H, W], see `fields.LabelMap`: 1 sky, 2 ground, 3 water, and 0 on shapes,
    also on those that are not annotated. The sky is smooth and brighter at its lower end, the ground is rough, and the
    water has waves; the horizon is not straight. Maps and masks are exact.

    Args:
        count: Number of images.
        image_size: (height, width) in pixels.
        seed: Non-negative int; use different ones for training and validation.
        **options: Of `Shapes`, such as `objects` and `object_size`.
    """

    fields = (LabelMap("semantic", class_names=STUFF),)

    def __init__(self, count, image_size=(128, 128), seed=0, **options):
        super().__init__(count, image_size, seed, **options)

    def _ground(self, rng):
        """Returns the landscape, and its map, uint8 [H, W]."""
        height, width = self.image_size
        rows, columns = np.indices(self.image_size)
        horizon = _line(rng, columns, height * rng.uniform(0.3, 0.6), height * 0.06)
        regions = np.where(rows < horizon, 1, 2).astype(np.uint8)
        shore = _line(rng, columns, height * rng.uniform(0.68, 0.85), height * 0.04)
        if rng.random() < 0.6:
            regions[rows >= shore] = 3
        colours = np.array([(0, 0, 0), *COLOURS.values()], np.float32)[regions] + rng.uniform(-15, 15, 3)
        light = np.stack([
            np.zeros(self.image_size),
            40 * (rows / horizon - 0.5),
            35 * rng.standard_normal(self.image_size),
            25 * np.sin(rows * (2 * np.pi / rng.uniform(5, 9)) + columns / width * rng.uniform(-4, 4)),
        ])  # fmt: skip
        canvas = colours + np.take_along_axis(light, regions[None].astype(int), 0)[0][..., None]
        return canvas.astype(np.float32), regions

    def _fields(self, regions, masks):
        """Returns the map, 0 where a shape is drawn."""
        for mask in masks:
            regions[mask] = 0
        return {"semantic": regions}


def _line(rng, columns, height, amplitude):
    """Heights of a wavy line at each pixel's column, around a mean."""
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
    return height + amplitude * np.sin(phase + waves * 2 * np.pi * columns / columns.shape[1])
