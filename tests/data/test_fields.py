"""Arrays that a data set declares: a toy reader with keypoints and a number per instance, from reader to batch."""

import itertools

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import geometry

SIZE = (40, 60)
FIELDS = (data.Points("keypoints", (2, 3), mirrored=(1, 0)), data.Field("age"))
# The pixels (x, y) of three dots, each of a pure colour: the two points of the first instance, the one of the second.
DOTS = ((7, 5), (30, 12), (41, 33))


class Dotted(data.Dataset):
    """Black images with a wide instance `a` (red and green dot) and a small one `b` (blue dot, no second point)."""

    class_names = ("a", "b")

    def __init__(self, count=12, fields=FIELDS, **changes):
        self.count, self.fields, self.changes = count, fields, changes

    def __len__(self):
        return self.count

    def read(self, position):
        image, masks = np.zeros((*SIZE, 3), np.uint8), np.zeros((2, *SIZE), bool)
        masks[0, 2:16, 4:34] = masks[1, 28:38, 38:46] = True
        for channel, (x, y) in enumerate(DOTS):
            image[y, x, channel] = 255
        red, green, blue = ([x + 0.5, y + 0.5, 2] for x, y in DOTS)
        sample = {"keypoints": [[red, green], [blue, [0, 0, 0]]], "age": [3.5, 7.25], "labels": [1, 2]}
        boxes = data.mask_boxes(masks)
        return {**sample, "image": image, "masks": masks, "boxes": boxes, "source": f"dots {position}", **self.changes}


def dots(image):
    """Centres of the red, the green and the blue dot in an image: float [3, 2], NaN where there is none."""
    others = np.stack([np.delete(image.astype(float), channel, 2).max(2) for channel in range(3)], 2)
    weights = np.maximum(0, image - others - 8)
    rows, columns = np.indices(image.shape[:2]) + 0.5
    with np.errstate(invalid="ignore"):
        places = [(weights * of[..., None]).sum((0, 1)) / weights.sum((0, 1)) for of in (columns, rows)]
    return np.stack(places, 1)


def is_near_border(place, image):
    return (place < 2).any() or (place > np.array(image.shape[1::-1]) - 2).any()


def rows(dataset, count=1, **options):
    options = {"image_size": SIZE, "batch_size": 4, "max_instances": 3, "mask_size": 14, **options}
    for x, y in itertools.islice(data.batches(dataset, **options), count):
        for row in range(len(x["images"])):
            height, width = np.asarray(x["sizes"][row]).astype(int)
            yield (
                np.asarray(x["images"][row])[:height, :width],
                {name: np.asarray(values[row]) for name, values in y.items()},
            )


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize(
    ("options", "is_mirrored"),
    [
        ({}, False),
        ({"flip": 1}, True),
        ({"vertical_flip": 1}, True),
        ({"transpose": 1}, True),
        ({"flip": 1, "transpose": 1}, False),
        ({"flip": 1, "vertical_flip": 1, "transpose": 1}, True),
        ({"crop": (64, 80), "flip": 1}, True),
    ],
)
def test_points_stay_on_their_pixels_and_change_sides_when_mirrored(backend, options, is_mirrored):
    canvas = options.get("crop") or (SIZE[::-1] if "transpose" in options else SIZE)
    for image, y in rows(Dotted(), image_size=canvas, augment=data.Augment(**options), backend=backend):
        (red, green, blue), points = dots(image), y["keypoints"]
        first, second = (1, 0) if is_mirrored else (0, 1)
        np.testing.assert_array_equal(points[0, [first, second]], [[*red, 2], [*green, 2]])
        np.testing.assert_array_equal(points[1, [first, second]], [[*blue, 2], [0, 0, 0]])
        assert y["age"].tolist() == [3.5, 7.25, 0] and y["labels"].tolist() == [1, 2, 0] and not points[2].any()


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize(
    "augment",
    ["standard", data.Augment(flip=0.5, scale=(0.4, 2)), data.Augment(transpose=0.5, flip=0.5, crop=(30, 36))],
)
def test_points_follow_the_image_through_scales_and_crops(backend, augment):
    found, lost = 0, 0
    dataset = Dotted(fields=(data.Points("keypoints", (2, 3)), data.Field("age")))
    options = {"image_size": (56, 84), "augment": augment, "repeat": True, "backend": backend}
    for image, y in rows(dataset, 20, **options):
        expected = dict(zip([(1, 0), (1, 1), (2, 0)], dots(image), strict=True))
        for row in np.flatnonzero(y["valid"]):
            label = y["labels"][row]
            assert y["age"][row] == {1: 3.5, 2: 7.25}[label]
            for point in range(2):
                x_y, visibility = y["keypoints"][row, point, :2], y["keypoints"][row, point, 2]
                place = expected.get((label, point), np.full(2, np.nan))
                if visibility:
                    found += 1
                    assert is_near_border(x_y, image) or np.abs(x_y - place).max() < 1
                else:
                    lost += label == 1
                    assert not x_y.any() and (np.isnan(place).all() or is_near_border(place, image))
    assert found > 100 and lost > 5


def cut(sample, left, width):
    return geometry.reframe(sample, np.array(SIZE), np.array([0, left]), np.array([SIZE[0], width]), 0.25, np.asarray)


def test_points_outside_the_frame_are_not_labelled_and_lie_at_zero():
    after = cut(Dotted()[0], -10, 50)
    assert after["keypoints"].tolist() == [[[0, 0, 0], [20.5, 12.5, 2]], [[31.5, 33.5, 2], [0, 0, 0]]]
    after = cut(Dotted()[0], -10, 27)
    assert after["keypoints"].tolist() == [[[0, 0, 0], [20.5, 12.5, 2]]] and after["age"].tolist() == [3.5]


def test_points_on_the_border_are_kept_by_every_transformation():
    corners = [[[0, 0, 1], [60, 40, 1]], [[60, 0, 1], [0, 40, 1]]]
    sample = Dotted(keypoints=corners)[0]
    for after in (geometry.flip(sample), geometry.flip(sample, vertical=True), geometry.transpose(sample)):
        assert (after["keypoints"][..., 2] == 1).all()
    for size in ((33, 71), (47, 50), (91, 91)):
        for _, y in rows(Dotted(keypoints=corners), image_size=size):
            assert (y["keypoints"][:2, :, 2] == 1).all()


def test_the_canvas_resizes_points():
    for image, y in rows(Dotted(), image_size=(80, 120)):
        (red, green, blue), points = dots(image), y["keypoints"]
        np.testing.assert_allclose(points[[0, 0, 1], [0, 1, 0], :2], [red, green, blue], atol=0.5)
        assert points[0, 0].tolist() == [15, 11, 2]


def test_moves_of_a_matrix():
    points = data.Points("points", (2, 3), mirrored=(1, 0))
    values = np.array([[[1, 2, 1], [5, 6, 2]]], np.float32)
    assert points.move(values, np.array([[2.0, 0, 3], [0, 1, -1]])).tolist() == [[[5, 1, 1], [13, 5, 2]]]
    mirrored = points.move(values, np.array([[0.0, 1, 0], [1, 0, 0]]), (10, 10))
    assert mirrored.tolist() == [[[6, 5, 2], [2, 1, 1]]] and mirrored.dtype == np.float32


def centred(sample):
    return data.Centred((40, 60), (50, 60))(sample, np.random.default_rng(0))


def test_wrappers_and_centred_keep_the_fields():
    dataset = Dotted()
    for wrapped in (data.Cached(dataset), data.Subset(dataset, [3, 1]), data.Cached(data.Subset(dataset, [2]))):
        assert wrapped.fields == FIELDS
        for name in ("keypoints", "age"):
            np.testing.assert_array_equal(wrapped[0][name], dataset[0][name])
    groups = data.Grouped(dataset, {"small": ("b",)})
    assert groups[0]["age"].tolist() == [7.25] and groups[0]["keypoints"].tolist() == [[[41.5, 33.5, 2], [0, 0, 0]]]
    assert centred(groups[0])["keypoints"].tolist() == [[[41.5, 38.5, 2], [0, 0, 0]]]
    ((_, y), *_) = rows(groups, cache=True, max_instances=1)
    assert y["age"].tolist() == [7.25] and y["labels"].tolist() == [1]


def test_the_largest_instances_keep_their_rows():
    ((_, y), *_) = rows(Dotted(age=[1, 2], keypoints=np.ones((2, 2, 3))), max_instances=1)
    assert y["age"].tolist() == [1] and y["keypoints"].shape == (1, 2, 3)


def test_static_shapes_and_dtypes():
    fields = (data.Field("grade", (2,), "int32"), data.Field("hidden", dtype="bool"))
    dataset = Dotted(fields=fields, grade=[[1, 2], [3, 4]], hidden=[0, 1])
    x, y = data.batches(dataset, SIZE, 4, max_instances=3, backend="tf").element_spec
    assert set(x) == {"images", "sizes", "image_index"}
    assert set(y) == {"boxes", "labels", "masks", "crowd", "valid", "grade", "hidden"}
    assert y["grade"].shape.as_list()[1:] == [3, 2] and y["grade"].dtype == "int32" and y["hidden"].dtype == "bool"
    assert dataset[0]["grade"].dtype == np.int32 and dataset[0]["hidden"].tolist() == [False, True]


def test_a_sample_without_instances():
    empty = {"labels": [], "masks": [], "boxes": [], "keypoints": [], "age": []}
    assert Dotted(**empty)[0]["keypoints"].shape == (0, 2, 3)
    for _, y in rows(Dotted(**empty), augment="strong"):
        assert not y["keypoints"].any() and not y["valid"].any()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keypoints": np.zeros((2, 3, 3))}, "keypoints has shape [2, 3, 3] for 2 labels, not [2, 2, 3]"),
        ({"age": [1.0]}, "age has shape [1] for 2 labels, not [2]"),
        ({"age": ["old", "young"]}, "age is <U5, not float32"),
        ({"fields": (*FIELDS, data.Field("weight"))}, "the sample has no weight"),
    ],
)
def test_a_field_that_does_not_fit_is_named_in_one_line(changes, reason):
    with pytest.raises(data.DataError) as caught:
        Dotted(**changes)[0]
    assert str(caught.value) == f"dots 0: {reason}"


def test_declarations_are_checked():
    with pytest.raises(ValueError, match="a field cannot have the name 'boxes'"):
        data.Field("boxes")
    with pytest.raises(ValueError, match=r"points 'nose' need the shape \(K, 3\), not \(2,\)"):
        data.Points("nose", (2,))
    with pytest.raises(ValueError, match=r"mirrored must be a permutation of 2 points, not \(1, 1\)"):
        data.Points("eyes", (2, 3), mirrored=(1, 1))


@pytest.mark.parametrize("name", ["proposals", "max_detections", "valid", "images"])
def test_names_of_other_inputs_are_rejected(name):
    with pytest.raises(ValueError, match=f"a field cannot have the name '{name}'"):
        data.Field(name)


def test_points_need_a_floating_point_dtype():
    with pytest.raises(ValueError, match="points 'p' need a floating-point dtype, not int32"):
        data.Points("p", (1, 3), "int32")
