"""Base of the backbones: their configuration, and frozen stages."""

import inspect

import keras

from keras_maskrcnn.layers.folding import FoldingModel


class Backbone(FoldingModel):
    """A functional model whose constructor arguments are attributes of their names, except `dtype`.

    Keras has an attribute of that name, so a subclass stores the argument as `_dtype_argument`.
    """

    def freeze_stages(self, freeze_at, levels):
        """Freeze the stem and the stages up to the level C`freeze_at`.

        Layers are named "stem_…" and "stage1_…", "stage2_…", ….

        Args:
            freeze_at: 0 for nothing, 1 for the stem, 2 also the stages up to C2, and so on.
            levels: dict from "C2", … to the number of the stage that the level is the output of.
        """
        if not freeze_at:
            return
        last = [0, *levels.values()][freeze_at - 1]
        frozen = {"stem", *(f"stage{stage}" for stage in range(1, last + 1))}
        for layer in self.layers:
            if layer.name.split("_")[0] in frozen:
                layer.trainable = False

    def get_config(self):
        """Constructor arguments."""
        config = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters if name != "dtype"}
        return {**config, "dtype": keras.saving.serialize_keras_object(self._dtype_argument)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        return cls(**{**config, "dtype": keras.saving.deserialize_keras_object(config.get("dtype"))})
