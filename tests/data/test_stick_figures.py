"""Generated stick figures: keypoints, visibility, masks, sides."""

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data.coco_keypoints import PERSON
from keras_maskrcnn.data.stick_figures import Paint

SIDES = [(i, PERSON.index(name.replace("left", "right"))) for i, name in enumerate(PERSON) if name.startswith("left")]


@pytest.fixture(scope="module")
def figures():
    return list(data.StickFigures(60, seed=1))


def visible(figures):
    """Pairs (points [17, 3], mask) of all figures."""
    return [pair for found in figures for pair in zip(found["keypoints"], found["masks"], strict=True)]


def test_an_image_depends_on_seed_and_index_alone():
    one, other = data.StickFigures(5, seed=3)[4], data.StickFigures(50, seed=3)[4]
    for name in ("image", "boxes", "masks", "keypoints"):
        np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(one["image"], data.StickFigures(5, seed=4)[4]["image"])


def test_the_field_has_cocos_names_and_exchanges_sides():
    [field] = data.StickFigures(1).fields
    assert field.shape == (17, 3) and field.names == PERSON
    assert all(field.mirrored[left] == right and field.mirrored[right] == left for left, right in SIDES)
    assert field.mirrored[0] == 0 and data.StickFigures(1).class_names == ["person"]


def test_figures_are_as_described(figures):
    counts = [len(found["labels"]) for found in figures]
    assert max(counts) == 3 and min(counts) >= 0 and np.mean(counts) > 1.5
    seen = np.concatenate([points[:, 2] for points, _ in visible(figures)])
    shares = [np.mean(seen == value) for value in (0, 1, 2)]
    assert shares[0] > 0.02 and shares[1] > 0.03 and shares[2] > 0.7
    assert all(found["masks"].sum(0).max(initial=0) <= 1 for found in figures)


def test_visible_points_are_on_the_figure_and_hidden_ones_are_not(figures):
    for points, mask in visible(figures):
        padded = np.pad(mask, 1)
        for x, y, value in points:
            around = padded[int(y) : int(y) + 3, int(x) : int(x) + 3]
            assert value == 0 or around.any() == (value == 2)
    outside = np.concatenate([points[points[:, 2] == 0] for points, _ in visible(figures)])
    assert len(outside) and not outside.any()


def test_left_is_on_the_right_of_the_image_and_colours_do_not_tell(figures):
    both = [points for points, _ in visible(figures)]
    for left, right in SIDES[2:4]:  # ears and shoulders; lean and turn are limited
        labelled = [points for points in both if points[left, 2] and points[right, 2]]
        assert np.mean([points[left, 0] > points[right, 0] for points in labelled]) == 1


def test_points_without_occlusion_are_where_the_limbs_are():
    alone = data.StickFigures(20, (128, 128), figures=(1, 1), blocks=0, figure_size=(0.5, 0.6))
    for found in alone:
        points, box = found["keypoints"][0], found["boxes"][0]
        inside = points[points[:, 2] > 0]
        assert (
            (inside[:, 2] == 2).all() and (inside[:, :2] >= box[:2] - 1).all() and (inside[:, :2] <= box[2:] + 1).all()
        )
        whole = len(inside) == 17
        assert not whole or np.abs(inside[:, 1].max() - box[3]) < 6  # a foot is at the bottom edge, half a limb above


def test_hidden_figures_are_dropped():
    crowded = {"figures": (6, 6), "seed": 2}
    everything = sum(len(found["labels"]) for found in data.StickFigures(30, min_visible=0, **crowded))
    annotated = sum(len(found["labels"]) for found in data.StickFigures(30, **crowded))
    assert 0.5 * everything < annotated < everything


@pytest.mark.parametrize("size", [(32, 200), (64, 64), (200, 120)])
def test_any_size(size):
    assert all(found["image"].shape == (*size, 3) for found in data.StickFigures(10, image_size=size))


def test_no_figure_at_all():
    found = data.StickFigures(1, figures=(0, 0))[0]
    assert found["keypoints"].shape == (0, 17, 3) and found["masks"].shape == (0, 160, 160)


def test_paint_covers_exactly_what_is_drawn():
    paint, canvas = Paint(np.array([[4.0, 6.0]]), 3), np.zeros((12, 10, 3), np.float32)
    paint.rectangle((4.0, 6.0), (2.0, 3.0), (90, 60, 30))
    mask = paint.over(canvas)
    expected = np.zeros((12, 10), bool)
    expected[3:9, 2:6] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_allclose(canvas[5, 3], [90, 60, 30], atol=1)
    assert paint.area() == pytest.approx(24, rel=0.15)
    assert not Paint(np.array([[-50.0, 6.0]]), 3).over(canvas).any()


def test_mirrored_batches_keep_the_left_on_the_right():
    batches = data.batches(
        data.StickFigures(4, figures=(1, 1), blocks=0), (160, 160), batch_size=4, max_instances=2, backend="numpy",
        augment=data.Augment(flip=1), shuffle=False,
    )  # fmt: skip
    [(_, y)] = batches
    plain = [found["keypoints"][0] for found in data.StickFigures(4, figures=(1, 1), blocks=0)]
    for points, original in zip(y["keypoints"][:, 0], plain, strict=True):
        for left, right in SIDES:
            shown = original[right, 2] > 0
            np.testing.assert_allclose(points[left, 0], 160 - original[right, 0] if shown else 0, atol=1e-3)


def test_a_point_that_leaves_the_crop_is_not_labelled():
    found = data.StickFigures(3, figures=(1, 1), blocks=0)
    for sample in (data.Augment(crop=(80, 80))(one, np.random.default_rng(2)) for one in found):
        for points in sample["keypoints"]:
            inside = points[points[:, 2] > 0]
            assert (inside[:, :2] >= 0).all() and (inside[:, :2] <= 80).all() and len(inside) < 17
            assert not points[points[:, 2] == 0].any()
