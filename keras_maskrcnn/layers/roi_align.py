"""RoIAlign as a Keras layer, and why `tf.image.crop_and_resize` can compute it.

`ops/roi.py` says where the samples of a box lie and what a sample near the border reads. Three lowerings give the same
numbers, values and gradients:

- `"gather"`: `keras.ops` with static shapes; for XLA, JAX, torch and GPUs.
- `"sparse"`: one sparse matrix times all pixels, and its transpose backward; the fastest on a CPU.
- `"tf_image"`: `tf.image.crop_and_resize` forward, the sparse matrix backward, because TensorFlow's own gradient of
  that op is a race between threads on a CPU and gives another answer each time (tensorflow issue 42033).

**The derivation of `"tf_image"`.** Take one axis; a box covers x1 … x1 + w in feature pixels, whose values sit at
0, 1, … W-1.

1. *Where the samples lie.* With two samples a bin, sample i of bin p is at x1 + p·w/P + (i + 1/2)·w/(2P). Number the
   samples through, k = 2p + i: they lie at x1 + (k + 1/2)·w/(2P), k = 0 … 2P-1, evenly spaced over the whole box. The
   first is at x1 + w/4P and the last at x1 + w - w/4P. So RoIAlign is a grid of 2P×2P bilinear samples, and then the
   means of 2×2 of them.
2. *Where crop_and_resize samples.* On a map of W' pixels, a box (a, b) and n samples, it reads at
   a·(W'-1) + k·(b-a)·(W'-1)/(n-1): its first sample is on a·(W'-1) and its last on b·(W'-1). What must be handed over
   is therefore not the box, but the first and the last sample, divided by W'-1.
3. *The border.* RoIAlign repeats the border pixel up to one pixel outside (-1 ≤ x ≤ W) and is 0 beyond.
   crop_and_resize is 0 as soon as it leaves 0 … W'-1. Padding the map by one pixel with its border value
   (`"SYMMETRIC"` mirrors the border pixel itself) makes the two rules one: W' = W + 2, coordinates grow by 1, and
   what was -1 … W is 0 … W'-1. Without the pad, the samples between W-1 and W are lost, which boxes clipped to the
   image have.

Together, for n = 2P and W'-1 = W+1, and likewise for y:

    a = (x1 + w/4P + 1) / (W + 1),        b = (x1 + w - w/4P + 1) / (W + 1)

One thing remains, rounding: a sample exactly on -1 or W, as boxes of whole numbers have, may be computed a hair outside
and lost. So the code pads a second ring (coordinates + 2, divided by W + 3) and applies the border rule by a mask, from
the same float32 coordinates as the other lowerings.

**Random positions.** With `positions="random"` each sample of each bin lies, while training, at a uniformly random
place of its own in the bin. Both ways estimate one number, the average of the interpolated map over the bin: random
places without bias, the regular grid by the midpoint rule. So a network may train on the one and be used with the
other, and outside training the positions are always regular: the same picture always gives the same answer. The layer
draws the places and hands them to the lowering, so that `"gather"` and `"sparse"` agree here too; step 2 above needs
evenly spaced samples, so `"tf_image"` cannot do it.
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
    """Cuts every box from its level of a feature pyramid into a grid of P×P bins.

    Args:
        output_size: int, P.
        strides: input pixels a feature pixel, one a level, each twice the one before. One stride means one level (C4).
        sampling_ratio: int, samples a bin along each axis; `"tf_image"` needs 2.
        aligned: bool, whether half a pixel is taken off the box's coordinates (detectron2's later convention) and small
            boxes stay small; False is torchvision's Mask R-CNN.
        implementation: `"auto"`, `"tf_image"`, `"sparse"` or `"gather"`; all give the same numbers.
        canonical_size: √area of a box, in pixels, that belongs to `canonical_level`.
        canonical_level: int, log2 of the stride of that level (4: stride 16).
        positions: where the `sampling_ratio`² samples of a bin lie: `"regular"`, a grid, or `"random"`, each anywhere
            in its bin while training, and the grid otherwise. Not with `"tf_image"`.
        seed: int or None, of the random positions.
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
        # Coordinates stay in float32 under any dtype policy: a bfloat16 box is off by pixels.
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
        # Nothing to build, and `call` is not the only way in: Keras runs a network eagerly while a layer is not built.
        self.built = True
        self.supports_jit = implementation in ("auto", "gather")  # the others have no kernel for XLA
        if positions == "random":  # a generator is a variable, which a layer that draws nothing should not save
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, features, boxes, row_index=None, training=False):
        """Cuts R boxes from each image.

        Args:
            features: dict (`{"P2": …}`) or list, ordered as `strides`, of `[B, H, W, C]`.
            boxes: float32 `[B, R, 4]`, x1, y1, x2, y2 in input pixels. They get no gradient.
            row_index: int32 `[B, R]`, image that each box is cut from; its own (the row of the batch) when None.
            training: bool, whether `positions="random"` draws places.

        Returns:
            `[B, R, P, P, C]` in the features' dtype.
        """
        batch, rows = ops.shape(boxes)[:2]
        if row_index is None:
            row_index = ops.repeat(ops.arange(batch, dtype="int32"), rows)
        flat = self.align_rows(features, ops.reshape(boxes, (-1, 4)), ops.reshape(row_index, (-1,)), training)
        return ops.reshape(flat, (batch, rows, *flat.shape[1:]))

    def align_rows(self, features, boxes, image_index, training=False):
        """Cuts boxes that stand in one list, whose length may be known only at run time.

        Args:
            features: as for `call`.
            boxes: float32 `[N, 4]`, x1, y1, x2, y2 in input pixels.
            image_index: int32 `[N]`, image that each box is cut from.
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
        """Shape and dtype of what `call` returns."""
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
        """A place in its bin for every sample of `rows` boxes, see `ops.roi.scattered_taps`."""
        shape = (rows, 2, self.output_size, self.output_size, self.sampling_ratio**2)
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _levels(self, features):
        features = list(features.values()) if isinstance(features, dict) else list(features)
        if len(features) != len(self.strides):
            raise ValueError(f"RoIAlign has {len(self.strides)} strides but was given {len(features)} feature maps.")
        return features

    def _lowering(self):
        name = backend.lowering("roi_align") if self.implementation == "auto" else self.implementation
        if name == "gather":
            return roi.gather_align
        from keras_maskrcnn.backend.tensorflow import roi_align

        return {"sparse": roi_align.sparse_align, "tf_image": roi_align.tf_image_align}[name]


def _check(layer):
    """Refuses what cannot work, by name, when the layer is made."""
    if layer.implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {layer.implementation!r}.")
    if layer.positions not in POSITIONS:
        raise ValueError(f"positions must be one of {POSITIONS}, got {layer.positions!r}.")
    if layer.positions == "random" and layer.implementation == "tf_image":
        raise ValueError("implementation='tf_image' needs positions='regular', got 'random'.")
    for name in ("output_size", "sampling_ratio"):
        if getattr(layer, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(layer, name)!r}.")
    if layer.implementation == "tf_image" and layer.sampling_ratio != 2:
        raise ValueError(f"implementation='tf_image' needs sampling_ratio=2, got {layer.sampling_ratio!r}.")
    pairs = zip(layer.strides, layer.strides[1:], strict=False)
    if not layer.strides or any(coarse != 2 * fine for fine, coarse in pairs):
        raise ValueError(f"strides must not be empty and each must be twice the one before, got {layer.strides}.")
