"""Temporary copy until the data branch is merged."""
import numpy as np


def fitted_size(size, canvas):
    """Returns the (height, width) int array of an image of `size` resized to fit in `canvas` with its aspect kept."""
    size = np.asarray(size)
    factor = (np.asarray(canvas) / size).min()
    return np.clip(np.rint(size * factor).astype(int), 1, canvas)
