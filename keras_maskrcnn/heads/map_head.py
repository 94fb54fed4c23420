"""Base of the heads that compute maps of the whole image from the feature pyramid."""

import dataclasses

from keras_maskrcnn.heads.head import Head

STRIDE = 4  # pixels per cell of the usual maps: a quarter of the image's resolution


class MapHead(Head):
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

    def place(self, strides, channels, regions, seed, trunk):
        """Set the strides, see `Head`; `channels` is one number, or one for each level."""
        del regions, seed, trunk
        self.strides = tuple(strides)
        self.stride = self.cell()
        self.OUTPUTS = tuple(
            dataclasses.replace(output, stride=self.stride) if output.kind == "map" else output
            for output in self.OUTPUTS
        )
        widths = [channels] * len(self.strides) if isinstance(channels, int) else channels
        return [(None, None, None, width) for width in widths]

    def cell(self):
        """Pixels of the input per cell of the maps: `STRIDE`, or the finest level's stride if that is less."""
        return min(STRIDE, *self.strides)

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
