"""The variants: arguments of `MaskRCNN` by name, as plain dicts.

Each differs from its base in the one choice that its table is about. The networks are narrow, for images of 128×128
pixels: "c4" samples regions from one map of stride 16 and has the backbone's
fifth stage as head, "c5" from one of stride 32, "fpn" from a pyramid of strides 4 to 32.
"""

from keras_maskrcnn import data
from keras_maskrcnn.training import recipe

SHALLOW = {"name": "resnet18", "norm": "batch", "width": 16}
DEEP = {"name": "resnet34", "norm": "batch", "width": 16}
# Bottlenecks whose 3×3 convolutions have 8 groups, of 4 channels in the first stage; as many blocks as ResNet-34.
GROUPED = {"name": "resnet50", "norm": "batch", "width": 16, "groups": 8, "width_per_group": 16}
ONE_LEVEL = {"sizes": ((12, 24, 48, 64, 96),)}
PYRAMID = {"sizes": ((12,), (24,), (48,), (64,), (96,))}
MASK = {"width": 64, "depth": 2}

FPN = {**recipe.SMALL, "backbone": SHALLOW, "neck": "fpn", "fpn_channels": 64, "anchors": PYRAMID, "mask_stage": MASK}
C5 = {**recipe.SMALL, "backbone": SHALLOW, "neck": None, "anchors": ONE_LEVEL, "mask_stage": MASK}
C4 = {**C5, "neck": "c4", "mask_stage": {"width": 64}, "box_sampling": {"size": 32}}
KEYPOINTS = {
    "module": "keras_maskrcnn.heads.keypoint",
    "class_name": "KeypointHead",
    "registered_name": "keras_maskrcnn>KeypointHead",
    "config": {"name": "keypoint_head", "stage": {"width": 64, "depth": 4}},
}
POOL = {"pooling": "pool", "reduce": "max"}

SHAPES = {
    "c4": C4,
    "c4_deep": {**C4, "backbone": DEEP},
    "fpn": FPN,
    "fpn_deep": {**FPN, "backbone": DEEP},
    "fpn_resnext": {**FPN, "backbone": GROUPED},
    "c4_softmax": {**C4, "mask_stage": {**C4["mask_stage"], "loss": "softmax"}},
    "c4_agnostic": {**C4, "mask_stage": {**C4["mask_stage"], "class_agnostic": True}},
    "c4_pool": {**C4, "regions": POOL},
    "c4_warp_max": {**C4, "regions": {"pooling": "warp", "reduce": "max"}},
    "c4_warp_average": {**C4, "regions": {"pooling": "warp", "reduce": "average"}},
    "c4_align_max": {**C4, "regions": {"pooling": "align", "reduce": "max"}},
    "c5_pool": {**C5, "regions": POOL},
    "c5": C5,
    "fpn_mlp2": {**FPN, "mask_stage": {"kind": "mlp", "hidden": 2, "width": 256}},
    "fpn_mlp3": {**FPN, "mask_stage": {"kind": "mlp", "hidden": 3, "width": 256}},
    "fpn_boxes": {**FPN, "mask_stage": None},
}
FIGURES = {
    "figures_boxes": {**FPN, "mask_stage": None},
    "figures_masks": FPN,
    "figures_keypoints": {**FPN, "mask_stage": None, "heads": [KEYPOINTS]},
    "figures_all": {**FPN, "heads": [KEYPOINTS]},
}
VARIANTS = {**SHAPES, **FIGURES}

# Thin, rotated, overlapping shapes, whose smaller side is often below the stride of the features.
DRAWN = {
    "kinds": ("bar", "elbow", "cross", "ring"),
    "objects": (2, 5),
    "object_size": (28, 80),
    "thickness": (0.16, 0.28),
    "texture": (0, 15),
    "noise": (2, 8),
}


def dataset(name, count, image_size, seed):
    """The images of a variant: thin shapes, or stick figures for those with keypoints and their baselines."""
    if name in FIGURES:
        return data.StickFigures(count, image_size=image_size, seed=seed)
    return data.Shapes(count, image_size=image_size, seed=seed, **DRAWN)
