import numpy as np
import pytest

from keras_maskrcnn import data


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in ("image", "boxes", "labels", "masks"))


def test_an_image_depends_on_seed_and_index_alone():
    shapes = data.Shapes(5, seed=3)
    last = shapes[4]
    assert same(last, data.Shapes(50, seed=3)[4])
    assert same(last, shapes[-1])
    assert not same(last, shapes[3])
    assert not same(last, data.Shapes(5, seed=4)[4])


def test_objects_are_as_described():
    samples = list(data.Shapes(200, seed=1))
    counts = [len(found["labels"]) for found in samples]
    assert min(counts) >= 1 and max(counts) == 5
    labels = np.concatenate([found["labels"] for found in samples])
    assert all(np.mean(labels == label) > 0.25 for label in (1, 2, 3))
    boxes = np.concatenate([found["boxes"] for found in data.Shapes(200, seed=1, objects=(1, 1))])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    assert 12 * 0.6 <= sides.min() <= 14 and 56 <= sides.max() <= 60  # a corner of the frame may cut off a fifth


def test_boxes_fit_the_visible_masks_and_masks_do_not_overlap():
    for found in data.Shapes(30):
        assert found["masks"].sum(0).max() <= 1
        for box, mask in zip(found["boxes"], found["masks"], strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_shapes_hide_one_another_and_hidden_ones_are_dropped():
    everything = data.Shapes(100, seed=2, min_visible=0)
    annotated = data.Shapes(100, seed=2)
    before, after = (sum(len(found["labels"]) for found in shapes) for shapes in (everything, annotated))
    assert 0.85 * before < after < before


def test_the_background_is_noisy_and_textured():
    for found in data.Shapes(10):
        ground = found["image"][~found["masks"].any(0)].astype(float)
        assert ground.std(0).max() > 4


def test_shapes_cover_the_geometric_share_of_their_boxes():
    fill = {1: [], 2: [], 3: []}
    for found in data.Shapes(300, objects=(1, 1)):
        box, mask = found["boxes"][0], found["masks"][0]
        if (box[:2] > 0).all() and (box[2:] < 128).all():
            fill[int(found["labels"][0])].append(mask.sum() / np.prod(box[2:] - box[:2]))
    assert np.mean(fill[1]) == pytest.approx(np.pi / 4, abs=0.02)
    assert np.mean(fill[2]) == pytest.approx(2 / np.pi, abs=0.04)  # mean of 1 / (1 + |sin 2a|) over all angles
    assert max(fill[3]) < 0.6  # a triangle covers at most half of its box, and a few pixels by rounding


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (200, 120)])
def test_any_size(size):
    samples = list(data.Shapes(20, image_size=size))
    assert all(found["image"].shape == (*size, 3) for found in samples)


def test_objects_scale_only_on_request():
    def largest(**options):
        return max(
            (found["boxes"][:, 2] - found["boxes"][:, 0]).max() for found in data.Shapes(30, (256, 256), **options)
        )

    assert largest() <= 61
    assert 61 < largest(scale_objects=True) <= 122


def test_names():
    shapes = data.Shapes(1)
    assert shapes.class_names == ["circle", "square", "triangle"]
    assert shapes.num_classes == 3 and shapes[0]["source"] == "Shapes(seed=0)[0]"
