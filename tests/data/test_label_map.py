"""Maps of whole images from the reader to the batch: every pixel keeps its label."""

import itertools
import logging

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import copy_paste, geometry

SIZE = (40, 60)


class Coded(data.Dataset):
    """Images of pure red, green and blue regions, which have the labels 0, 1 and 2; with one object."""

    class_names = ("a",)
    fields = (data.LabelMap("semantic", class_names=("things", "b", "c")),)

    def __init__(self, regions=None, **changes):
        self.regions, self.changes = regions, changes

    def __len__(self):
        return 4

    def read(self, position):
        labels = np.random.default_rng(position).integers(0, 3, (4, 6)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        labels = labels if self.regions is None else self.regions
        image = 255 * np.eye(3, dtype=np.uint8)[labels]
        mask = np.zeros((1, *SIZE), bool)
        mask[:, 12:28, 14:40] = True
        sample = {"image": image, "labels": [1], "masks": mask, "semantic": labels, "source": f"coded {position}"}
        return {**sample, **self.changes}


def rows(dataset, count=1, **options):
    options = {"image_size": SIZE, "batch_size": 4, "max_instances": 2, "mask_size": 14, **options}
    for x, y in itertools.islice(data.batches(dataset, **options), count):
        assert y["semantic"].dtype == "uint8" and y["semantic"].shape == x["images"].shape[:3]
        yield from zip(np.asarray(x["images"]), np.asarray(x["sizes"]), np.asarray(y["semantic"]), strict=True)


def assert_equal(image, semantic):
    """The map agrees with the colours, except on edges between regions, where the image is smooth."""
    sharp = image.max(-1) == 255
    np.testing.assert_array_equal(semantic[sharp], image.argmax(-1)[sharp])
    assert (semantic[image.max(-1) == 0] == 255).all() and sharp.mean() > 0.4 * (image.max(-1) > 0).mean()


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": 1},
        {"vertical_flip": 1},
        {"transpose": 1},
        {"flip": 1, "vertical_flip": 1, "transpose": 1},
        {"crop": (64, 80), "flip": 1},
        {"crop": (30, 36)},
        {"scale": (0.4, 2)},
        {"scale": (0.7, 1.6), "crop": (30, 50), "transpose": 0.5},
    ],
)
def test_labels_stay_on_their_pixels(options, backend):
    canvas = options.get("crop") or (SIZE[::-1] if "transpose" in options else SIZE)
    for image, _, semantic in rows(Coded(), image_size=canvas, augment=data.Augment(**options), backend=backend):
        assert_equal(image, semantic)
        if "scale" not in options:  # without a resize, every pixel
            np.testing.assert_array_equal(semantic, np.where(image.max(-1) == 0, 255, image.argmax(-1)))


def test_the_canvas_beyond_the_image_is_ignored():
    for image, size, semantic in rows(Coded(), image_size=(96, 96)):
        height, width = size.astype(int)
        assert (height, width) == (64, 96) and (semantic[height:] == 255).all() and (semantic[:height] < 3).all()
        assert_equal(image, semantic)


def test_moves_by_hand():
    field, values = data.LabelMap("semantic", ignore=9), np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    move = lambda *matrix, frame=(2, 3): field.move(values, np.array(matrix, float), frame).tolist()  # noqa: E731
    assert move([1, 0, 0], [0, 1, 0]) == values.tolist()
    assert move([-1, 0, 3], [0, 1, 0]) == [[3, 2, 1], [6, 5, 4]]
    assert move([0, 1, 0], [1, 0, 0], frame=(3, 2)) == [[1, 4], [2, 5], [3, 6]]
    assert move([1, 0, 1], [0, 1, -1]) == [[9, 4, 5], [9, 9, 9]]
    assert move([2, 0, 0], [0, 0.5, 0], frame=(1, 6)) == [[4, 4, 5, 5, 6, 6]]


def test_pasted_objects_bring_their_labels():
    one, other = Coded(np.full(SIZE, 1, np.uint8))[0], Coded(np.full(SIZE, 2, np.uint8))[1]
    pasted = copy_paste.paste(other, [0], one)
    np.testing.assert_array_equal(pasted["semantic"], np.where(other["masks"][0], 2, 1))
    assert len(pasted["labels"]) == 1  # the one below is hidden
    for image, _, semantic in rows(Coded(), augment="copy_paste"):
        assert_equal(image, semantic)


def test_wrappers_keep_the_map():
    dataset = Coded()
    grouped = data.Grouped(dataset, {"x": ("a",)})
    for wrapped in (data.Cached(dataset), data.Subset(dataset, [0]), data.Strict(dataset), grouped):
        assert wrapped.fields == Coded.fields
        np.testing.assert_array_equal(wrapped[0]["semantic"], dataset[0]["semantic"])
    assert geometry.flip(grouped[0])["semantic"].tolist() == dataset[0]["semantic"][:, ::-1].tolist()
    empty = {"labels": [], "masks": np.zeros((0, *SIZE), bool)}
    for image, _, semantic in rows(Coded(**empty), augment="flip", cache=True):
        assert_equal(image, semantic)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"semantic": np.zeros((60, 40), np.uint8)}, "semantic has shape [60, 40] for an image of 60 x 40 pixels"),
        ({"semantic": np.zeros(SIZE)}, "semantic is float64, not uint8"),
        ({"fields": (data.LabelMap("other"),)}, "the sample has no other"),
    ],
)
def test_a_map_that_does_not_fit_is_named_in_one_line(changes, reason):
    dataset = Coded(**changes)
    dataset.fields = changes.get("fields", Coded.fields)
    with pytest.raises(data.DataError) as caught:
        dataset[0]
    assert str(caught.value).startswith(f"coded 0: {reason}")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"shape": (3,)}, "is uint8 of the size of the image"),
        ({"dtype": "int32"}, "is uint8 of the size of the image"),
        ({"ignore": 256}, "ignore=256"),
        ({"ignore": 1, "class_names": ("x", "y")}, "ignore=1 of 'm' must be a label up to 255 that no class has"),
    ],
)
def test_bad_declarations(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        data.LabelMap("m", **arguments)


def test_files_that_do_not_hold_the_map_are_named(tmp_path, caplog):
    from PIL import Image

    class Stored(Coded):
        def read(self, position):
            sample = super().read(position)
            path = tmp_path / f"{position}.png"
            Image.fromarray(sample["image"]).save(path)
            return {**sample, "source": str(path)}

    with caplog.at_level(logging.WARNING):
        data.write_coco(Stored(), tmp_path / "coco.json")
        data.write_yolo(Stored(), tmp_path / "yolo")
    found = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[2] for line in found] == [
        "semantic left out, which COCO files do not hold",
        "semantic left out, which YOLO segmentation files do not hold",
    ]
