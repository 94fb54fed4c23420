"""Hashes of images: copies and near copies are found, other images are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data.doctor import duplicates


def scene(seed, size=(120, 160)):
    """A smooth random picture: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def pairs_of(images):
    return set(duplicates.near_pairs([duplicates.thumbnail(image) for image in images]))


def test_the_hash_by_hand():
    small = np.tile(np.arange(17, dtype=np.uint8), (16, 1))  # brighter to the right
    assert (duplicates.difference_hash(small) == 255).all()
    assert (duplicates.difference_hash(small[:, ::-1]) == 0).all()


def test_changed_copies_are_found_and_other_scenes_are_not():
    first = scene(0)
    resized = np.asarray(Image.fromarray(first).resize((90, 100)))
    darker = (first * 0.6 + 20).astype(np.uint8)
    noisy = np.clip(first + np.random.default_rng(1).normal(0, 8, first.shape), 0, 255).astype(np.uint8)
    others = [scene(seed) for seed in range(2, 12)]
    assert pairs_of([first, resized, darker, noisy, *others]) == {(i, j) for i in range(4) for j in range(i + 1, 4)}


def test_images_without_structure_are_not_compared():
    flat = np.full((40, 40, 3), 90, np.uint8)
    noise = (flat + np.random.default_rng(0).integers(0, 5, flat.shape)).astype(np.uint8)
    assert pairs_of([flat, flat, noise, noise]) == set()


def test_images_in_later_blocks_are_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 2)
    images = [scene(seed) for seed in (0, 1, 2, 3, 4, 1, 4)]
    assert pairs_of(images) == {(1, 5), (4, 6)}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_connected_components(pairs):
    groups = duplicates.Groups(10)
    for first, second in pairs:
        groups.join(first, second)
    near = np.eye(10, dtype=int)
    for first, second in pairs:
        near[first, second] = near[second, first] = 1
    connected = np.linalg.matrix_power(near, 10) > 0
    roots = np.array(groups.roots())
    np.testing.assert_array_equal(roots[:, None] == roots, connected)


def test_equal_groups():
    assert duplicates.equal_groups("abcab") == [[0, 3], [1, 4]]
    assert duplicates.equal_groups([]) == []


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (5, "uint8"), (3, "uint16"), (4, "uint16")])
def test_images_of_all_types_are_inspected(channels, dtype):
    images = [np.random.default_rng(seed).integers(0, 255, (40, 60, channels)).astype(dtype) for seed in range(2)]
    masks = np.zeros((1, 40, 60), bool)
    masks[:, 5:20, 5:20] = True
    report = data.inspect(data.Arrays(images, [masks] * 2, [[1]] * 2, ["cell"]))
    assert report.findings.count("unreadable") == 0 and next(iter(report.statistics.values()))["objects"] == 2
