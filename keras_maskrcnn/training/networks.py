"""`--model` of the recipes: Mask R-CNN, or YOLACT for the same images, with the same backbone and pyramid width."""

from keras_maskrcnn.models import YOLACT, MaskRCNN
from keras_maskrcnn.training import anchor_proposal, recipe

MODELS = ("mask_rcnn", "yolact")
STRIDES = (8, 16, 32, 64, 128)  # of YOLACT's levels, P3 to P7
# Sides of YOLACT's anchors in strides of their level, three an octave. Objects of a few strides need them: with one
# size a level, as in the paper, medium objects of small images would have their anchors on a level too coarse for them.
SIDES = (2.0, 2.5, 3.2)


def add_argument(parser):
    """Adds `--model`."""
    parser.add_argument(
        "--model",
        choices=MODELS,
        default=MODELS[0],
        help="two stages, or one, which needs less time for an image; options of regions, stages and mask cells have "
        "no effect on yolact (default: %(default)s)",
    )


def build(arguments, num_classes, *, fpn_channels, anchors, mask_rcnn, detection=None, **common):
    """The network of `--model` with random heads.

    The heads of YOLACT are as wide as the pyramid. Its anchors have the ratios of Mask R-CNN's, see `anchors_of_yolact`
    for their sizes.

    Args:
        arguments: parsed arguments with `model`, `seed` and `precision`.
        num_classes: classes without background.
        fpn_channels: width of the pyramid.
        anchors: dict of fields of `heads.anchors.Anchors` for P2 to P6; None for the defaults of the class.
        mask_rcnn: arguments that only `MaskRCNN` has.
        detection: dict of fields of `heads.detection.Detection`, or None.
        **common: arguments that both classes have, such as those of `recipe.backbone` and `image_size`.

    Returns:
        an `InstanceModel`.
    """
    backbone = common.get("backbone")
    if recipe.value(arguments, "sync_batch_norm") and isinstance(backbone, dict) and backbone.get("norm") == "batch":
        common["backbone"] = {**backbone, "norm": "sync_batch"}
    common |= {"fpn_channels": fpn_channels, "seed": arguments.seed, "dtype": recipe.policy(arguments)}
    if arguments.model == "mask_rcnn":
        return MaskRCNN(num_classes, anchors=anchors, detection=detection, **mask_rcnn, **common)
    detection = dict(detection or {})
    anchors = anchors and anchors_of_yolact(anchors)
    if anchors:
        print(f"anchors of yolact: sizes {anchor_proposal.sizes_text(anchors)}")
    detection["per_class"] = max(200, detection.get("max_detections", 0))  # else Fast NMS would keep fewer of a class
    return YOLACT(
        num_classes,
        anchors=anchors,
        stage={"width": fpn_channels},
        prototypes={"width": fpn_channels},
        detection=detection,
        **common,
    )


def anchors_of_yolact(anchors):
    """Anchors on P3 to P7 for objects that others on P2 to P6 were chosen for.

    A level has three sizes, `SIDES` times its stride; all are larger where the largest would else be smaller than the
    largest given one.

    Args:
        anchors: dict of `sizes` and optionally `ratios`.

    Returns:
        dict of `sizes` and, if they are given, `ratios`.
    """
    largest = max(max(level) for level in anchors["sizes"])
    factor = max(1.0, largest / (SIDES[-1] * STRIDES[-1]))
    sizes = tuple(tuple(round(factor * side * stride, 1) for side in SIDES) for stride in STRIDES)
    return {**anchors, "sizes": sizes}
