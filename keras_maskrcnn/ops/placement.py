"""Where an image lies in the network's canvas. NumPy only, so that the input pipeline imports no Keras."""

import numpy as np


def fitted_size(size, canvas):
    """Returns the size of an image that is resized to fit in a canvas with its aspect kept.

    Height and width are multiplied by the largest factor at which both fit, then rounded to the nearest integer (half
    to even) and limited to 1 and the canvas. One side equals that of the canvas.

    Args:
        size: (height, width) of the image in pixels.
        canvas: (height, width) of the canvas in pixels.

    Returns:
        int [2], height and width.
    """
    size = np.asarray(size)
    factor = (np.asarray(canvas) / size).min()
    return np.clip(np.rint(size * factor).astype(int), 1, canvas)
