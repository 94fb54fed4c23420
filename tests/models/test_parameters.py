"""The parameter counts of the student report."""

import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN
from keras_maskrcnn.models.parameters import count_parameters


@pytest.fixture(scope="module")
def model():
    return MaskRCNN(num_classes=22, backbone="resnet50", neck="fpn")


def test_resnet_50_fpn_with_22_classes(model):
    counts = count_parameters(model)
    assert counts["without_backbone_norm"] == 44_035_417
    assert counts["trainable_frozen_stem"] == 43_813_017
    # Stem 7·7·3·64 = 9,408; first stage 212,992 (3 bottlenecks and a shortcut): the difference of the two.
    stage = 64 * 64 + 2 * 256 * 64 + 3 * 9 * 64 * 64 + 3 * 64 * 256 + 64 * 256
    assert counts["without_backbone_norm"] - counts["trainable_frozen_stem"] == 9_408 + stage


def test_total_and_trainable(model):
    counts = count_parameters(model)
    # ResNet-50 has 53 batch norms over 26,560 channels: each has two trainable vectors and two of statistics.
    assert counts["total"] - counts["without_backbone_norm"] == 4 * 26_560
    assert counts["trainable"] == counts["total"] - 2 * 26_560
    assert counts["trainable"] == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_faster_rcnn_as_torchvision_publishes_it():
    # torchvision's `num_params` leaves out its frozen batch norms; a mask head for 91 outputs has 2,646,107.
    counts = count_parameters(MaskRCNN.from_preset("faster_rcnn_resnet50_fpn"))
    assert counts["without_backbone_norm"] == 41_755_286 == 44_401_393 - 2_646_107


def test_mask_rcnn_c4():
    # ResNet-50 without its norms has 23,454,912 weights; the fifth stage is counted once though two heads use it.
    model = MaskRCNN.from_preset("mask_rcnn_resnet50_c4")
    rpn = 9 * 1024 * 1024 + 1024 + (1024 + 1) * 15 * 5
    box = (2048 + 1) * 81 * 5
    mask = 4 * 2048 * 256 + 256 + (256 + 1) * 81
    assert count_parameters(model)["without_backbone_norm"] == 23_454_912 + rpn + box + mask


def test_keypoint_rcnn_as_torchvision_publishes_it():
    counts = count_parameters(MaskRCNN.from_preset("keypoint_rcnn_resnet50_fpn"))
    assert counts["without_backbone_norm"] == 59_137_258


def test_trainable_follows_the_model(model):
    before = count_parameters(model)
    model.mask_head.trainable = False
    try:
        after = count_parameters(model)
    finally:
        model.mask_head.trainable = True
    assert before["trainable"] - after["trainable"] == model.mask_head.count_params()
    assert after["total"] == before["total"]
