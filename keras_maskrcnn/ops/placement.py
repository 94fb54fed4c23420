"""Where an image lies in the network's canvas. NumPy only, so that the input pipeline imports no Keras."""

import numpy as np


def fitted_size(size, canvas, keep_aspect=True):
    """Returns the size of an image that is resized to fit in a canvas.

    Height and width are multiplied by the largest factor at which both fit, then rounded to the nearest integer (half
    to even) and limited to 1 and the canvas. One side equals that of the canvas.

    Args:
        size: (height, width) of the image in pixels.
        canvas: (height, width) of the canvas in pixels.
        keep_aspect: Whether the aspect is kept; otherwise the image fills the canvas.

    Returns:
        int [2], height and width.
    """
    size = np.asarray(size)
    if not keep_aspect:
        return np.array(canvas)
    factor = (np.asarray(canvas) / size).min()
    return np.clip(np.rint(size * factor).astype(int), 1, canvas)
