"""Backgrounds and fillings of generated images."""

import numpy as np
from PIL import Image


def texture(rng, size, amplitude):
    """Returns float32 [height, width, 3]: a random colour with smooth variations of random grain size."""
    grain = int(rng.integers(2, 17))
    cells = rng.normal(rng.uniform(0, 255, 3), amplitude, (grain, grain, 3))
    cells = Image.fromarray(np.clip(cells, 0, 255).astype(np.uint8))
    return np.asarray(cells.resize(size[::-1], Image.Resampling.BILINEAR), np.float32).copy()
