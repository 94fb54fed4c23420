import dataclasses

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import copy_paste

PASTE = data.Augment(copy_paste=1.0)


def pasted(target, source, kept=(0,), min_visible=0.0):
    return copy_paste.paste(source, list(kept), target, min_visible)


def test_worked_by_hand(sample):
    """The upper 4 of 10 rows of the first object are hidden, all of the second, nothing of the third."""
    target = sample([[10, 10, 20, 20], [12, 6, 16, 9], [30, 20, 40, 30]], labels=[1, 2, 3])
    source = sample([[8, 4, 24, 14], [0, 0, 5, 5]], labels=[2, 1], seed=1)
    after = pasted(target, source)
    assert after["labels"].tolist() == [1, 3, 2]
    assert after["boxes"].tolist() == [[10, 14, 20, 20], [30, 20, 40, 30], [8, 4, 24, 14]]
    np.testing.assert_array_equal(after["boxes"], data.mask_boxes(after["masks"]))
    cover = np.zeros((32, 48), bool)
    cover[4:14, 8:24] = True
    np.testing.assert_array_equal(after["masks"][0], target["masks"][0] & ~cover)
    np.testing.assert_array_equal(after["image"], np.where(cover[..., None], source["image"], target["image"]))
    assert after["source"] == "rectangles 0" and after["image_id"] == 0


def test_the_inputs_are_unchanged(sample):
    target, source = sample([[10, 10, 20, 20]]), sample([[8, 4, 24, 14]], seed=1)
    copies = [{key: np.copy(one[key]) for key in ("image", "masks", "boxes")} for one in (target, source)]
    pasted(target, source)
    for one, copy in zip((target, source), copies, strict=True):
        assert all(np.array_equal(one[key], copy[key]) for key in copy)


def test_an_object_that_is_not_touched_keeps_its_annotated_box(sample):
    target = sample([[30, 20, 40, 30]])
    target["boxes"] = np.array([[29.5, 20.25, 40, 30]], np.float32)
    assert pasted(target, sample([[0, 0, 9, 9]]))["boxes"][0].tolist() == [29.5, 20.25, 40, 30]


@pytest.mark.parametrize(("min_visible", "labels"), [(0.0, [1, 2]), (0.6, [1, 2]), (0.61, [2])])
def test_objects_of_which_too_little_is_visible_are_dropped(sample, min_visible, labels):
    after = pasted(sample([[10, 10, 20, 20]]), sample([[8, 4, 24, 14]], labels=[2]), min_visible=min_visible)
    assert after["labels"].tolist() == labels


def test_a_crowd_region_is_never_pasted_and_stays_while_a_pixel_is_visible(sample):
    crowd = sample([[0, 0, 48, 10], [0, 12, 9, 20], [20, 12, 29, 20]], crowd=np.array([True, False, False]))
    for seed in range(50):
        kept = copy_paste.chosen(crowd, np.random.default_rng(seed))
        assert 0 not in kept and 1 <= len(kept) <= 2 and len(set(kept.tolist())) == len(kept)
    after = pasted(crowd, sample([[0, 0, 47, 10]], labels=[2]), min_visible=0.9)
    assert after["crowd"].tolist() == [True, False, False, False]
    assert after["boxes"][0].tolist() == [47, 0, 48, 10]
    only = sample([[0, 0, 48, 10]], crowd=np.array([True]))
    assert copy_paste.chosen(only, np.random.default_rng(0)).size == 0


def test_all_subsets_are_drawn(sample):
    three = sample([[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]])
    drawn = {frozenset(copy_paste.chosen(three, np.random.default_rng(seed)).tolist()) for seed in range(100)}
    assert len(drawn) == 7


POINTS = data.Points("keypoints", (3, 3))
WEIGHT = data.Field("weight")


def with_fields(sample, points, weight):
    fields = {"keypoints": np.array([points], np.float32), "weight": np.array([weight], np.float32)}
    return {**sample, **fields, "fields": (POINTS, WEIGHT)}


def test_points_under_a_pasted_object_become_hidden(sample):
    target = with_fields(sample([[10, 10, 20, 20]]), [[12.5, 11.5, 2], [12.5, 18.5, 2], [0, 0, 0]], 0.5)
    source = with_fields(sample([[8, 4, 24, 14]], seed=1), [[9, 5, 2], [10, 6, 1], [0, 0, 0]], 0.25)
    after = pasted(target, source)
    assert after["keypoints"].tolist() == [
        [[12.5, 11.5, 1], [12.5, 18.5, 2], [0, 0, 0]],
        [[9, 5, 2], [10, 6, 1], [0, 0, 0]],
    ]
    assert after["weight"].tolist() == [0.5, 0.25] and after["keypoints"].dtype == np.float32
    data.validate(after, 3, (POINTS, WEIGHT))


def test_points_on_the_border_of_the_image(sample):
    edge = with_fields(sample([[40, 20, 48, 32]]), [[48, 32, 2], [40, 20, 2], [0, 0, 0]], 1)
    after = copy_paste.occlude(edge, np.arange(48) + np.zeros((32, 1)) >= 46)
    assert after["keypoints"][0, :, 2].tolist() == [1, 2, 0]


def test_without_another_sample_nothing_is_pasted(sample):
    before = sample([[10, 10, 20, 20]])
    after = PASTE(before, np.random.default_rng(0), lambda rng: None)
    np.testing.assert_array_equal(after["image"], before["image"])
    with pytest.raises(ValueError, match="copy_paste needs `partner`"):
        PASTE(before, np.random.default_rng(0))


@pytest.mark.parametrize("crop", [None, (20, 40), "canvas"])
@pytest.mark.parametrize("fit", [None, (64, 64)])
def test_images_of_any_size_are_pasted(sample, crop, fit):
    """Objects that an equal draw moves elsewhere have their pixels and the size of the first image."""
    move = dataclasses.replace(PASTE, transpose=0.5, flip=0.5, scale=(0.5, 1.5), crop=crop, fit=fit)
    wide, tall = sample([[10, 10, 30, 25]]), sample([[5, 5, 20, 40]], size=(50, 24), labels=[2], seed=1)
    labels = set()
    for seed in range(20):
        alone = dataclasses.replace(move, copy_paste=1e-9)(wide, np.random.default_rng(seed), lambda rng: tall)
        after = move(wide, np.random.default_rng(seed), lambda rng: tall)
        data.validate(after, 3)
        assert after["image"].shape == alone["image"].shape
        cover = after["masks"][after["labels"] == 2].any(0)
        np.testing.assert_array_equal(after["image"][~cover], alone["image"][~cover])
        labels.update(after["labels"].tolist())
    assert labels == {1, 2}


SMALL = {"image_size": (32, 48), "batch_size": 1, "max_instances": 6, "mask_size": 14, "shuffle": False}


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("cache", [False, True])
def test_batches_paste_from_the_other_samples(sample, in_memory, backend, cache):
    files = in_memory([sample([[5 * i, 5, 5 * i + 4, 9]], labels=[i + 1], seed=i) for i in range(3)])
    options = {**SMALL, "augment": PASTE, "backend": backend, "cache": cache}
    batches = data.batches(files, **options)
    found = [np.asarray(y["labels"])[0, :2].tolist() for _, y in batches]
    assert all(own == position + 1 and other not in (0, own) for position, (own, other) in enumerate(found))
    again = [np.asarray(y["labels"])[0, :2].tolist() for _, y in data.batches(files, **options)]
    assert found == again


@pytest.mark.parametrize("partner", [None, data.DataError("1.jpg", "is truncated")])
def test_a_data_set_without_another_readable_sample(sample, in_memory, partner):
    files = in_memory([sample([[5, 5, 9, 9]])] + ([partner] if partner else []))
    for _, y in data.batches(files, **SMALL, augment=PASTE, backend="numpy"):
        assert y["valid"].sum() == 1


def test_an_augmentation_of_ones_own_that_mixes(sample, in_memory):
    class Mixed:
        mixes = True

        def __call__(self, sample, rng, partner):
            return {**sample, "image": sample["image"] // 2 + partner(rng)["image"] // 2}

    files = in_memory([sample([], seed=i) for i in range(2)])
    ((x, _), *_) = data.batches(files, **SMALL, augment=Mixed(), backend="numpy")
    np.testing.assert_array_equal(x["images"][0], files[0]["image"] // 2 + files[1]["image"] // 2)
