"""RoIPool as a Keras layer."""

import keras

from keras_maskrcnn.layers.region_pooling import RegionPooling
from keras_maskrcnn.ops.roi_pool import gather_pool


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RoIPool(RegionPooling):
    """Maximum over the whole pixels of each of P×P bins; box and bins are rounded (Girshick, Fast R-CNN, 2015).

    Equal to `torchvision.ops.roi_pool` in values and gradients, see `ops/roi_pool.py`. Two lowerings give the same:

    - `"gather"`: `keras.ops` with static shapes; for XLA, JAX, torch and GPUs.
    - `"sorted"`: bins sorted by their number of pixels; the faster one on a CPU.

    Args:
        output_size: int, P.
        strides: input pixels per feature pixel, one per level, each twice the previous one. One stride: one level (C4).
        implementation: `"auto"`, `"sorted"` or `"gather"`.
        canonical_size: √area in pixels of a box of level `canonical_level`.
        canonical_level: int, log2 of the stride of that level (4: stride 16).
        **kwargs: passed to `keras.layers.Layer`.
    """

    IMPLEMENTATIONS = ("auto", "sorted", "gather")
    quantised = True

    def pool(self, features, boxes, training):
        """Regions `[N, P, P, C]` from a list of levels and `ops.roi.LevelBoxes` of N boxes."""
        return self._lowering()(features, boxes, self.output_size)

    def _lowering(self):
        if self.chosen("roi_pool") == "gather":
            return gather_pool
        from keras_maskrcnn.backend.tensorflow.roi_pool import sorted_pool

        return sorted_pool
