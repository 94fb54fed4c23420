"""Base of the layers that pool regions of interest (RoIs) from a feature pyramid."""

import contextlib
import contextvars
import math
import typing

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.ops import roi
from keras_maskrcnn.options import check_number

_OBSERVED: contextvars.ContextVar[list | None] = contextvars.ContextVar("keras_maskrcnn_pooled", default=None)


class Pooled(typing.NamedTuple):
    """A call of `RegionPooling.align_rows`.

    Attributes:
        layer: the `RegionPooling`.
        features: list of `[B, H, W, C]`, finest level first.
        boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
        image_index: int32 `[N]`, image of each box.
        levels: int32 `[N]`, index of its level.
        regions: `[N, P, P, C]`.
    """

    layer: typing.Any
    features: list
    boxes: typing.Any
    image_index: typing.Any
    levels: typing.Any
    regions: typing.Any


@contextlib.contextmanager
def observed():
    """Context manager with a list of what is pooled inside it, as `Pooled`, for exporters that know RoIAlign."""
    token = _OBSERVED.set([])
    try:
        yield _OBSERVED.get()
    finally:
        _OBSERVED.reset(token)


class RegionPooling(keras.layers.Layer):
    """Pools each box from its level of a feature pyramid into a grid of P×P bins.

    A subclass implements `pool(features, boxes, training)`: regions `[N, P, P, C]` from a list of levels and
    `ops.roi.LevelBoxes` of N boxes.

    Args:
        output_size: int, P.
        strides: input pixels per feature pixel, one per level, each twice the previous one. One stride: one level (C4).
        implementation: one of the subclass's `IMPLEMENTATIONS`; all give equal results.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, log2 of the stride of that level (4: stride 16).
        **kwargs: passed to `keras.layers.Layer`.

    Attributes:
        aligned: see `ops.roi.level_boxes`, as `quantised`.
    """

    IMPLEMENTATIONS: tuple[str, ...] = ("auto", "gather")
    aligned = False
    quantised = False

    def __init__(
        self,
        output_size,
        strides=(4, 8, 16, 32),
        implementation="auto",
        canonical_size=224,
        canonical_level=4,
        **kwargs,
    ):
        # Coordinates stay in float32 under any dtype policy: bfloat16 would round them by whole pixels.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.output_size = output_size
        self.strides = tuple(strides)
        self.implementation = implementation
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level
        if implementation not in self.IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {self.IMPLEMENTATIONS}, got {implementation!r}.")
        check_number("output_size", output_size, 1, math.inf, whole=True)
        pairs = zip(self.strides, self.strides[1:], strict=False)
        if not self.strides or any(coarse != 2 * fine for fine, coarse in pairs):
            raise ValueError(f"strides must not be empty and each must be twice the previous one, got {self.strides}.")
        # Nothing to build. `call` may never run (see `align_rows`), and Keras runs models with unbuilt layers eagerly.
        self.built = True
        self.supports_jit = implementation in ("auto", "gather")  # the others have no XLA kernel

    def call(self, features, boxes, row_index=None, training=False):
        """Pools R boxes per image.

        Args:
            features: dict (`{"P2": …}`) or list, ordered as `strides`, of `[B, H, W, C]`.
            boxes: float32 `[B, R, 4]`, x1, y1, x2, y2 in input pixels. No gradient.
            row_index: int32 `[B, R]`, image that each box is pooled from; None for the image of its own row.
            training: bool, whether `positions="random"` of RoIAlign draws random positions.

        Returns:
            `[B, R, P, P, C]` in the features' dtype.
        """
        batch, rows = ops.shape(boxes)[:2]
        if row_index is None:
            row_index = ops.repeat(ops.arange(batch, dtype="int32"), rows)
        flat = self.align_rows(features, ops.reshape(boxes, (-1, 4)), ops.reshape(row_index, (-1,)), training)
        return ops.reshape(flat, (batch, rows, *flat.shape[1:]))

    def align_rows(self, features, boxes, image_index, training=False):
        """Pools a flat list of boxes, whose length may be dynamic.

        Args:
            features: as for `call`.
            boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
            image_index: int32 `[N]`, image that each box is pooled from.
            training: as for `call`.

        Returns:
            `[N, P, P, C]` in the features' dtype.
        """
        features = self._levels(features)
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        finest = int(math.log2(self.strides[0]))
        levels = (
            roi.assign_levels(boxes, finest, finest + len(features) - 1, self.canonical_size, self.canonical_level)
            - finest
        )
        image_index = ops.cast(image_index, "int32")
        placed = roi.level_boxes(boxes, image_index, levels, self.strides, self.aligned, self.quantised)
        regions = self.pool(features, placed, training)
        if (seen := _OBSERVED.get()) is not None:
            seen.append(Pooled(self, features, boxes, image_index, levels, regions))
        return regions

    def chosen(self, operation):
        """Name of the implementation in the current trace: that of `backend.lowering(operation)` for "auto"."""
        return backend.lowering(operation) if self.implementation == "auto" else self.implementation

    def compute_output_spec(self, features, boxes, row_index=None, training=False):
        """Output shape and dtype of `call`."""
        feature = self._levels(features)[0]
        shape = (*boxes.shape[:2], self.output_size, self.output_size, feature.shape[-1])
        return keras.KerasTensor(shape, dtype=feature.dtype)

    def get_config(self):
        """Every constructor argument."""
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "strides": list(self.strides),
            "implementation": self.implementation,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
        }

    def _levels(self, features):
        features = list(features.values()) if isinstance(features, dict) else list(features)
        if len(features) != len(self.strides):
            name = type(self).__name__
            raise ValueError(f"{name} has {len(self.strides)} strides but got {len(features)} feature maps.")
        return features
