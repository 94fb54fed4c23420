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


# Thin shapes --------------------------------------------------------------------------------------------------------

THIN = ("bar", "elbow", "tee", "cross", "ring")


def alone(kind, **options):
    """Masks of single shapes of 60 pixels inside the frame, cropped to their boxes."""
    options = {"objects": (1, 1), "object_size": (60, 60), "thickness": (0.1, 0.1), **options}
    for found in data.Shapes(40, kinds=(kind,), **options):
        x1, y1, x2, y2 = found["boxes"][0].astype(int)
        if min(x1, y1) > 0 and max(x2, y2) < 128:
            yield found["masks"][0, y1:y2, x1:x2]


@pytest.mark.parametrize("kind", THIN)
def test_thin_shapes_have_the_longer_side_and_the_thickness_that_are_given(kind):
    masks = list(alone(kind))
    assert len(masks) > 5
    for mask in masks:
        assert 58 <= max(mask.shape) <= 60  # a round end may miss the centres of the outermost pixels
        background = np.argwhere(~np.pad(mask, 1)) - 1
        deepest = max(np.hypot(*(background - point).T).min() for point in np.argwhere(mask))
        # Half of the thickness of 6 pixels, or half of the diagonal where two lines meet.
        assert 2.5 <= deepest <= (3 if kind in ("bar", "ring") else 3 * np.sqrt(2)) + 1


def test_areas_of_thin_shapes_are_those_of_geometry():
    for mask in alone("ring"):
        assert mask.sum() == pytest.approx(np.pi * (30**2 - 24**2), rel=0.03)
    for mask in alone("bar"):
        height, width = mask.shape
        length = np.hypot(height - 6, width - 6)
        assert mask.sum() == pytest.approx(6 * length + np.pi * 3**2, rel=0.05)


def test_thin_kinds_are_the_classes():
    shapes = data.Shapes(60, kinds=("ring", "square", "bar"), seed=2)
    assert shapes.class_names == ["ring", "square", "bar"] and shapes.num_classes == 3
    assert set(np.concatenate([found["labels"] for found in shapes])) == {1, 2, 3}


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("kind", THIN)
def test_tiny_thin_shapes_are_drawn(kind, side):
    for found in data.Shapes(5, kinds=(kind,), object_size=(side, side), min_visible=0, image_size=(16, 16)):
        assert found["masks"].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kinds": ("bar", "star")}, "kinds='star' is not one of"),
        ({"kinds": ()}, "kinds=() names no shape"),
        ({"thickness": (0.3, 0.2)}, "thickness"),
        ({"thickness": (0.0, 0.2)}, "thickness"),
        ({"thickness": (0.2, 1.0)}, "thickness"),
    ],
)
def test_options_that_cannot_be_drawn(options, reason):
    with pytest.raises(ValueError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        data.Shapes(1, **options)


def test_texture_and_noise_are_those_that_are_given():
    def deviation(**options):
        shapes = data.Shapes(10, objects=(1, 1), object_size=(8, 8), seed=4, **options)
        return np.mean([found["image"].astype(float).std((0, 1)).mean() for found in shapes])

    assert deviation(texture=(0, 0), noise=(0, 0)) < 12  # the shape alone
    assert deviation(texture=(0, 0), noise=(20, 20)) > 17
    assert deviation(texture=(40, 40), noise=(0, 0)) > 17
