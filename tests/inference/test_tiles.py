"""Tiles of large images, with a detector that returns exactly the objects that it is shown."""

import numpy as np
import pytest

from keras_maskrcnn.data import mask_boxes
from keras_maskrcnn.evaluation import encode_mask
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, Output
from keras_maskrcnn.inference.placement import Resize
from keras_maskrcnn.inference.tiles import detect_each, grid

SCHEMA = (*OUTPUTS, Output("masks", "box_masks"), Output("ids"), Output("corners", "points"))


def perfect(images, schema=SCHEMA):
    """Each object in each image: pixels hold its number, which decides on its class and its score."""
    for image in images:
        ids = image.astype(int) @ [1, 256, 0]
        numbers = np.setdiff1d(ids, [0])
        scores = (1 + numbers * 7 % 997).astype("float32") / 1000
        order = np.argsort(-scores, kind="stable")
        numbers, scores = numbers[order], scores[order]
        masks = ids == numbers[:, None, None]
        boxes = mask_boxes(masks)
        arrays = {"boxes": boxes, "labels": 1 + numbers.astype("int32") % 2, "scores": scores, "masks": masks}
        arrays |= {"ids": numbers, "corners": boxes.reshape(-1, 2, 2)}
        yield Detections({output.name: arrays[output.name] for output in schema}, schema)


def drawn(size, *ellipses):
    """An image with ellipses of (y, x, height, width)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    image = np.zeros((*size, 3), np.uint8)
    for number, (y, x, height, width) in enumerate(ellipses, start=1):
        inside = ((rows - y) * 2 / height) ** 2 + ((columns - x) * 2 / width) ** 2 < 1
        image[inside] = number % 256, number // 256, 0
    return image


def tiled(image, tiles=(64, 64), overlap=24, detector=perfect, max_detections=1000):
    (found,) = detect_each(detector, [image], tiles, overlap, max_detections)
    return found


def assert_equal(found, expected):
    assert list(found) == list(expected) and found.schema == expected.schema
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("overlap", [0, 1, 15, 63])
def test_tiles_cover_the_image_and_share_the_overlap(overlap):
    for size in [(64, 64), (65, 64), (200, 333), (10, 700), (127, 128)]:
        windows = grid(size, (64, 64), overlap)
        covered = np.zeros(size, int)
        for x1, y1, x2, y2 in windows:
            assert (y2 - y1, x2 - x1) == tuple(min(side, 64) for side in size)
            covered[y1:y2, x1:x2] += 1
        assert covered.min() == 1 if size == (64, 64) else covered.min() >= 1
        for axis in (0, 1):
            starts = np.unique(windows[:, axis])
            assert (np.diff(starts) <= 64 - overlap).all()


def test_tiles_worked_by_hand():
    assert grid((50, 100), (64, 64), 24).tolist() == [[0, 0, 64, 50], [36, 0, 100, 50]]
    # (150 - 10) / (64 - 10) = 2.6: three tiles, at 0, 43 and 86
    assert grid((64, 150), (64, 64), 10)[:, 0].tolist() == [0, 43, 86]


def test_an_object_in_the_overlap_is_found_once():
    image = drawn((64, 100), (30, 50, 11, 9))
    parts = list(perfect([image[:, :64], image[:, 36:]]))
    assert [len(part["scores"]) for part in parts] == [1, 1]
    assert_equal(tiled(image), next(perfect([image])))


@pytest.mark.parametrize("x", range(20, 81, 3))
def test_an_object_at_any_place_is_found_once_and_whole(x):
    image = drawn((64, 100), (33, x, 16, 18))
    assert_equal(tiled(image), next(perfect([image])))


@pytest.mark.parametrize(("height", "width"), [(20, 90), (60, 60), (90, 130), (140, 12)])
def test_an_object_larger_than_the_overlap_or_than_a_tile_is_joined(height, width):
    image = drawn((150, 140), (75, 70, height, width))
    found, expected = tiled(image), next(perfect([image]))
    for name in ("boxes", "masks", "labels", "scores", "ids"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_many_objects_are_those_of_the_whole_image():
    rng = np.random.default_rng(0)
    places = [(y + 8, x + 8) for y in range(0, 280, 16) for x in range(0, 320, 16)]
    sizes = rng.uniform(3, 15, (len(places), 2))
    image = drawn((288, 336), *((*place, *size) for place, size in zip(places, sizes, strict=True)))
    assert_equal(tiled(image, (96, 80)), next(perfect([image])))


def test_touching_objects_of_one_class_stay_apart():
    image = drawn((64, 100), (30, 44, 20, 12), (30, 44, 1, 1), (30, 56, 20, 12))
    found, expected = tiled(image), next(perfect([image]))
    assert sorted(found["ids"]) == sorted(expected["ids"]) and {1, 3} <= set(found["ids"])


def test_a_cut_detection_is_dropped_where_another_tile_sees_the_object_whole():
    """The first tile reports the part that it sees with a high score, the second the object."""
    image = drawn((64, 100), (30, 64, 12, 14))

    def hasty(images):
        for number, found in enumerate(perfect(images)):
            found["scores"][:] = 0.9 if number == 0 else 0.3
            yield found

    found = tiled(image, detector=hasty)
    assert found["scores"].tolist() == [np.float32(0.3)]
    assert encode_mask(found["masks"][0]) == encode_mask(next(perfect([image]))["masks"][0])


def test_the_higher_score_of_two_tiles_stays():
    image = drawn((64, 100), (30, 50, 12, 12))

    def unsure(images):
        for number, found in enumerate(perfect(images)):
            found["scores"][:] = (0.4, 0.8)[number]
            found["ids"][:] = number
            yield found

    found = tiled(image, detector=unsure)
    assert found["scores"].tolist() == [np.float32(0.8)] and found["ids"].tolist() == [1]


def test_objects_of_two_classes_are_not_merged():
    image = drawn((64, 100), (30, 50, 12, 12))

    def confused(images):
        for number, found in enumerate(perfect(images)):
            found["labels"][:] = 1 + number
            yield found

    assert sorted(tiled(image, detector=confused)["labels"]) == [1, 2]


def test_a_model_without_masks_merges_boxes():
    boxes_only = tuple(output for output in SCHEMA if output.name not in ("masks", "corners"))
    image = drawn((64, 100), (30, 50, 12, 12), (20, 30, 20, 40), (50, 90, 9, 9))

    def detector(images):
        return perfect(images, boxes_only)

    assert_equal(tiled(image, detector=detector), next(detector([image])))


def test_the_limit_counts_objects_of_the_whole_image():
    image = drawn((64, 100), *((10 + 22 * i, 12 + 25 * j, 10, 10) for i in range(3) for j in range(4)))
    expected = next(perfect([image]))
    assert_equal(tiled(image, max_detections=5), expected.rows(slice(5)))


def test_an_image_without_objects_and_images_of_several_sizes():
    images = [np.zeros((80, 100, 3), np.uint8), drawn((40, 40), (20, 20, 9, 9)), drawn((64, 300), (30, 200, 30, 20))]
    found = list(detect_each(perfect, iter(images), (64, 64), 24, 10))
    assert [len(one["scores"]) for one in found] == [0, 1, 1]
    assert found[0]["masks"].shape == (0, 80, 100) and found[0]["boxes"].shape == (0, 4)
    for one, expected in zip(found, perfect(images), strict=True):
        assert_equal(one, expected)


def test_masks_of_tiles_take_little_memory():
    """Sixteen tiles of a megapixel with 40 objects each would be 670 MB of masks."""
    import tracemalloc

    image = drawn((320, 320), *((8 + 16 * i, 8 + 16 * j, 9, 9) for i in range(20) for j in range(20)))
    tracemalloc.start()
    found = tiled(image, (128, 128), 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found["scores"]) == 400
    assert peak < 2 * found["masks"].nbytes


@pytest.mark.parametrize(
    ("tiles", "overlap", "reason"),
    [
        ((64, 64), 64, "overlap=64 must be a whole number of pixels, less than the sides"),
        ((64, 64), -1, "overlap=-1"),
        ((64,), 8, r"tiles=\(64,\) must be \(height, width\)"),
        ((64, 0), 8, "must be .height, width. in whole pixels"),
        (64, 8, "tiles=64 must be"),
        ((64.0, 64.0), 8, "whole pixels"),
    ],
)
def test_bad_tiles_are_refused(make, tiles, overlap, reason):
    with pytest.raises(ValueError, match=reason):
        Resize(tiles=tiles, overlap=overlap)


@pytest.fixture(scope="module")
def model(make):
    """A model that sees all images at twice their size."""
    return make(image_size=None, resize={"scale": 2.0, "tiles": [48, 64], "overlap": 16}, stretch=(1, 99))


def test_an_image_that_fits_a_tile_is_detected_in_as_it_is(model, make):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype("uint8")
    plain = make(image_size=None, resize={"scale": 2.0}, stretch=(1, 99))
    plain.set_weights(model.get_weights())
    found = model.detect(image, 0.1)
    assert len(found["scores"]) > 0
    assert_equal(found, plain.detect(image, 0.1))
    assert_equal(plain.detect(image, 0.1, tiles=(48, 64), overlap=47), found)


def test_a_model_detects_in_tiles_by_its_option_or_by_the_call(model):
    image = np.random.default_rng(1).integers(0, 255, (70, 150, 3)).astype("uint8")
    found, whole = model.detect(image, 0.1), model.detect(image, 0.1, tiles=(70, 150))
    assert found["masks"].shape[1:] == (70, 150) and 0 < len(found["scores"]) <= 100
    assert not np.array_equal(found["boxes"], whole["boxes"])
    assert (found["boxes"][:, 2] <= 150).all() and found["boxes"][:, 2].max() > 64  # beyond the first tile
    assert_equal(model.detect([image, image[:40, :40]], 0.1)[0], found)
    with pytest.raises(ValueError, match="overlap=48"):
        model.detect(image, overlap=48)


def test_whole_masks_are_made_of_the_best_detections_only(monkeypatch):
    image = drawn((160, 160), *((y, x, 14, 14) for y in range(12, 150, 20) for x in range(12, 150, 20)))
    everything = tiled(image)
    made, zeros = [], np.zeros
    monkeypatch.setattr(np, "zeros", lambda shape, *a: made.append(shape) or zeros(shape, *a))
    best = tiled(image, max_detections=3)
    assert len(everything["scores"]) == 49 and (3, 160, 160) in made and (49, 160, 160) not in made
    monkeypatch.undo()
    assert_equal(best, everything.rows(slice(3)))
