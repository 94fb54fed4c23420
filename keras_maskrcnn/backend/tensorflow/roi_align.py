"""TensorFlow lowerings of RoIAlign: a product with a sparse matrix, and `tf.image.crop_and_resize`.

Both take the arguments of `ops.roi_align.gather_align` and give equal results. Neither has an XLA kernel.
"""

import math

import tensorflow as tf

from keras_maskrcnn.ops import roi
from keras_maskrcnn.ops import roi_align as align

# The border rule requires one ring of border pixels. The second ring, with the same values, guards against rounding: a
# sample exactly on the end of the map must not be read as outside.
RINGS = 2


def sparse_align(features, boxes, bins, samples, reduce="average", offsets=None):
    """RoIAlign as a product with a sparse matrix, forward and backward.

    A bin is a weighted sum of (2S)² taps (pixels of the pyramid), so all bins together are `A @ table` with a sparse A,
    and the gradient of the table is `Aᵀ @ gradient`. Each sum is computed by one thread in a fixed order: the result
    is deterministic. For the maximum, a row of A is a sample instead of a bin.

    Args:
        features: list of `[B, H, W, C]`, any float dtype; the product is computed in float32.
        boxes: `ops.roi.LevelBoxes` of N boxes; N may be 0 or unknown.
        bins: int, P.
        samples: int, S.
        reduce: "average" or "max" over the S·S samples of a bin.
        offsets: float32 `[N, 2, P, P, S·S]`, see `ops.roi_align.scattered_taps`; None for the regular grid.

    Returns:
        `[N, P, P, C]` in the features' dtype.
    """
    table, layout = roi.flatten_pyramid(features), roi.pyramid_layout(features)
    rows, sampling_matrix = (-1, bins, bins), _scattered_matrix
    if reduce == "max":
        rows += (samples * samples,)
        taps = align.sample_taps(boxes, layout, bins, samples, offsets)
    elif offsets is None:
        taps, sampling_matrix = align.row_taps(boxes, layout, bins, samples), _sampling_matrix
    else:
        taps = align.scattered_taps(boxes, layout, offsets)
    product = _product(table, taps, sampling_matrix, tf.shape(boxes.start)[0] * math.prod(rows[1:]))
    output = tf.reshape(product, (*rows, table.shape[-1]))
    if reduce == "max":
        output = align.maximum(tf.unstack(output, axis=3))
    return tf.cast(output, features[0].dtype)


def tf_image_align(features, boxes, bins, samples):
    """RoIAlign by `tf.image.crop_and_resize`, with the gradient of `sparse_align`: TensorFlow's is nondeterministic.

    The docstring of `layers/roi_align.py` derives the boxes passed to the op. Arguments and result as for
    `sparse_align`, with `samples` = 2, the average and the regular grid only.
    """
    layout = roi.pyramid_layout(features)
    taps = align.row_taps(boxes, layout, bins, samples)
    inside = tf.add(*tf.split(taps[1], 2, axis=-1)) > 0.0

    @tf.custom_gradient
    def cut(*features):
        def gradient(upstream):
            shapes = [tf.shape(feature, tf.int64) for feature in features]
            counts = [tf.reduce_prod(shape[:3]) for shape in shapes]
            matrix = _sampling_matrix(taps, tf.add_n(counts))
            upstream = tf.cast(tf.reshape(upstream, (-1, features[0].shape[-1])), tf.float32)
            tables = tf.split(_transposed_product(matrix, upstream), counts)
            pairs = zip(tables, features, shapes, strict=True)
            return [tf.cast(tf.reshape(table, shape), feature.dtype) for table, feature, shape in pairs]

        places, crops = [], []
        for index, feature in enumerate(features):
            here = tf.where(boxes.levels == index)[:, 0]
            numbers = boxes.start, boxes.length, boxes.image_index, inside
            places.append(tf.cast(here, tf.int32))
            crops.append(_crop(feature, *(tf.gather(rows, here) for rows in numbers), bins))
        return tf.cast(tf.dynamic_stitch(places, crops), features[0].dtype), gradient

    return cut(*features)


def _product(table, taps, sampling_matrix, rows):
    """A @ table, float32 `[rows, C]`, and its gradient; `sampling_matrix(taps, pixels)` makes A."""
    pixels = tf.shape(table, tf.int64)[0]

    @tf.custom_gradient
    def multiply(table):
        def gradient(upstream):
            # Built again because a SavedModel cannot hold a gradient that captures a sparse matrix; graph optimisation
            # merges the two.
            return _transposed_product(sampling_matrix(taps, pixels), upstream)

        # With no rows the matrix has one row. A slice from the start makes no copy.
        return tf.raw_ops.SparseMatrixMatMul(a=sampling_matrix(taps, pixels), b=table)[:rows], gradient

    return multiply(table)


def _sampling_matrix(taps, pixels):
    """The matrix A of `sparse_align` for the taps of `row_taps`, `[N·P·P, pixels]`, as a CSR variant."""
    places, weights = taps
    bins, per_axis = places.shape[2:]
    count = tf.shape(places, tf.int64)[0] * bins * bins
    # The indices are in row order, so no sort is needed; within a row, columns may be unordered and repeated.
    # Interleaving the (row, column) pairs per axis and adding once at full size takes half the time of stacking at full
    # size.
    places = tf.cast(places, tf.int64)
    bin_y = tf.reshape(tf.range(0, count, bins), (-1, bins))
    index_y = _pairs(bin_y, tf.repeat(places[:, 0], per_axis, axis=-1))
    index_x = _pairs(tf.range(bins, dtype=tf.int64)[None], tf.tile(places[:, 1], (1, 1, per_axis)))
    index = index_y[:, :, None] + index_x[:, None]
    weights_y = tf.repeat(weights[:, 0], per_axis, axis=-1)
    weights_x = tf.tile(weights[:, 1], (1, 1, per_axis))
    value = weights_y[:, :, None] * weights_x[:, None]
    return _csr(index, value, count, pixels)


def _scattered_matrix(taps, pixels):
    """The matrix A of `sparse_align` for the taps of `scattered_taps` or `sample_taps`, as a CSR variant.

    Its rows are all axes of the taps but the last: `[N·P·P, pixels]` or `[N·P·P·S·S, pixels]`.
    """
    places, weights = taps
    count = tf.size(places, tf.int64) // places.shape[-1]
    row = tf.reshape(tf.range(count), (-1, 1))
    column = tf.reshape(tf.cast(places, tf.int64), (-1, places.shape[-1]))
    index = tf.stack([tf.broadcast_to(row, tf.shape(column)), column], axis=-1)
    return _csr(index, weights, count, pixels)


def _csr(index, value, count, pixels):
    """CSR variant `[count, pixels]` from (row, column) pairs, int64 in row order, and their values."""
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        # TensorFlow's product divides by the number of rows, and the process dies if it is 0: use one empty row.
        indices=tf.reshape(index, (-1, 2)),
        values=tf.reshape(value, (-1,)),
        dense_shape=tf.stack([tf.maximum(count, 1), pixels]),
    )


def _pairs(rows, columns):
    """Interleaved (row, column) of every tap along one axis: int64 `[N, P, 2T]` from `[1 or N, P]` and `[N, P, T]`."""
    rows = tf.broadcast_to(rows[..., None], tf.shape(columns))
    return tf.reshape(tf.stack([rows, columns], axis=-1), (-1, columns.shape[1], 2 * columns.shape[2]))


def _transposed_product(matrix, dense):
    """Aᵀ @ dense. Without bins, dense has no rows and A has one."""
    if dense.shape[0] is None:
        none = tf.equal(tf.shape(dense)[0], 0)
        dense = tf.cond(none, lambda: tf.zeros((1, dense.shape[-1])), lambda: dense)
    elif dense.shape[0] == 0:
        dense = tf.zeros((1, dense.shape[-1]))
    # An explicit transpose is faster than transpose_a=True, which runs on one thread.
    transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
    return tf.raw_ops.SparseMatrixMatMul(a=transposed, b=dense)


def _crop(feature, start, length, image_index, inside, bins):
    """RoIs of one level, float32 `[n, P, P, C]`; `inside` is bool `[n, 2, P, 2]`: axis (y, x), bin, sample."""
    size = tf.cast(tf.shape(feature)[1:3], tf.float32)
    inset = length / (4 * bins)
    corners = tf.concat([start + inset, start + length - inset], axis=1)
    normalised = (corners + RINGS) / (tf.tile(size, (2,)) + (2 * RINGS - 1))
    # For NaN boxes the kernel would read out of bounds: move them outside the map, where everything is 0.
    finite = tf.reduce_all(tf.math.is_finite(normalised), axis=1, keepdims=True)
    normalised = tf.where(finite, normalised, -1.0)
    padded = tf.cast(feature, tf.float32)
    for _ in range(RINGS):
        padded = tf.pad(padded, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    samples = tf.image.crop_and_resize(padded, normalised, image_index, (2 * bins, 2 * bins))
    inside = tf.cast(tf.reshape(inside, (-1, 2, 2 * bins)), tf.float32)
    samples *= inside[:, 0, :, None, None] * inside[:, 1, None, :, None]
    return tf.nn.avg_pool2d(samples, 2, 2, "VALID")
