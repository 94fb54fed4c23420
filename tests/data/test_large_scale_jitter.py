"""Large-scale jitter against an independent implementation: triangle filters as dense matrices in float64."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data
from keras_maskrcnn.data import augment, geometry

SHAPES = data.Shapes(40, image_size=(72, 96), seed=3, objects=(1, 4))
CANVAS = (128, 128)
LSJ = dataclasses.replace(augment.get("lsj"), fit=CANVAS)
ENDS = [geometry.reframe]  # the original, also while a test replaces it


def weights(size, scaled, offset, frame, normalised):
    """float64 [frame, size]: the share of each pixel of the image in each pixel of the frame, along one axis.

    The filter is a triangle as wide as a pixel of the image, or of the frame where the image shrinks (Pillow's
    definition). It is normalised at the border of the image, which pads an image with its edge but a mask with zeros.
    """
    scale = size / scaled
    centres = (np.arange(frame) - offset + 0.5) * scale
    width = max(scale, 1.0)
    found = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(-4 * size, 5 * size) - 0.5) / width) / width
    found /= np.maximum(found.sum(1, keepdims=True), 1e-12)
    found = found[:, 4 * size : 5 * size]
    inside = (np.arange(frame) >= offset) & (np.arange(frame) < offset + scaled)
    if normalised:
        found = found / np.maximum(found.sum(1, keepdims=True), 1e-12)
    return found * inside[:, None]


def moved(pixels, scaled, offset, frame, normalised=False):
    """[frame, ...]: an image or a mask after a resize, a shift and a cut."""
    rows, columns = (
        weights(size, int(s), int(o), int(f), normalised)
        for size, s, o, f in zip(pixels.shape, scaled, offset, frame, strict=False)
    )
    return np.einsum("ij,jk...,lk->il...", rows, pixels.astype(float), columns, optimize=True)


@pytest.fixture
def moves(monkeypatch):
    """The (scaled, offset, frame) of each call of `reframe`, and what it returned."""
    calls = []

    def noted(sample, scaled, offset, frame, *more):
        calls.append((sample, scaled, offset, frame, ENDS[0](sample, scaled, offset, frame, *more)))
        return calls[-1][-1]

    monkeypatch.setattr(augment, "reframe", noted)
    return calls


@pytest.mark.parametrize("seed", range(20))
def test_masks_and_pixels_are_those_of_an_independent_implementation(moves, seed):
    before = SHAPES[seed]
    LSJ(before, np.random.default_rng(seed))
    ((_, scaled, offset, frame, after),) = moves
    assert tuple(frame) == CANVAS and after["image"].shape == (*CANVAS, 3)
    coverage = np.array([moved(mask, scaled, offset, frame) for mask in before["masks"]])
    visible = coverage.max((1, 2)) >= 0.5 + 1 / 128
    assert len(after["masks"]) >= visible.sum()  # a mask that is thin or nearly outside may be kept as well
    for label, mask in zip(after["labels"], after["masks"], strict=True):
        expected = [cover for cover, old in zip(coverage, before["labels"], strict=True) if old == label]
        sure = [np.abs(cover - 0.5) > 0.012 for cover in expected]  # Pillow rounds twice to 1 / 255
        wrong = [np.count_nonzero((mask != (cover > 0.5)) & s) for cover, s in zip(expected, sure, strict=True)]
        assert min(wrong) == 0 or max(cover.max() for cover in expected) < 0.52
    pixels = moved(before["image"], scaled, offset, frame, normalised=True)
    assert np.abs(pixels - after["image"]).max() <= 2.0


def test_the_scale_is_uniform_and_refers_to_the_canvas(moves):
    for seed in range(300):
        LSJ(SHAPES[0], np.random.default_rng(seed))
    factors = np.array([scaled[1] / 128 for _, scaled, *_ in moves])  # at scale 1 the image is 96 x 128
    assert factors.min() < 0.15 and factors.max() > 1.95
    assert factors.mean() == pytest.approx(1.05, abs=0.1)  # that of a log-uniform factor is 0.63
    assert all(abs(scaled[0] / scaled[1] - 0.75) < 0.06 for _, scaled, *_ in moves)


def coloured(position, size=(60, 80), count=4):
    """A sample of discs on black; each has a colour of its own, which its pixels tell after any move."""
    rng = np.random.default_rng(position)
    grid = np.stack(np.mgrid[: size[0], : size[1]]) + 0.5
    masks = np.zeros((count, *size), bool)
    image = np.zeros((*size, 3), np.uint8)
    for number in range(count):
        centre = rng.uniform([12, 12], np.array(size) - 12)
        masks[number] = ((grid - centre[:, None, None]) ** 2).sum(0) < rng.uniform(8, 11) ** 2
        masks[:number] &= ~masks[number]
        image[masks[number]] = (60 * number + 70, 10 + 80 * (position % 3), 255)
    kept = masks.any((1, 2))
    return {"image": image, "masks": masks[kept], "labels": np.flatnonzero(kept) + 1, "source": str(position)}


def inner(mask, width=2):
    """A mask without its outer pixels."""
    padded = np.pad(mask, width)
    shifts = [(y, x) for y in range(2 * width + 1) for x in range(2 * width + 1)]
    return np.all([padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y, x in shifts], axis=0)


@given(st.integers(0, 500), st.booleans())
@settings(max_examples=40, deadline=None)
def test_masks_lie_on_the_pixels_of_their_object(seed, pastes):
    first, second = (data.validate(coloured(3 * seed + part), 4) for part in (0, 1))
    move = dataclasses.replace(LSJ, copy_paste=float(pastes))
    after = move(first, np.random.default_rng(seed), lambda rng: second)
    data.validate(after, 4)
    for label, mask in zip(after["labels"], after["masks"], strict=True):
        colours = after["image"][inner(mask)].astype(int)
        assert (np.abs(colours[:, 0] - (60 * label + 10)) <= 1).all() and (colours[:, 2] >= 254).all()
