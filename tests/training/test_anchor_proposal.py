"""Anchors proposed from the boxes of a data set."""

import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training import anchor_proposal, propose_anchors


class Boxes(data.Dataset):
    """Images of one size with given (width, height) of boxes, one image per box."""

    class_names = ("thing",)

    def __init__(self, sides, size=(400, 400)):
        self.sides, self.size = sides, size

    def __len__(self):
        return len(self.sides)

    def read(self, position):
        width, height = self.sides[position]
        mask = np.zeros((1, *self.size), bool)
        mask[:, : int(height), : int(width)] = True
        return {
            "image": np.zeros((*self.size, 3), np.uint8),
            "image_id": position,
            "boxes": np.array([[0, 0, width, height]], np.float32),
            "labels": np.array([1]),
            "masks": mask,
        }


def test_best_iou_by_hand():
    anchors = {"sizes": ((10,), (40,)), "ratios": (1.0, 4.0)}  # 10x10, 5x20, 40x40, 20x80
    found = anchor_proposal.best_iou(np.array([[10.0, 10], [5, 40], [80, 40]]), anchors)
    np.testing.assert_allclose(found, [1, 100 / 200, 1600 / 3200])


def test_placed_iou_is_the_best_of_all_anchors_of_the_grid():
    from keras_maskrcnn.ops.anchors import pyramid_anchors

    random, (height, width) = np.random.default_rng(0), (300, 420)
    first = random.uniform(0, 1, (200, 2)) * (width, height)
    second = random.uniform(0, 1, (200, 2)) * (width, height)
    boxes = np.concatenate([np.minimum(first, second), np.maximum(first, second) + 1], axis=1)
    boxes[0] = 400, 280, 420, 300  # in the corner, beyond the last location of the coarse levels
    for anchors in (anchor_proposal.DEFAULT, {"sizes": ((9, 17), (30, 44)), "ratios": (0.7,)}):
        strides = anchor_proposal.STRIDES[: len(anchors["sizes"])]
        placed = np.concatenate(pyramid_anchors((height, width), strides, anchors["sizes"], anchors["ratios"]))
        low = np.maximum(boxes[:, None, :2], placed[:, :2])
        shared = np.maximum(np.minimum(boxes[:, None, 2:], placed[:, 2:]) - low, 0).prod(axis=-1)
        areas, others = ((part[:, 2:] - part[:, :2]).prod(axis=1) for part in (boxes, placed))
        expected = (shared / (areas[:, None] + others - shared)).max(axis=1)
        found = anchor_proposal.placed_iou(boxes, np.tile((width, height), (200, 1)), anchors, strides)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_default_anchors_are_those_of_the_heads():
    from keras_maskrcnn.heads.anchors import Anchors

    assert Anchors().level_sizes(anchor_proposal.STRIDES) == anchor_proposal.DEFAULT["sizes"]
    assert Anchors().ratios == anchor_proposal.DEFAULT["ratios"]


def test_boxes_of_one_shape_get_an_anchor_of_that_shape():
    anchors, summary = propose_anchors(Boxes([(30, 90)] * 20), scale=2)
    assert anchors["ratios"] == (3.0,)
    assert (100.0,) in anchors["sizes"]  # sqrt(60 * 180) = 103.9, two digits
    assert summary["boxes"] == 20 and summary["covered"] == 1 and summary["mean_iou"] > 0.9


def test_sizes_and_ratios_of_a_mixed_set_are_found():
    random = np.random.default_rng(0)
    size = np.exp(random.uniform(np.log(12), np.log(200), 300))
    root = np.sqrt(random.choice([0.5, 2.0], 300))
    anchors, summary = propose_anchors(Boxes(np.stack([size / root, size * root], 1).round()), scale=1)
    assert len(anchors["ratios"]) == 2
    np.testing.assert_allclose(anchors["ratios"], (0.5, 2.0), rtol=0.1)
    assert summary["mean_iou"] > 0.75 and summary["covered"] > 0.95


def test_sizes_rise_with_the_levels_and_stay_within_bounds():
    for side in (3, 20, 390):
        anchors, _ = propose_anchors(Boxes([(side, side)] * 5), scale=(400, 400))
        sizes = np.array(anchors["sizes"])[:, 0]
        assert (np.diff(sizes) > 0).all()
        in_strides = sizes / (4, 8, 16, 32, 64)
        assert (in_strides >= 1.9).all() and (in_strides <= 16.1).all()
        MaskRCNN(1, {"name": "resnet10", "width": 8}, anchors=anchors, image_size=(64, 64))


def test_canvas_gives_the_scale():
    half, _ = propose_anchors(Boxes([(80, 80)] * 3, (400, 800)), scale=(200, 400))
    assert half == propose_anchors(Boxes([(80, 80)] * 3, (400, 800)), scale=0.5)[0]


def test_the_line_for_the_console():
    anchors, summary = propose_anchors(Boxes([(30, 90)] * 20), scale=2)
    line = anchor_proposal.described(anchors, summary)
    assert "\n" not in line and "ratios (height / width) 3;" in line and "100% of 20 boxes" in line


def test_no_box_is_one_line():
    class Empty(Boxes):
        def read(self, position):
            sample = super().read(position)
            return {**sample, **{name: sample[name][:0] for name in ("boxes", "labels", "masks")}}

    with pytest.raises(ValueError, match="no box to propose anchors from"):
        propose_anchors(Empty([(3, 3)]), scale=1)


def test_images_that_cannot_be_read_are_the_reason():
    class Lost(Boxes):
        def read(self, position):
            raise data.DataError(f"{position}.jpg", "no such file")

    with pytest.raises(ValueError, match=r"no image of the training set can be read, among them 0\.jpg: no such file"):
        propose_anchors(Lost([(3, 3)] * 2), scale=1)


def test_crowds_and_images_that_cannot_be_read_are_left_out():
    class Mixed(Boxes):
        def read(self, position):
            if position == 1:
                raise data.DataError("b.jpg", "is truncated")
            return {**super().read(position), "crowd": np.array([position == 2])}

    mixed = Mixed([(30, 90), (10, 10), (300, 10), (30, 90)])
    assert propose_anchors(mixed, 1)[1]["boxes"] == 2
    assert propose_anchors(mixed, 1)[0] == propose_anchors(Boxes([(30, 90)] * 2), 1)[0]
    assert mixed.skipped == {"b.jpg": "is truncated"}
