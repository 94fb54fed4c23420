"""Boundary IoU and boundary AP.

B. Cheng, R. Girshick, P. Dollár, A. C. Berg, A. Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021. The boundary region of a mask is its pixels within d pixels of its outline, d being 2 % of the
diagonal of the image; boundary IoU is the IoU of the boundary regions of two masks (equation 1 there). Boundary AP is
COCO's mask AP with the smaller of mask IoU and boundary IoU as the overlap (section 5). It responds to faults at the
outlines of large objects, which hardly change their mask IoU.
"""

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.cocoeval import COCOeval

DILATION = 0.02  # of the diagonal of the image


def boundary_iou(mask, other, dilation=DILATION):
    """Boundary IoU of two masks: 0..1; 0 if both are empty.

    Args:
        mask: bool [H, W].
        other: bool [H, W].
        dilation: width of the boundary region as a share of the diagonal of the image.
    """
    width = boundary_width(np.shape(mask), dilation)
    region, other = (boundary_region(np.asarray(each, bool), width) for each in (mask, other))
    return float(np.count_nonzero(region & other) / max(1, np.count_nonzero(region | other)))


def boundary_width(size, dilation=DILATION):
    """Width of the boundary regions in an image of `size` (H, W), in whole pixels, at least 1."""
    return max(1, round(dilation * float(np.hypot(*size))))


def boundary_region(mask, width):
    """The pixels of a mask at most `width` pixels (in x or in y) from a pixel outside of it or of the image.

    Args:
        mask: bool [H, W].
        width: pixels, at least 1.

    Returns:
        bool [H, W].
    """
    region = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inner = _eroded(_eroded(mask[box], width).T, width).T
        region[box] = mask[box] & ~inner
    return region


def _eroded(mask, width):
    """Whether all of the 2·width + 1 pixels of a column around each pixel are set; outside of the array none is."""
    padded = np.pad(mask, ((width + 1, width), (0, 0)))
    total = np.cumsum(padded, axis=0, dtype=np.int32)
    return total[2 * width + 1 :] - total[: -2 * width - 1] == 2 * width + 1


def inner_boundary(mask, known):
    """The pixels of a mask with a neighbour, of eight, that is not in it; the border of the image is no boundary.

    Args:
        mask: bool [H, W].
        known: bool [H, W], the pixels that can be on a boundary or make one.

    Returns:
        bool [H, W].
    """
    return mask & known & dilated(known & ~mask, 1)


def dilated(mask, width):
    """The pixels at most `width` pixels, in x and in y, from a pixel of a mask: bool [H, W]."""
    # Outside of the array everything is in the complement, so that the mask does not grow from there.
    padded = np.pad(~mask, width, constant_values=True)
    return ~_eroded(_eroded(padded, width).T, width).T[width:-width, width:-width]


class BoundaryEval(COCOeval):
    """COCOeval whose overlap is the smaller of mask IoU and boundary IoU; that of masks alone on crowd regions.

    Args:
        truth: COCO object of the ground truth.
        found: COCO object of the detections.
        dilation: width of the boundary regions as a share of the diagonal of the image.
    """

    def __init__(self, truth, found, dilation=DILATION):
        super().__init__(truth, found, "segm")
        self.dilation = dilation

    def computeIoU(self, imgId, catId):  # noqa: N802, N803, COCOeval's names
        """The overlaps [n, m] of the detections, in descending order of score, and the objects of one class."""
        overlaps = super().computeIoU(imgId, catId)
        if not np.size(overlaps):
            return overlaps
        found = sorted(self._dts[imgId, catId], key=lambda row: -row["score"])[: self.params.maxDets[-1]]
        true = self._gts[imgId, catId]
        crowd = [int(row["iscrowd"]) for row in true]
        boundaries = mask_tools.iou(self._boundaries(found), self._boundaries(true), crowd)
        return np.where(crowd, overlaps, np.minimum(overlaps, boundaries))

    def _boundaries(self, rows):
        """Run lengths of the boundary regions."""
        masks = (mask_tools.decode(row["segmentation"]).astype(bool) for row in rows)
        regions = (boundary_region(mask, boundary_width(mask.shape, self.dilation)) for mask in masks)
        return [mask_tools.encode(np.asfortranarray(region, dtype=np.uint8)) for region in regions]
