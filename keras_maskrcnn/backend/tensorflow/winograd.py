"""3×3 convolutions for inference by Winograd's algorithm F(5×5, 3×3) (Lavin and Gray 2015, section 4).

A tile of 5×5 outputs is Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, with the kernel g and the window d of 7×7 inputs. Summed over
channels, ⊙ is one product of matrices for each of the 49 positions: 49 multiplications for 25 outputs, where a direct
convolution has 9 · 25 = 225. The transforms are sums that pass over memory more often, so maps are computed in strips
of tiles that fit in the cache. docs/speed.md compares speed and error with those of the direct form.
"""

import numpy as np
import tensorflow as tf

TILE, WINDOW = 5, 7  # sides of a tile's outputs and inputs
STRIP = 50_000  # tiles times channels of a strip, whose 49 positions take 10 MB
LEAST_PIXELS = 512  # of all maps; for fewer, transforming the kernel takes longer than the products save
OUTSIDE = 2**29  # above the number of any cell, and twice as many are an int32


def _matrices(points):
    """Aᵀ, G and Bᵀ of polynomials that are multiplied by their values at the points and at infinity (Toom and Cook).

    With few points, small ones, and pairs of a point and its negative or inverse, rounding errors are small (Barabasz
    et al. 2020).
    """
    size = len(points) + 1

    def values(count):
        """Values of x⁰ … xᶜ⁻¹ at the points; at infinity only the last one counts."""
        return np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1]])

    scale = [1 / np.prod([x - y for y in points if y != x]) for x in points] + [1.0]
    kernel = values(3) * np.reshape(scale, (-1, 1))
    inputs = np.linalg.inv(values(size)).T / np.reshape(scale, (-1, 1))
    return [matrix.astype("float32") for matrix in (values(size - 2).T, kernel, inputs)]


OUTPUTS, KERNEL, INPUTS = _matrices([0.0, 1.0, -1.0, 2.0, -2.0, 0.5])


def large_conv(inputs, kernel, finish):
    """Convolution of stride 1 with padding "same": Winograd's algorithm for large maps, the direct one for small maps.

    Outputs differ by at most 2e-5 of the largest one, in 256 channels of normal numbers. Gradients would be slow.

    Args:
        inputs: float32 `[B, H, W, C]`.
        kernel: float32 `[3, 3, C, D]`.
        finish: function of outputs `[…, W, D]`, such as adding the bias; it must work row by row.

    Returns:
        float32 `[B, H, W, D]`.
    """
    is_large = tf.reduce_prod(tf.shape(inputs)[:3]) >= LEAST_PIXELS
    outputs = tf.cond(
        is_large,
        lambda: winograd_conv(inputs, kernel, finish),
        lambda: finish(tf.nn.conv2d(inputs, kernel, 1, "SAME")),
    )
    outputs.set_shape((*inputs.shape[:3], kernel.shape[3]))
    return outputs


def winograd_conv(inputs, kernel, finish=lambda outputs: outputs):
    """`large_conv` by Winograd's algorithm for all sizes but 0."""
    channels, filters = kernel.shape[2:]
    batch, height, width = tf.unstack(tf.shape(inputs)[:3])
    grid = _Grid(batch, height, width)
    products = tf.reshape(_twice(KERNEL, tf.reshape(kernel, (3, 3, -1))), (WINDOW**2, channels, filters))
    cells = tf.reshape(inputs, (-1, channels))
    lines, count = grid.strips(STRIP // max(channels, filters))

    def strip(i, done):
        start, stop = i * lines, tf.minimum((i + 1) * lines, grid.lines)
        first, last, index = grid.windows(start, stop)
        # The cell at the end stands for those outside the map.
        known = tf.concat([cells[first:last], tf.zeros((1, channels), inputs.dtype)], axis=0)
        windows = _twice(INPUTS, tf.reshape(tf.gather(known, index), (WINDOW, WINDOW, -1)))
        values = tf.matmul(tf.reshape(windows, (WINDOW**2, -1, channels)), products)
        tiles = _twice(OUTPUTS, tf.reshape(values, (WINDOW, WINDOW, -1)))
        rows = tf.gather(tf.reshape(tiles, (-1, filters)), grid.outputs(start, stop))
        return i + 1, done.write(i, finish(rows))

    done = tf.TensorArray(inputs.dtype, count, element_shape=(None, None, filters), infer_shape=False)
    _, done = tf.while_loop(lambda i, done: i < count, strip, (0, done), parallel_iterations=1)
    return tf.reshape(done.concat(), (batch, height, width, filters))


def _twice(matrix, values):
    """The matrix applied to both leading axes: `[n, n, …]` to `[m, m, …]` with a matrix `[m, n]`."""
    rows, columns = matrix.shape
    half = tf.reshape(tf.matmul(matrix, tf.reshape(values, (columns, -1))), (rows, columns, -1))
    return tf.matmul(matrix, half)


class _Grid:
    """Places of tiles in a batch of maps. A line is a row of tiles; those of all maps are numbered in turn."""

    def __init__(self, batch, height, width):
        self._height, self._width, self._rows = height, width, batch * height
        self._tall, self._wide = -(-height // TILE), -(-width // TILE)
        self.lines = batch * self._tall

    def strips(self, tiles):
        """(lines per strip, number of strips) for strips of about that many tiles, and equal but for the last."""
        most = tf.maximum(1, tiles // self._wide)
        count = -(-self.lines // most)
        lines = -(-self.lines // count)
        return lines, -(-self.lines // lines)

    def windows(self, start, stop):
        """The cells (first, last + 1) that lines need, and their places among these, last - first for those outside.

        Returns:
            (first, last, int32 `[49, tiles]`).
        """
        first = tf.maximum(self._first_row(start) - 1, 0) * self._width
        last = tf.minimum(self._first_row(stop) + 1, self._rows) * self._width
        line = tf.range(start, stop)
        y = _reach(line % self._tall, self._height)
        row = tf.where(y < OUTSIDE, (line // self._tall * self._height + y) * self._width, OUTSIDE)
        column = _reach(tf.range(self._wide), self._width)
        places = row[:, None, :, None] + column[None, :, None, :] - first
        return first, last, tf.reshape(tf.minimum(places, last - first), (WINDOW**2, -1))

    def outputs(self, start, stop):
        """Places of the outputs of lines in `[5, 5, tiles]`: int32 `[rows, W]`."""
        tiles = (stop - start) * self._wide
        y, x = tf.range(self._first_row(start), self._first_row(stop)), tf.range(self._width)
        map_, y = y // self._height, y % self._height
        line = map_ * self._tall + y // TILE - start
        return (y % TILE * TILE * tiles + line * self._wide)[:, None] + x % TILE * tiles + x // TILE

    def _first_row(self, line):
        """The first output row of a line, counted over all maps."""
        return line // self._tall * self._height + line % self._tall * TILE


def _reach(tile, size):
    """Inputs that tiles along one axis need, `[7, tiles]`; OUTSIDE in place of those outside the map."""
    place = TILE * tile + tf.range(WINDOW)[:, None] - 1
    return tf.where((place >= 0) & (place < size), place, OUTSIDE)
