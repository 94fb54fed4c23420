"""Necks: which feature maps the RPN and the regions take, and which layers of the backbone run on the regions' crops.

| neck  | feature maps                                      | heads start with                                     |
|-------|---------------------------------------------------|------------------------------------------------------|
| "fpn" | P2 … P6; regions are taken from P2 … P5           | RoIAlign's crops                                     |
| "c4"  | C4, stride 16                                     | the backbone's fifth stage, on crops of twice `pool` |
| "dc5" | C5 of a dilated fifth stage, stride 16            | RoIAlign's crops                                     |
| None  | the backbone's last level, such as C5, stride 32  | RoIAlign's crops                                     |

"c4" is the network of He et al. (2015) for Faster R-CNN, and of Mask R-CNN, figure 4 left: class and box from the
average of the fifth stage's 7×7 bins, masks from a deconvolution of the same bins. "dc5" is that of Dai et al. (2017).
"""

from keras_maskrcnn import backbones
from keras_maskrcnn.layers.folding import FoldingModel
from keras_maskrcnn.layers.fpn import FPN

NECKS = ("fpn", "c4", "dc5", None)

# One level has the anchors of all sizes, and all candidates of NMS: Faster R-CNN takes 6,000 where a pyramid's level
# has 1,000. The paper tests a C4 model with 300 proposals and trains it on 64 regions per image (section 3.1).
_ONE_LEVEL: dict[str, dict] = {
    "anchors": {"sizes": ((32, 64, 128, 256, 512),)},
    "proposals": {"pre_nms": 6000, "training_post_nms": 2000},
}
USUAL: dict[str, dict] = {
    "c4": {
        "anchors": _ONE_LEVEL["anchors"],
        "proposals": {**_ONE_LEVEL["proposals"], "post_nms": 300},
        "box_sampling": {"size": 64},
        "box_stage": {"hidden": 0, "average": True},
        "mask_stage": {"pool": 7, "depth": 0},
    },
    "dc5": _ONE_LEVEL,
}


def with_usual(neck, **groups):
    """List of groups of options, each an instance, a dict or None, with those of `USUAL` that a dict does not name."""
    usual = USUAL.get(neck, {})
    return [
        {**usual[name], **(given or {})} if name in usual and isinstance(given, dict | None) else given
        for name, given in groups.items()
    ]


def dilated(neck, backbone):
    """The name or options of a backbone, with the dilation that the neck needs; a Keras model is returned unchanged.

    Raises:
        ValueError: if the backbone of that name cannot be dilated.
    """
    if neck != "dc5" or not isinstance(backbone, str | dict):
        return backbone
    options = {"name": backbone} if isinstance(backbone, str) else backbone
    name = options.get("name")
    if name in backbones.NAMES and not backbones.takes(name, "dilated"):
        able = ", ".join(other for other in backbones.NAMES if backbones.takes(other, "dilated"))
        raise ValueError(f"neck='dc5' needs a backbone that can be dilated, {name} cannot: take one of {able}")
    return {"dilated": True, **options}


def make(neck, backbone, fpn_channels, fpn_norm, dtype):
    """The `Neck` of a name.

    Args:
        neck: one of `NECKS`.
        backbone: Keras model with outputs {"C2": …}.
        fpn_channels: width of a pyramid.
        fpn_norm: normalisation in a pyramid.
        dtype: Keras dtype policy of new layers.

    Raises:
        ValueError: if the backbone has no such maps.
    """
    if neck == "fpn":
        return Pyramid(backbone, FPN(fpn_channels, norm=fpn_norm, name="fpn", dtype=dtype))
    return FourthStage(backbone) if neck == "c4" else LastLevel(backbone, stride=16 if neck == "dc5" else None)


class Neck:
    """Feature maps for the RPN and for the regions. It holds no weights that are not those of the model's parts.

    A subclass sets the attributes and implements `__call__(images, training)`: normalised images `[B, H, W, C]` to a
    dict of `[B, H_l, W_l, channels]` by level, finest first.

    Attributes:
        strides: dict from the names of the levels to their strides, finest first.
        channels: width of the levels.
        region_levels: names of the levels that regions may be sampled from.
        canvas_stride: pixels of which the sides of a canvas are multiples.
        fpn: the pyramid's layer, or None.
        trunk: `Trunk`, the first layers of all heads, or None.
    """

    fpn = trunk = None

    def __init__(self, backbone):
        self.backbone = backbone

    def levels(self, only=None):
        """Names of the levels that regions are sampled from, or the one with the number `only`.

        Raises:
            ValueError: if there is no such level.
        """
        found = [level for level in self.region_levels if only is None or int(level[1:]) == only]
        if not found:
            raise ValueError(f"regions level={only} is not one of {', '.join(self.region_levels)}")
        return found


class Pyramid(Neck):
    """A feature pyramid over all levels of the backbone.

    Args:
        backbone: Keras model with outputs {"C2": …}.
        fpn: `layers.fpn.FPN`, which is built here.
    """

    def __init__(self, backbone, fpn):
        super().__init__(backbone)
        below, features = backbones.strides(backbone), dict(sorted(backbone.output.items()))
        self.canvas_stride = max(below.values())
        if len(set(below.values())) < len(below):
            raise ValueError(f"neck='fpn' needs levels of different strides, {backbone.name} has {below}")
        self.fpn, self.channels = fpn, fpn.channels
        fpn.build({level: tensor.shape for level, tensor in features.items()})
        self.strides = {level: 2 ** int(level[1:]) for level in fpn.compute_output_spec(features)}
        self.region_levels = list(self.strides)[:-1]  # only the RPN uses P6 (FPN paper, section 4.1)

    def __call__(self, images, training=False):
        """The pyramid of images."""
        return self.fpn(self.backbone(images, training=training), training=training)


class LastLevel(Neck):
    """The backbone's last level.

    Args:
        backbone: Keras model with outputs {"C2": …}.
        stride: stride that the level must have, or None for any.
    """

    def __init__(self, backbone, stride=None):
        super().__init__(backbone)
        level, found = list(backbones.strides(backbone).items())[-1]
        if stride not in (None, found):
            name = f"{backbone.name} has {level} of stride {found}"
            raise ValueError(f"neck='dc5' needs a backbone with a last level of stride {stride}: {name}; dilated=True?")
        self.strides, self.region_levels, self.canvas_stride = {level: found}, [level], found
        self.channels = backbone.output[level].shape[-1]

    def __call__(self, images, training=False):
        """The level of images."""
        (level,) = self.strides
        return {level: self.backbone(images, training=training)[level]}


class FourthStage(Neck):
    """C4; the fifth stage is the trunk of the heads.

    Args:
        backbone: `layers.folding.FoldingModel` whose output C5 depends on its output C4 only.
    """

    def __init__(self, backbone):
        super().__init__(backbone)
        self.trunk = Trunk(backbone)
        self.canvas_stride = backbones.strides(backbone)["C4"]
        self.strides, self.region_levels = {"C4": self.canvas_stride}, ["C4"]
        self.channels = backbone.output["C4"].shape[-1]

    def __call__(self, images, training=False):
        """C4 of images; the fifth stage does not run."""
        return self.backbone.section(images, ends=("C4",), training=training)


class Trunk:
    """The fifth stage of a backbone, on crops of C4. It is no layer: its weights are part of the backbone.

    Args:
        backbone: as for `FourthStage`.

    Attributes:
        stride: bins of a crop per bin of the result.
        channels: channels of the result.

    Raises:
        ValueError: if the backbone has no fifth stage that can run alone.
    """

    def __init__(self, backbone):
        if not {"C4", "C5"} <= set(backbone.output):
            names = ", ".join(sorted(backbone.output))
            raise ValueError(f"neck='c4' needs a backbone with a fifth stage, {backbone.name} has {names} only")
        if not isinstance(backbone, FoldingModel) or not backbone.is_section("C4", "C5"):
            raise ValueError(f"neck='c4': the fifth stage of {backbone.name} cannot run on crops of C4 alone")
        strides = backbones.strides(backbone)
        self.backbone, self.stride = backbone, strides["C5"] // strides["C4"]
        self.channels = backbone.output["C5"].shape[-1]

    def __call__(self, crops, training=False, valid=None):
        """Run the stage.

        Args:
            crops: `[N, P·stride, P·stride, C]`.
            training: whether batch normalisation uses the batch's statistics.
            valid: bool `[N]`, the crops that these statistics are computed from; None for all.

        Returns:
            `[N, P, P, channels]`.
        """
        return self.backbone.section(crops, "C4", ("C5",), training, valid)["C5"]
