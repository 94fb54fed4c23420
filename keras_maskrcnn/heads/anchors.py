"""Anchor boxes and their assignment to ground truth, for the RPN and for one-stage heads."""

import dataclasses

from keras import ops

from keras_maskrcnn.heads.ground_truth import Sampling
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.anchors import pyramid_anchors
from keras_maskrcnn.ops.matching import match
from keras_maskrcnn.options import Options, check_choice, check_positive


@dataclasses.dataclass(frozen=True)
class Anchors(Options):
    """Anchor boxes.

    Attributes:
        sizes: one tuple of side lengths (pixels of the input) per level; None takes 8 times the level's stride.
        ratios: aspect ratios, height over width.
        rounded: integer corner coordinates, as torchvision's weights expect.
        offset: shift of the centres, in strides.
        spacing: distance of the centres: "stride", that of the level; or "canvas", the canvas's side divided by the
            level's cells and rounded down (torchvision). The two differ where a level's stride does not divide the
            canvas: 800 pixels make 13 cells of P6, which torchvision places 61 pixels apart. "cells" is "canvas"
            without the rounding: with `offset` 0.5 the centres are those of the cells of any canvas (YOLACT).
        square: whether anchors have the width that follows from size and ratio as their height too, see
            `ops.anchors.cell_anchors`.

    Raises:
        ValueError: if `sizes` is not one tuple per level, all of one length; for sizes or ratios that are not above 0;
            or for another `spacing`.
    """

    sizes: tuple | None = None
    ratios: tuple = (0.5, 1.0, 2.0)
    rounded: bool = False
    offset: float = 0.0
    spacing: str = "stride"
    square: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_choice("spacing", self.spacing, ("stride", "canvas", "cells"))
        check_positive("ratios", self.ratios)
        if self.sizes is None:
            return
        lengths = {len(level) if isinstance(level, tuple) else 0 for level in self.sizes}
        if 0 in lengths or len(lengths) != 1:
            raise ValueError(f"sizes={self.sizes} must hold one tuple per level, all of one length")
        for level in self.sizes:
            check_positive("sizes", level)

    def level_sizes(self, strides):
        """Side lengths for levels of the given strides."""
        return self.sizes or tuple((8 * stride,) for stride in strides)

    def boxes(self, image_size, strides, cells=None):
        """Anchors of every level for a canvas (height, width): list of float32 `[A_l, 4]`, in pixels.

        Arrays where the sides are numbers, tensors where they are known at run time only. `cells` are (rows, columns)
        of each level, where they are not those of the strides.
        """
        sizes = self.level_sizes(strides)
        conventions = (self.rounded, self.offset, self.spacing, self.square)
        return pyramid_anchors(image_size, strides, sizes, self.ratios, *conventions, cells)

    def per_location(self):
        """Number of anchors per location."""
        return len(self.ratios) * (len(self.sizes[0]) if self.sizes else 1)


@dataclasses.dataclass(frozen=True)
class AnchorSampling(Sampling):
    """Anchors that train the RPN; the best anchors of each object are positive at any IoU.

    Attributes:
        cross_boundary: anchors that extend beyond their image: "keep" (torchvision, detectron2), or "ignore", which
            leaves them out of both losses (Faster R-CNN, section 3.3).

    Raises:
        ValueError: for another `cross_boundary`.
    """

    cross_boundary: str = "keep"

    def __post_init__(self):
        super().__post_init__()
        check_choice("cross_boundary", self.cross_boundary, ("keep", "ignore"))


def assign_anchors(anchors, truth, sampling, sizes):
    """Assignment of anchors to ground truth (Faster R-CNN, section 3.1.2).

    Args:
        anchors: float32 `[A, 4]`.
        truth: dict of ground truth.
        sampling: `AnchorSampling`.
        sizes: float32 `[B, 2]`, height and width of each image inside the input.

    Returns:
        (matched, role), each int32 `[B, A]`, see `ops.matching.match`.
    """
    usable = None
    if sampling.cross_boundary == "ignore":
        inside = box_ops.clip(ops.tile(anchors[None], (ops.shape(sizes)[0], 1, 1)), sizes)
        usable = ops.all(inside == anchors, axis=-1)
    boxes, valid, crowd = truth["boxes"], truth["valid"], truth["crowd"]
    return match(anchors, boxes, valid, crowd, keep_best=True, usable=usable, **sampling.matching())
