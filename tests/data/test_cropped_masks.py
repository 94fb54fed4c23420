"""Cropped masks against arrays of whole masks."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_maskrcnn.data import CroppedMasks
from keras_maskrcnn.data.cropped_masks import Crop, crops_of
from keras_maskrcnn.data.run_lengths import encode_mask


@st.composite
def placed(draw):
    """(left, top, mask, size): a random mask somewhere in an image, in many cases as high or as wide as it."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    shape = draw(st.integers(1, height - top)), draw(st.integers(1, width - left))
    share = draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    seed = draw(st.integers(0, 2**32 - 1))
    return left, top, np.random.default_rng(seed).random(shape) < share, (height, width)


@hypothesis.given(placed())
def test_crops_are_whole_masks(case):
    left, top, mask, size = case
    whole = np.zeros(size, bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    cropped = CroppedMasks([Crop(left, top, mask).packed()], size)
    np.testing.assert_array_equal(cropped[0], whole)
    np.testing.assert_array_equal(np.asarray(cropped), whole[None])
    assert cropped.encoded(0) == encode_mask(whole)
    [around] = crops_of(whole[None])
    np.testing.assert_array_equal(CroppedMasks([around.packed()], size)[0], whole)


def three():
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:5, 3:9], masks[1, :, 7], masks[2, 19, 29] = True, True, True
    return masks, CroppedMasks([crop.packed() for crop in crops_of(masks)], (20, 30))


@pytest.mark.parametrize("index", [[2, 0], slice(1, None), np.array([True, False, True]), []])
def test_rows_are_those_of_an_array(index):
    masks, cropped = three()
    assert isinstance(cropped[index], CroppedMasks) and cropped[index].shape == masks[index].shape
    np.testing.assert_array_equal(np.asarray(cropped[index]), masks[index])


def test_one_row_is_an_array_and_rows_are_iterated():
    masks, cropped = three()
    np.testing.assert_array_equal(cropped[-1], masks[2])
    np.testing.assert_array_equal(np.stack(list(cropped)), masks)
    assert cropped.shape == (3, 20, 30) and cropped.nbytes == 3 + 3 + 1  # 18, 20 and 1 bits
    with pytest.raises(IndexError):
        cropped[3]


def test_parts_are_joined_and_cut_by_hand():
    one, other = Crop(2, 1, np.ones((2, 3), bool)), Crop(4, 2, np.ones((3, 2), bool))
    joined = Crop.joined([one, other])
    assert joined.box == (2, 1, 6, 5) and joined.mask.sum() == 6 + 6 - 1
    inside = joined.inside((0, 2, 5, 4))
    assert inside.box == (2, 2, 5, 4) and inside.mask.tolist() == [[True, True, True], [False, False, True]]
    assert joined.inside((6, 0, 9, 9)).mask.size == 0
