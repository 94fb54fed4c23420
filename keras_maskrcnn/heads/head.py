"""Base of the heads that are made before their model, which gives them the feature maps and with these the weights."""

import keras

from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.heads.outputs import Declarations


class Head(Declarations, keras.layers.Layer):
    """A head of one model.

    A subclass declares what `heads.outputs.Declarations` lists, and implements
        place(strides, channels, regions, seed, trunk): everything but the weights, for the arguments of `connect`;
            returns the `input_shape` of `build`.
        build(input_shape): the weights.
    """

    connected = False

    def connect(self, strides, channels, regions=None, seed=None, trunk=None):
        """Place the head behind feature maps, and create its weights; the model calls this once.

        Args:
            strides: strides of the levels, finest first. A head on regions samples from all of them.
            channels: channels of these levels.
            regions: `region_head.Regions`, for heads on regions.
            seed: seed of random sample positions of these.
            trunk: `models.necks.Trunk`, the layers of the backbone that crops pass through first, or None.

        Raises:
            ValueError: if the head is part of a model already.
        """
        if self.connected:
            raise ValueError(f"the head {self.name!r} is part of a model already: make one per model")
        self.connected = True
        self.build(self.place(strides, channels, regions, seed, trunk))
        if not self.trainable:  # `build` makes trainable layers, also in a frozen head
            for layer in flatten_layers(self):
                layer.trainable = False

    def build_from_config(self, config):
        """Nothing: a head that was saved is built when the model connects it."""

    def check(self, inputs):
        """Raises a ValueError if the ground truth among a model's inputs does not have the form that the head needs."""
