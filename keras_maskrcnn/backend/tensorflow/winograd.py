"""3×3 convolutions for inference by Winograd's algorithm F(5×5, 3×3) (Lavin and Gray 2015, section 4).

A tile of 5×5 outputs is Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, with the kernel g and the window d of 7×7 inputs. Summed over
channels, ⊙ is one product of matrices for each of the 49 positions: 49 multiplications for 25 outputs, where a direct
convolution has 9 · 25 = 225. The transforms are sums that pass over memory more often, so maps are computed in strips
of tiles that fit in the cache. docs/speed.md compares speed and error with those of the direct form.

bfloat16 maps are computed in float32, because the transforms would magnify rounding errors. On processors that multiply
bfloat16 numbers twice as fast as float32 ones, a quarter of the multiplications still takes less time.
"""

import numpy as np
import tensorflow as tf

STRIP = 50_000  # tiles times channels of a strip, whose 49 positions take 10 MB
# Pixels of all maps; for fewer, transforming the kernel takes longer than the products save.
LEAST_PIXELS = {tf.float32: 512, tf.bfloat16: 8192}
OUTSIDE = 2**29  # above the number of any cell, and twice as many are an int32


class Transforms:
    """Tiles of a size, and the matrices Aᵀ, G and Bᵀ for them.

    They are those of polynomials that are multiplied by their values at points and at infinity (Toom and Cook). With
    few points, small ones, and pairs of a point and its negative or inverse, rounding errors are small (Barabasz et al.
    2020).

    Args:
        points: list of different numbers, one more than the side of a tile.

    Attributes:
        tile, window: sides of a tile's outputs and inputs.
        outputs: Aᵀ, float32 `[tile, window]`.
        kernel: G, float32 `[window, 3]`.
        inputs: Bᵀ, float32 `[window, window]`.
    """

    def __init__(self, points):
        self.tile, self.window = len(points) - 1, len(points) + 1

        def values(count):
            """Values of x⁰ … xᶜ⁻¹ at the points; at infinity only the last one counts."""
            return np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1]])

        scale = np.reshape([1 / np.prod([x - y for y in points if y != x]) for x in points] + [1.0], (-1, 1))
        self.outputs = values(self.tile).T.astype("float32")
        self.kernel = (values(3) * scale).astype("float32")
        self.inputs = (np.linalg.inv(values(self.window)).T / scale).astype("float32")


FINE = Transforms([0.0, 1.0, -1.0, 2.0, -2.0, 0.5])
COARSE = Transforms([0.0, 1.0, -1.0, 1.5, -1.5, 2 / 3, -2 / 3, -0.4])


def large_conv(inputs, kernel, finish):
    """Convolution of stride 1 with padding "same": Winograd's algorithm for large maps, the direct one for small maps.

    float32 outputs differ by at most 2e-5 of the largest one, in 256 channels of normal numbers; bfloat16 ones are at
    least as close to the exact result as those of the direct form. Gradients would be slow.

    Args:
        inputs: float32 or bfloat16 `[B, H, W, C]`.
        kernel: float32 `[3, 3, C, D]`.
        finish: function of float32 outputs `[…, W, D]`, such as adding the bias; it must work row by row.

    Returns:
        `[B, H, W, D]` of the inputs' dtype.
    """
    is_large = tf.reduce_prod(tf.shape(inputs)[:3]) >= LEAST_PIXELS[inputs.dtype]
    outputs = tf.cond(
        is_large, lambda: winograd_conv(inputs, kernel, finish), lambda: _direct_conv(inputs, kernel, finish)
    )
    outputs.set_shape((*inputs.shape[:3], kernel.shape[3]))
    return outputs


def _direct_conv(inputs, kernel, finish):
    outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), 1, "SAME")
    return tf.cast(finish(tf.cast(outputs, kernel.dtype)), inputs.dtype)


def _transforms(inputs):
    """The `Transforms` that suit maps.

    Regions of 14×14 and 28×28 pixels are covered by tiles of 7×7 without a rest, with a quarter fewer products than by
    5×5. Their rounding errors are ten times larger, still a tenth of those of bfloat16.
    """
    sides = inputs.shape[1:3]
    divides = sides.is_fully_defined() and all(side % COARSE.tile == 0 for side in sides)
    return COARSE if divides and inputs.dtype == tf.bfloat16 else FINE


def winograd_conv(inputs, kernel, finish=lambda outputs: outputs, transforms=None):
    """`large_conv` by Winograd's algorithm for all sizes but 0, with the `Transforms` that suit best for None."""
    transforms = transforms or _transforms(inputs)
    channels, filters = kernel.shape[2:]
    batch, height, width = tf.unstack(tf.shape(inputs)[:3])
    grid = _Grid(transforms, batch, height, width)
    positions = transforms.window**2
    products = tf.reshape(_twice(transforms.kernel, tf.reshape(kernel, (3, 3, -1))), (positions, channels, filters))
    cells = tf.reshape(inputs, (-1, channels))
    lines, count = grid.strips(STRIP // max(channels, filters))

    def strip(i, done):
        start, stop = i * lines, tf.minimum((i + 1) * lines, grid.lines)
        first, last, index = grid.windows(start, stop)
        # The cell at the end stands for those outside the map.
        known = tf.concat([tf.cast(cells[first:last], kernel.dtype), tf.zeros((1, channels), kernel.dtype)], axis=0)
        windows = _twice(transforms.inputs, _square(tf.gather(known, index), transforms.window))
        values = tf.matmul(tf.reshape(windows, (positions, -1, channels)), products)
        tiles = _twice(transforms.outputs, _square(values, transforms.window))
        rows = tf.gather(tf.reshape(tiles, (-1, filters)), grid.outputs(start, stop))
        return i + 1, done.write(i, tf.cast(finish(rows), inputs.dtype))

    done = tf.TensorArray(inputs.dtype, count, element_shape=(None, None, filters), infer_shape=False)
    _, done = tf.while_loop(lambda i, done: i < count, strip, (0, done), parallel_iterations=1)
    return tf.reshape(done.concat(), (batch, height, width, filters))


def _square(values, side):
    """`[side², …]` as `[side, side, …]` with one axis for the others."""
    return tf.reshape(values, (side, side, -1))


def _twice(matrix, values):
    """The matrix applied to both leading axes: `[n, n, …]` to `[m, m, …]` with a matrix `[m, n]`."""
    rows, columns = matrix.shape
    half = tf.reshape(tf.matmul(matrix, tf.reshape(values, (columns, -1))), (rows, columns, -1))
    return tf.matmul(matrix, half)


class _Grid:
    """Places of tiles in a batch of maps. A line is a row of tiles; those of all maps are numbered in turn."""

    def __init__(self, transforms, batch, height, width):
        self._tile, self._window = transforms.tile, transforms.window
        self._height, self._width, self._rows = height, width, batch * height
        self._tall, self._wide = -(-height // self._tile), -(-width // self._tile)
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
            (first, last, int32 `[window², tiles]`).
        """
        first = tf.maximum(self._first_row(start) - 1, 0) * self._width
        last = tf.minimum(self._first_row(stop) + 1, self._rows) * self._width
        line = tf.range(start, stop)
        y = self._reach(line % self._tall, self._height)
        row = tf.where(y < OUTSIDE, (line // self._tall * self._height + y) * self._width, OUTSIDE)
        column = self._reach(tf.range(self._wide), self._width)
        places = row[:, None, :, None] + column[None, :, None, :] - first
        return first, last, tf.reshape(tf.minimum(places, last - first), (self._window**2, -1))

    def outputs(self, start, stop):
        """Places of the outputs of lines in `[tile, tile, tiles]`: int32 `[rows, W]`."""
        tile, tiles = self._tile, (stop - start) * self._wide
        y, x = tf.range(self._first_row(start), self._first_row(stop)), tf.range(self._width)
        map_, y = y // self._height, y % self._height
        line = map_ * self._tall + y // tile - start
        return (y % tile * tile * tiles + line * self._wide)[:, None] + x % tile * tiles + x // tile

    def _first_row(self, line):
        """The first output row of a line, counted over all maps."""
        return line // self._tall * self._height + line % self._tall * self._tile

    def _reach(self, tile, size):
        """Inputs that tiles along one axis need, `[window, tiles]`; OUTSIDE in place of those outside the map."""
        place = self._tile * tile + tf.range(self._window)[:, None] - 1
        return tf.where((place >= 0) & (place < size), place, OUTSIDE)
