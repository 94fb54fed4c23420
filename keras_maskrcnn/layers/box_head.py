"""Second stage: what is in a region, and where exactly (Fast R-CNN head on FPN features)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class BoxHead(keras.layers.Layer):
    """Two fully connected layers, then class logits and class-specific box deltas.

    Args:
        num_classes: classes without background; outputs have `num_classes + 1` columns, 0 is background.
        width: units of each hidden layer.
    """

    def __init__(self, num_classes, width=1024, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.width = num_classes, width

    def build(self, input_shape):
        """Create the layers for regions of `input_shape` (N, P, P, C)."""
        dense = {"dtype": self.dtype_policy}
        self.fc1 = keras.layers.Dense(
            self.width, activation="relu", kernel_initializer="he_normal", name="fc1", **dense
        )
        self.fc2 = keras.layers.Dense(
            self.width, activation="relu", kernel_initializer="he_normal", name="fc2", **dense
        )
        outputs = self.num_classes + 1
        self.classes = keras.layers.Dense(
            outputs, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="classes", **dense
        )
        self.deltas = keras.layers.Dense(
            4 * outputs, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001), name="deltas", **dense
        )
        self.fc1.build((None, input_shape[1] * input_shape[2] * input_shape[3]))
        for layer in (self.fc2, self.classes, self.deltas):
            layer.build((None, self.width))

    def call(self, regions):
        """Classify regions and refine their boxes.

        Args:
            regions: `[N, P, P, C]`.

        Returns:
            (logits, deltas): float32 `[N, K + 1]` and `[N, K + 1, 4]`.
        """
        flat = ops.reshape(regions, (-1, regions.shape[1] * regions.shape[2] * regions.shape[3]))
        hidden = self.fc2(self.fc1(flat))
        deltas = ops.reshape(self.deltas(hidden), (-1, self.num_classes + 1, 4))
        return ops.cast(self.classes(hidden), "float32"), ops.cast(deltas, "float32")

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "num_classes": self.num_classes, "width": self.width}
