"""Where an image lies in the network's canvas. NumPy only, so that the input pipeline imports no Keras."""

import functools

import numpy as np

MAX_SIDE = 32767  # pixels: twice the product of two sides is an int32


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
    if not keep_aspect:
        return np.array(canvas)
    return limited(np.asarray(size), [(canvas[i], size[i]) for i in range(2)], "even")


def limited(size, factors, rounding, xp=np):
    """Returns a size multiplied by the smallest of some factors, and rounded to at least 1.

    Args:
        size: int [2], sides of at most 32,767 pixels: a NumPy array or, in a graph, a TensorFlow tensor.
        factors: list of (numerator, denominator): positive ints of at most 32,767, or int scalar tensors.
        rounding: "even" (to the nearest integer, half to even), "up" (half up) or "down"; or "float_down" as
            torchvision: the product with the factor in float64, which makes 799 of an exact 800 at 3 % of sizes.
        xp: The module of `size`, `numpy` or `tensorflow`.

    Returns:
        int [2].
    """
    # Rounding is monotonic: the smallest factor gives the smallest sides.
    if rounding == "float_down":
        sides = size / 1  # float64 in both modules, as is top / bottom
        rounded = [_whole(sides * (top / bottom), xp) for top, bottom in factors]
    else:
        rounded = [_rounded(size * top, bottom, rounding) for top, bottom in factors]
    return xp.maximum(functools.reduce(xp.minimum, rounded), 1)


def _whole(values, xp):
    """Non-negative float64 values without their fractions, as ints."""
    return values.astype(int) if xp is np else xp.cast(values, xp.int32)


def _rounded(numerator, denominator, rounding):
    """Exact quotient of ints, rounded as for `limited`."""
    if rounding == "down":
        return divided(numerator, denominator)
    double, whole = 2 * numerator + denominator, 2 * denominator
    up = divided(double, whole)
    # `up` and the other quotient differ at halves only.
    return up if rounding == "up" else up - up % 2 * (up - divided(double - 1, whole))


def divided(numerator, denominator):
    """`numerator // denominator` of non-negative ints, exact also in engines that divide ints in float32.

    Args:
        numerator: int, NumPy array or TensorFlow tensor of ints.
        denominator: likewise. The quotient is below 2^24, so that the error of a division in float32 is at most 1.
    """
    low = numerator // denominator - 1
    return low + (numerator - low * denominator) // denominator
