"""RoIAlign as a Keras layer, and its derivation from `tf.image.crop_and_resize`.

`ops/roi.py` defines the sample positions and the border rule. Three lowerings give equal values and gradients:

- `"gather"`: `keras.ops` with static shapes; for XLA, JAX, torch and GPUs.
- `"sparse"`: product of a sparse matrix and all pixels, and its transpose backward; the fastest on a CPU.
- `"tf_image"`: `tf.image.crop_and_resize` forward, the sparse matrix backward, because TensorFlow's gradient of that op
  has a race between threads on a CPU and is nondeterministic (tensorflow issue 42033).

**Derivation of `"tf_image"`.** Along one axis, a box covers x1 … x1 + w in feature pixels, whose values are at
0, 1, … W-1.

1. *Sample positions of RoIAlign.* With two samples per bin, sample i of bin p is at x1 + p·w/P + (i + 1/2)·w/(2P). With
   k = 2p + i this is x1 + (k + 1/2)·w/(2P), k = 0 … 2P-1: evenly spaced over the box, the first at x1 + w/4P and the
   last at x1 + w - w/4P. So RoIAlign is a grid of 2P×2P bilinear samples, averaged over blocks of 2×2.
2. *Sample positions of crop_and_resize.* On a map of W' pixels, with a box (a, b) and n samples, they are at
   a·(W'-1) + k·(b-a)·(W'-1)/(n-1): the first at a·(W'-1), the last at b·(W'-1). So a and b must be the first and the
   last sample position divided by W'-1, not the edges of the box.
3. *Border.* RoIAlign repeats the border pixel up to one pixel outside (-1 ≤ x ≤ W) and is 0 beyond. crop_and_resize is
   0 outside 0 … W'-1. Padding the map by one pixel with its border value (`"SYMMETRIC"` mirrors the border pixel
   itself) makes the two rules equal: W' = W + 2, coordinates increase by 1, and -1 … W becomes 0 … W'-1. Without
   padding, samples between W-1 and W would be lost, and boxes clipped to the image have such samples.

Together, for n = 2P and W'-1 = W+1, and likewise for y:

    a = (x1 + w/4P + 1) / (W + 1),        b = (x1 + w - w/4P + 1) / (W + 1)

Rounding can move a sample that is exactly on -1 or W, as for boxes with integer coordinates, outside the map. So the
code pads a second ring (coordinates + 2, divided by W + 3) and applies the border rule by a mask, computed from the
same float32 coordinates as in the other lowerings.

**Random positions.** With `positions="random"`, each sample has a uniformly random position in its bin during training.
Both variants estimate the average of the interpolated map over the bin: random positions without bias, the regular grid
by the midpoint rule. So a network trained with random positions can be used with regular ones, and outside training
positions are always regular, so that inference is deterministic. The layer draws the positions and passes them to the
lowering, so `"gather"` and `"sparse"` give equal results here too; `"tf_image"` does not support it, because step 2
needs evenly spaced samples.
"""

import math

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.ops import roi

IMPLEMENTATIONS = ("auto", "tf_image", "sparse", "gather")
POSITIONS = ("regular", "random")


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RoIAlign(keras.layers.Layer):
    """Pools each box from its level of a feature pyramid into a grid of P×P bins.

    Args:
        output_size: int, P.
        strides: input pixels per feature pixel, one per level, each twice the previous one. One stride: one level (C4).
        sampling_ratio: int, samples per bin along each axis; `"tf_image"` requires 2.
        aligned: bool. True subtracts half a pixel from the coordinates and allows boxes smaller than one pixel
            (detectron2's newer convention); False is the convention of torchvision's Mask R-CNN.
        implementation: `"auto"`, `"tf_image"`, `"sparse"` or `"gather"`; all give equal results.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, log2 of the stride of that level (4: stride 16).
        positions: positions of the `sampling_ratio`² samples of a bin: `"regular"`, a grid, or `"random"`, random in
            training and the grid otherwise; not supported by `"tf_image"`.
        seed: int or None, seed of the random positions.
        **kwargs: passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        output_size,
        strides=(4, 8, 16, 32),
        sampling_ratio=2,
        aligned=False,
        implementation="auto",
        canonical_size=224,
        canonical_level=4,
        positions="regular",
        seed=None,
        **kwargs,
    ):
        # Coordinates stay in float32 under any dtype policy: bfloat16 would round them by whole pixels.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.output_size = output_size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.implementation = implementation
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level
        self.positions = positions
        self.seed = seed
        _check(self)
        # Nothing to build. `call` may never run (see `align_rows`), and Keras runs models with unbuilt layers eagerly.
        self.built = True
        self.supports_jit = implementation in ("auto", "gather")  # the others have no XLA kernel
        if positions == "random":  # the generator is a variable, and would be saved with the model
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, features, boxes, row_index=None, training=False):
        """Pools R boxes per image.

        Args:
            features: dict (`{"P2": …}`) or list, ordered as `strides`, of `[B, H, W, C]`.
            boxes: float32 `[B, R, 4]`, x1, y1, x2, y2 in input pixels. No gradient.
            row_index: int32 `[B, R]`, image that each box is pooled from; None for the image of its own row.
            training: bool, whether `positions="random"` draws random positions.

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
        image_index = ops.cast(image_index, "int32")
        finest = int(math.log2(self.strides[0]))
        levels = (
            roi.assign_levels(boxes, finest, finest + len(features) - 1, self.canonical_size, self.canonical_level)
            - finest
        )
        rows = (features, boxes, image_index, levels)
        grid = (self.strides, self.output_size, self.sampling_ratio, self.aligned)
        align = self._lowering()
        if training and self.positions == "random":
            return align(*rows, *grid, offsets=self._draw(ops.shape(boxes)[0]))
        return align(*rows, *grid)

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
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "implementation": self.implementation,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
            "positions": self.positions,
            "seed": self.seed,
        }

    def _draw(self, rows):
        """Random position in its bin of every sample of `rows` boxes, see `ops.roi.scattered_taps`."""
        shape = (rows, 2, self.output_size, self.output_size, self.sampling_ratio**2)
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _levels(self, features):
        features = list(features.values()) if isinstance(features, dict) else list(features)
        if len(features) != len(self.strides):
            raise ValueError(f"RoIAlign has {len(self.strides)} strides but got {len(features)} feature maps.")
        return features

    def _lowering(self):
        name = backend.lowering("roi_align") if self.implementation == "auto" else self.implementation
        if name == "gather":
            return roi.gather_align
        from keras_maskrcnn.backend.tensorflow import roi_align

        return {"sparse": roi_align.sparse_align, "tf_image": roi_align.tf_image_align}[name]


def _check(layer):
    """Raises ValueError for invalid constructor arguments."""
    if layer.implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {layer.implementation!r}.")
    if layer.positions not in POSITIONS:
        raise ValueError(f"positions must be one of {POSITIONS}, got {layer.positions!r}.")
    if layer.positions == "random" and layer.implementation == "tf_image":
        raise ValueError("implementation='tf_image' requires positions='regular', got 'random'.")
    for name in ("output_size", "sampling_ratio"):
        if getattr(layer, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(layer, name)!r}.")
    if layer.implementation == "tf_image" and layer.sampling_ratio != 2:
        raise ValueError(f"implementation='tf_image' requires sampling_ratio=2, got {layer.sampling_ratio!r}.")
    pairs = zip(layer.strides, layer.strides[1:], strict=False)
    if not layer.strides or any(coarse != 2 * fine for fine, coarse in pairs):
        raise ValueError(f"strides must not be empty and each must be twice the previous one, got {layer.strides}.")
