"""Second stage: what is in a region, and where exactly (Fast R-CNN head on FPN features)."""

import keras
from keras import ops

from keras_maskrcnn.layers.conv_stack import ConvStack


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class BoxHead(keras.layers.Layer):
    """Convolutions if asked for, fully connected layers, then class logits and class-specific box deltas.

    Args:
        num_classes: classes without background; outputs have `num_classes + 1` columns, 0 is background.
        width: units of each hidden layer.
        num_hidden: number of hidden layers.
        num_convs: number of 3×3 convolutions before them, as wide as the input.
        norm: normalisation after each convolution, see `layers.norm.norm`.
    """

    def __init__(self, num_classes, width=1024, num_hidden=2, num_convs=0, norm=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.width, self.num_hidden = num_classes, width, num_hidden
        self.num_convs, self.norm = num_convs, norm

    def build(self, input_shape):
        """Create the layers for regions of `input_shape` (N, P, P, C)."""
        dense = {"dtype": self.dtype_policy}
        self.stack = ConvStack(self.num_convs, input_shape[-1], self.norm, name="stack", **dense)
        self.hidden = [
            keras.layers.Dense(
                self.width, activation="relu", kernel_initializer="he_normal", name=f"fc{i + 1}", **dense
            )
            for i in range(self.num_hidden)
        ]
        outputs = self.num_classes + 1
        self.classes = keras.layers.Dense(
            outputs, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="classes", **dense
        )
        self.deltas = keras.layers.Dense(
            4 * outputs, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001), name="deltas", **dense
        )
        self.stack.build(input_shape)
        units = input_shape[1] * input_shape[2] * input_shape[3]
        for layer in self.hidden:
            layer.build((None, units))
            units = self.width
        self.classes.build((None, units))
        self.deltas.build((None, units))

    @property
    def convs(self):
        """The convolutions before the hidden layers."""
        return self.stack.convs

    @property
    def norms(self):
        """Their normalisations; empty without."""
        return self.stack.norms

    def call(self, regions, training=False):
        """Classify regions and refine their boxes.

        Args:
            regions: `[N, P, P, C]`.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            (logits, deltas): float32 `[N, K + 1]` and `[N, K + 1, 4]`.
        """
        regions = self.stack(regions, training=training)
        hidden = ops.reshape(regions, (-1, regions.shape[1] * regions.shape[2] * regions.shape[3]))
        for layer in self.hidden:
            hidden = layer(hidden)
        deltas = ops.reshape(self.deltas(hidden), (-1, self.num_classes + 1, 4))
        return ops.cast(self.classes(hidden), "float32"), ops.cast(deltas, "float32")

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "width": self.width,
            "num_hidden": self.num_hidden,
            "num_convs": self.num_convs,
            "norm": self.norm,
        }
