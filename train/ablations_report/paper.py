"""Tables of Mask R-CNN (He et al. 2017, arXiv:1703.06870v3) in AP points, and the variants for their rows."""

import dataclasses

MASKS = ("segm_AP", "segm_AP50", "segm_AP75")
BOXES = ("bbox_AP", "bbox_AP50", "bbox_AP75")


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        title: its number and subject.
        figures: names of the columns, as `evaluation.coco_scores` has them.
        rows: dict from variants to (name of the row, published figures, None where there is none).
        pairs: pairs of variants that the paper compares, the base first.
        judged: names of the figures whose order is checked.
    """

    title: str
    figures: tuple
    rows: dict
    pairs: tuple
    judged: tuple = ("segm_AP", "segm_AP75")

    def published(self, variant, figure):
        """The paper's figure in AP points, or None."""
        return self.rows[variant][1][self.figures.index(figure)]


TABLES = {
    "backbones": Table(
        "2(a): backbones and necks (here ResNet-18 for ResNet-50, ResNet-34 for 101, ResNeXt-50 for ResNeXt-101)",
        MASKS,
        {
            "c4": ("ResNet-50-C4", (30.3, 51.2, 31.5)),
            "c4_deep": ("ResNet-101-C4", (32.7, 54.2, 34.3)),
            "fpn": ("ResNet-50-FPN", (33.6, 55.2, 35.3)),
            "fpn_deep": ("ResNet-101-FPN", (35.4, 57.3, 37.5)),
            "fpn_resnext": ("ResNeXt-101-FPN", (36.7, 59.5, 38.9)),
        },
        (
            ("c4", "c4_deep"),
            ("fpn", "fpn_deep"),
            ("c4", "fpn"),
            ("c4_deep", "fpn_deep"),
            ("fpn_deep", "fpn_resnext"),
        ),
    ),
    "loss": Table(
        "2(b): loss of the masks, C4",
        MASKS,
        {"c4_softmax": ("softmax", (24.8, 44.1, 25.1)), "c4": ("sigmoid", (30.3, 51.2, 31.5))},
        (("c4_softmax", "c4"),),
    ),
    "agnostic": Table(
        "section 4.2: masks for each class or one for all, C4",
        MASKS,
        {"c4_agnostic": ("class-agnostic", (29.7, None, None)), "c4": ("class-specific", (30.3, 51.2, 31.5))},
        (("c4_agnostic", "c4"),),
        ("segm_AP",),
    ),
    "roi": Table(
        "2(c): pooling of regions, C4, stride 16",
        MASKS,
        {
            "c4_pool": ("RoIPool, max", (26.9, 48.8, 26.4)),
            "c4_warp_max": ("RoIWarp, max", (27.2, 49.2, 27.1)),
            "c4_warp_average": ("RoIWarp, average", (27.1, 48.9, 27.1)),
            "c4_align_max": ("RoIAlign, max", (30.2, 51.0, 31.8)),
            "c4": ("RoIAlign, average", (30.3, 51.2, 31.5)),
        },
        (
            ("c4_pool", "c4"),
            ("c4_warp_average", "c4"),
            ("c4_warp_max", "c4_align_max"),
            ("c4_pool", "c4_warp_max"),
            ("c4_align_max", "c4"),
        ),
    ),
    "stride": Table(
        "2(d): pooling of regions, C5, stride 32",
        (*MASKS, *BOXES),
        {
            "c5_pool": ("RoIPool", (23.6, 46.5, 21.6, 28.2, 52.7, 26.9)),
            "c5": ("RoIAlign", (30.9, 51.8, 32.1, 34.0, 55.3, 36.4)),
        },
        (("c5_pool", "c5"),),
        ("segm_AP", "segm_AP75", "bbox_AP", "bbox_AP75"),
    ),
    "branch": Table(
        "2(e): layers of the mask branch, FPN",
        MASKS,
        {
            "fpn_mlp2": ("MLP, two hidden layers", (31.5, 53.7, 32.8)),
            "fpn_mlp3": ("MLP, three hidden layers", (31.5, 54.0, 32.6)),
            "fpn": ("FCN", (33.6, 55.2, 35.3)),
        },
        (("fpn_mlp2", "fpn"), ("fpn_mlp3", "fpn"), ("fpn_mlp2", "fpn_mlp3")),
    ),
    "multitask": Table(
        "3: boxes with and without the mask branch, FPN (ResNet-101 in the paper)",
        BOXES,
        {
            "fpn_boxes": ("Faster R-CNN, RoIAlign", (37.3, 59.6, 40.3)),
            "fpn": ("Mask R-CNN", (38.2, 60.3, 41.7)),
        },
        (("fpn_boxes", "fpn"),),
        ("bbox_AP", "bbox_AP75"),
    ),
    "keypoints": Table(
        "5: boxes, masks and keypoints of persons (stick figures), FPN",
        ("bbox_AP", "segm_AP", "keypoints_AP"),
        {
            "figures_boxes": ("Faster R-CNN", (52.5, None, None)),
            "figures_masks": ("Mask R-CNN, mask-only", (53.6, 45.8, None)),
            "figures_keypoints": ("Mask R-CNN, keypoint-only", (50.7, None, 64.2)),
            "figures_all": ("Mask R-CNN, keypoint & mask", (52.0, 45.1, 64.7)),
        },
        (
            ("figures_boxes", "figures_masks"),
            ("figures_boxes", "figures_keypoints"),
            ("figures_keypoints", "figures_all"),
            ("figures_masks", "figures_all"),
        ),
        ("bbox_AP", "segm_AP", "keypoints_AP"),
    ),
}
