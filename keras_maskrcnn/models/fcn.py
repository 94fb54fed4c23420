"""Fully convolutional network (Long et al. 2015): image → levels of a backbone → class of each pixel."""

import os
from collections.abc import Sequence

import keras
from keras import ops

from keras_maskrcnn import backbones
from keras_maskrcnn.heads.fcn import AuxiliaryHead, FCNHead
from keras_maskrcnn.models.freezing import freeze, frozen_names
from keras_maskrcnn.models.image_model import ImageModel
from keras_maskrcnn.options import Options


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class FCN(ImageModel):
    """Semantic segmentation: the class of each pixel. It is trained with `data.LabelMap`s named "semantic".

    Args:
        num_classes: classes K without background, which has the label 0. `data.LabelMap.ignore`, 255, is the label of
            pixels that are not trained on.
        backbone: as for `MaskRCNN`.
        stride: the finest stride of the levels that are fused: 32 for the last level of a usual backbone alone
            ("FCN-32s"), 16 with C4, 8 with C3 ("FCN-8s"), 4 with C2. With dilation the last level itself is as fine:
            `backbone={"name": "resnet50", "output_stride": 8}`.
        upsampling: how maps get from one stride to the next and to pixels, one of `layers.upsampling.METHODS`.
        skips: "add" for the sum of the scores of the levels, "concatenate" for their features side by side (U-Net).
        stage: `heads.fcn.FCNStage`, or a dict of its fields.
        auxiliary: `heads.fcn.FCNStage`, or a dict of its fields, for a second classifier in training, on the level
            before the last one; None for none.
        frozen: names of the frozen layers, as for `MaskRCNN`.
        weights: initial weights of the backbone, as for `MaskRCNN`.
        name: name of the model.
        **common: further arguments of `ImageModel`.

    Raises:
        ValueError: in one line, for `num_classes` outside 1…254, unknown names, a stride that no level has, or options
            that do not fit together.
    """

    neck = None  # as of a `MaskRCNN` without a pyramid, for the name maps of weights

    def __init__(
        self,
        num_classes: int,
        backbone: str | dict | keras.Model = "resnet50",
        *,
        stride: int = 8,
        upsampling: str = "bilinear",
        skips: str = "add",
        stage: Options | dict | None = None,
        auxiliary: Options | dict | None = None,
        frozen: Sequence[str] | None = None,
        weights: str | os.PathLike | None = None,
        name: str = "fcn",
        **common,
    ):
        super().__init__(num_classes, name=name, **common)
        self.backbone = backbones.get(backbone, self.layer_dtype, weights, self.image_type.channels)
        self.stride, self.upsampling, self.skips = stride, upsampling, skips
        strides = backbones.strides(self.backbone)
        if stride not in strides.values():
            raise ValueError(f"stride={stride!r} is not one of {sorted(set(strides.values()))}, the backbone's")
        if self.image_size:
            self.check_canvas(self.image_size)
        deepest = {of: level for level, of in strides.items()}  # the last level of each stride
        # "max_unpool" takes the places of the finer levels too.
        self.levels = [level for of, level in deepest.items() if of >= stride or upsampling == "max_unpool"]
        options = {"upsampling": upsampling, "skips": skips, "dtype": self.layer_dtype}
        self.head = FCNHead(self.num_classes, stride, stage=stage, name="fcn_head", **options)
        self._connect(self.head, self.levels)
        self.auxiliary = self.auxiliary_level = None
        if auxiliary is not None:
            policy = {"dtype": self.layer_dtype}
            self.auxiliary_level = self._before_last(strides)
            self.auxiliary = AuxiliaryHead(self.num_classes, stage=auxiliary, name="auxiliary_head", **policy)
            self._connect(self.auxiliary, [self.auxiliary_level])
        self.declare(self, *self.all_heads().values())
        if frozen is not None:
            freeze(self, frozen)
        self.built = True

    def _connect(self, head, levels):
        strides = backbones.strides(self.backbone)
        widths = [self.backbone.output[level].shape[-1] for level in levels]
        head.connect([strides[level] for level in levels], widths)

    def _before_last(self, strides):
        if len(strides) < 2:
            raise ValueError(f"auxiliary needs two levels, and {self.backbone.name} has {', '.join(strides)} only")
        return list(strides)[-2]

    def call(self, inputs, training=False):
        """Losses if there is ground truth among the inputs, logits otherwise.

        Args:
            inputs: dict of `images` `[B, H, W, C]` of the model's `image_type`, or as float, and `sizes` float32
                `[B, 2]` (height and width of each image inside the canvas). For training also `semantic` uint8
                `[B, H, W]`, the label of each pixel of the canvas.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars (`loss_names`); or dict of `semantic` float32 `[B, h, w, K + 1]`, logits in cells of
            `head.stride` pixels.
        """
        truth = self.ground_truth(inputs)
        features = self.backbone(
            self.normalise(inputs["images"], ops.cast(inputs["sizes"], "float32")), training=training
        )
        if truth is None:
            return self.head.predict([features[level] for level in self.levels])
        losses = dict.fromkeys(self.loss_names, ops.zeros(()))
        for head, levels in ((self.head, self.levels), (self.auxiliary, [self.auxiliary_level])):
            if head is not None and not self.left_out(*head.LOSSES):
                losses.update(head.losses([features[level] for level in levels], truth, training))
        return losses

    def ground_truth(self, inputs):
        """Ground truth among the inputs, checked by the head; None if there is none."""
        truth = super().ground_truth(inputs)
        if truth:
            self.head.check(inputs)
        return truth

    def segment(self, image, **options):
        """The class of each pixel of images of any size.

        Args:
            image: as for `detect`: an array, or a list of arrays of unequal sizes.
            **options: `batch_size`, `tiles` and `overlap` of `detect`.

        Returns:
            uint8 `[H, W]`, 0 for background and 1…K; for a list, a list of them.
        """
        found = self.detect(image, **options)
        return [one["semantic"] for one in found] if isinstance(found, list) else found["semantic"]

    def class_names_of(self, data):
        """Names of the labels 1…K of the map in a result of `data.batches`; None if they are not known.

        Raises:
            ValueError: if the map has another label for pixels that are ignored than the model.
        """
        fields = data.rows.prepare.fields if hasattr(data, "rows") else ()
        field = next((of for of in fields if of.name == "semantic"), None)
        if field is None:
            return None
        for head in self.all_heads().values():
            if field.ignore != head.stage.ignore:
                raise ValueError(f"the map has ignore={field.ignore}, the option of {head.name} is {head.stage.ignore}")
        return list(field.class_names[1:]) if field.class_names else None

    def all_heads(self):
        """Heads by name."""
        return {head.name: head for head in (self.head, self.auxiliary) if head is not None}

    def parts(self):
        """Parts that hold weights by name, in the order in which `call` runs them."""
        return {"backbone": self.backbone, **self.all_heads()}

    def canvas_stride(self):
        """Pixels of which the sides of a canvas are multiples: the coarsest stride of the backbone."""
        return max(backbones.strides(self.backbone).values())

    def get_config(self):
        """Constructor arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "stride": self.stride,
            "upsampling": self.upsampling,
            "skips": self.skips,
            "stage": self.head.stage.asdict(),
            "auxiliary": None if self.auxiliary is None else self.auxiliary.stage.asdict(),
            "frozen": frozen_names(self),
            "weights": None,
        }
