"""Base of the heads that compute maps of the whole image from the feature pyramid."""

import dataclasses

import keras

from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.heads.outputs import Declarations

STRIDE = 4  # pixels per cell of the usual maps: a quarter of the image's resolution


class MapHead(Declarations, keras.layers.Layer):
    """A head whose input is the pyramid, and whose outputs of the kind "map" belong to the image, not to an object.

    A subclass declares what `heads.outputs.Declarations` lists, and implements
        build(input_shape): the weights, for a list of level shapes `(None, None, None, C)`; `self.strides` and
            `self.stride` are set.
        call(levels, training): levels to predictions, such as `[B, h, w, C]` of cells of `self.stride` pixels.
        map_losses(predictions, truth): predictions and the ground truth to a dict of scalars by the names in `LOSSES`.
        map_outputs(predictions): predictions to a dict of tensors `[B, h, w, C]` by the names in `OUTPUTS`.

    Attributes:
        strides: strides of the levels, finest first.
        stride: pixels of the input per cell of the maps, what `cell` returns.
    """

    def connect(self, strides, channels, regions=None, seed=None, trunk=None):
        """Create the weights; the model calls this once.

        Args:
            strides: strides of the levels, finest first.
            channels: channels of these levels: one number, or one for each.
            regions: not used; heads on regions take it.
            seed: not used likewise.
            trunk: not used likewise.

        Raises:
            ValueError: if the head is part of a model already.
        """
        del regions, seed, trunk
        if hasattr(self, "strides"):
            raise ValueError(f"the head {self.name!r} is part of a model already: make one per model")
        self.strides = tuple(strides)
        self.stride = self.cell()
        self.OUTPUTS = tuple(
            dataclasses.replace(output, stride=self.stride) if output.kind == "map" else output
            for output in self.OUTPUTS
        )
        widths = [channels] * len(self.strides) if isinstance(channels, int) else channels
        self.build([(None, None, None, width) for width in widths])
        if not self.trainable:  # `build` makes trainable layers, also in a frozen head
            for layer in flatten_layers(self):
                layer.trainable = False

    def cell(self):
        """Pixels of the input per cell of the maps: `STRIDE`, or the finest level's stride if that is less."""
        return min(STRIDE, *self.strides)

    def build_from_config(self, config):
        """Nothing: a head that was saved is built when the model connects it."""

    def losses(self, levels, truth, training=False):
        """Losses of a batch.

        Args:
            levels: list of `[B, H, W, C]`, finest first.
            truth: dict of ground truth.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars.
        """
        return self.map_losses(self(levels, training=training), truth)

    def predict(self, levels):
        """Outputs of a batch: dict of tensors `[B, h, w, C]` by the names in `OUTPUTS`; `levels` as for `losses`."""
        return self.map_outputs(self(levels))

    def check(self, inputs):
        """Raises a ValueError if the ground truth among a model's inputs does not have the form that the head needs."""
