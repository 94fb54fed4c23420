"""RoIAlign and RoIWarp as Keras layers, and the derivation of RoIAlign from `tf.image.crop_and_resize`.

`ops/roi_align.py` defines the sample positions and the border rule. Three lowerings give equal values and gradients:

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

**Maximum.** With `reduce="max"` a bin is the maximum of its samples, each bilinear; its gradient goes to the first
sample with this value. `"tf_image"` does not support it, because its gradient is that of the average.
"""

import math

import keras

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.layers.region_pooling import RegionPooling
from keras_maskrcnn.ops.roi_align import gather_align
from keras_maskrcnn.options import check_number

POSITIONS = ("regular", "random")
REDUCTIONS = ("average", "max")


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RoIAlign(RegionPooling):
    """Pools each box from its level of a feature pyramid into a grid of P×P bins of bilinear samples.

    Args:
        output_size: int, P.
        strides: input pixels per feature pixel, one per level, each twice the previous one. One stride: one level (C4).
        sampling_ratio: int, samples per bin along each axis (2: four samples); `"tf_image"` requires 2.
        aligned: bool. True subtracts half a pixel from the coordinates and allows boxes smaller than one pixel
            (detectron2's newer convention); False is the convention of torchvision's Mask R-CNN.
        implementation: `"auto"`, `"tf_image"`, `"sparse"` or `"gather"`; all give equal results.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, log2 of the stride of that level (4: stride 16).
        positions: positions of the `sampling_ratio`² samples of a bin: `"regular"`, a grid, or `"random"`, random in
            training and the grid otherwise; not supported by `"tf_image"`.
        seed: int or None, seed of the random positions.
        reduce: `"average"` or `"max"` over the samples of a bin; `"tf_image"` requires `"average"`.
        **kwargs: passed to `keras.layers.Layer`.
    """

    IMPLEMENTATIONS = ("auto", "tf_image", "sparse", "gather")

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
        reduce="average",
        **kwargs,
    ):
        super().__init__(output_size, strides, implementation, canonical_size, canonical_level, **kwargs)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.positions = positions
        self.seed = seed
        self.reduce = reduce
        _check(self)
        if positions == "random":  # the generator is a variable, and would be saved with the model
            self.seed_generator = keras.random.SeedGenerator(seed)

    def pool(self, features, boxes, training):
        """Regions `[N, P, P, C]` from a list of levels and `ops.roi.LevelBoxes` of N boxes."""
        options = {} if self.reduce == "average" else {"reduce": self.reduce}
        if training and self.positions == "random":
            options["offsets"] = self._draw(keras.ops.shape(boxes.start)[0])
        return self._lowering()(features, boxes, self.output_size, self.sampling_ratio, **options)

    def get_config(self):
        """Every constructor argument."""
        return {
            **super().get_config(),
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
            "positions": self.positions,
            "seed": self.seed,
            "reduce": self.reduce,
        }

    def _draw(self, rows):
        """Random position in its bin of every sample of `rows` boxes, see `ops.roi_align.scattered_taps`."""
        shape = (rows, 2, self.output_size, self.output_size, self.sampling_ratio**2)
        return replicas.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _lowering(self):
        name = self.chosen("roi_align")
        if name == "gather":
            return gather_align
        from keras_maskrcnn.backend.tensorflow import roi_align

        return {"sparse": roi_align.sparse_align, "tf_image": roi_align.tf_image_align}[name]


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RoIWarp(RoIAlign):
    """RoIAlign of boxes rounded to whole pixels of their level, as RoIPool rounds them.

    The box has round(x1 / stride) as its first coordinate and round(x2 / stride) - round(x1 / stride) + 1 as its width.
    This isolates the effect of rounding, as the comparison of He et al., Mask R-CNN (2017), section 3 and table 2c:
    RoIWarp (Dai et al., 2016) samples bilinearly but rounds the RoI. Arguments as for `RoIAlign`; with `aligned=True`,
    half a pixel is subtracted after rounding.
    """

    quantised = True


def _check(layer):
    """Raises ValueError for invalid arguments of RoIAlign."""
    if layer.positions not in POSITIONS:
        raise ValueError(f"positions must be one of {POSITIONS}, got {layer.positions!r}.")
    if layer.reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {REDUCTIONS}, got {layer.reduce!r}.")
    check_number("sampling_ratio", layer.sampling_ratio, 1, math.inf, whole=True)
    if layer.implementation == "tf_image":
        for name, value in (("positions", "regular"), ("sampling_ratio", 2), ("reduce", "average")):
            if getattr(layer, name) != value:
                raise ValueError(f"implementation='tf_image' requires {name}={value!r}, got {getattr(layer, name)!r}.")
