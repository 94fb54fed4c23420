"""Properties of the sampler."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn.ops.sampling import hardest, sample


def drawn(role, size, fraction, seed=0):
    index, valid = sample(np.array(role, "int32"), size, fraction, seed)
    index, valid = keras.ops.convert_to_numpy(index), keras.ops.convert_to_numpy(valid)
    assert index.dtype == "int32" and valid.dtype == "bool" and index.shape == valid.shape
    return index, valid


def test_the_hardest_candidates_by_hand():
    values = np.array([[0.1, 0.9, 0.5, 0.5, 0.7], [0.0, 0.0, 0.0, 0.0, 0.0]], "float32")
    candidates = np.array([[True, False, True, True, True], [False, True, True, False, True]])
    found = keras.ops.convert_to_numpy(hardest(values, candidates, np.array([2, 2])))
    # Not the highest, which is no candidate; of equal values the lower position.
    assert found.tolist() == [[False, False, True, False, True], [False, True, True, False, False]]
    assert keras.ops.convert_to_numpy(hardest(values, candidates, np.array([0, 9]))).sum(axis=1).tolist() == [0, 3]


roles = st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(roles, st.integers(1, 40), st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 2**20))
def test_properties(role, size, fraction, seed):
    role = np.array([role, role[::-1]], "int32")
    index, valid = drawn(role, size, fraction, seed)
    slots = min(size, role.shape[1])
    allowed = min(max(int(size * fraction), 1), slots)
    assert index.shape == (2, slots)
    for roles_of_image, chosen, ok in zip(role, index, valid, strict=True):
        found = roles_of_image[chosen[ok]]
        positives, negatives = (roles_of_image == 1).sum(), (roles_of_image == 0).sum()
        assert len(set(chosen[ok])) == ok.sum()  # no duplicates
        assert not (found == -1).any()  # no ignored candidates
        assert found.tolist() == sorted(found, reverse=True)  # positives first
        assert ok.tolist() == sorted(ok, reverse=True)  # empty slots last
        assert (found == 1).sum() == min(positives, allowed)  # as many positives as there are, up to the fraction
        assert (found == 0).sum() == min(negatives, slots - (found == 1).sum())  # negatives fill the remaining slots


def test_sampling_is_uniform():
    role = np.array([1] * 10 + [0] * 10 + [-1] * 5, "int32")
    seed = keras.random.SeedGenerator(3)
    counts = np.zeros(25)
    for _ in range(25):
        index, valid = drawn([role] * 40, 10, 0.5, seed)
        counts += np.bincount(index[valid], minlength=25)
    # A thousand draws, each candidate in half of them: four standard deviations are 4·√250 = 63.
    assert (np.abs(counts[:20] - 500) < 63).all()
    assert (counts[20:] == 0).all()


def test_a_seed_repeats_and_a_generator_advances():
    role = np.array([[0] * 200], "int32")
    np.testing.assert_array_equal(drawn(role, 20, 0.5, 7)[0], drawn(role, 20, 0.5, 7)[0])
    generator = keras.random.SeedGenerator(7)
    assert (drawn(role, 20, 0.5, generator)[0] != drawn(role, 20, 0.5, generator)[0]).any()


@pytest.mark.parametrize("role", [[[-1, -1, -1]], [[1, 1, 1]], [[0, 0, 0]]])
def test_one_kind_only(role):
    index, valid = drawn(role, 3, 1.0)
    assert sorted(index[0].tolist()) == [0, 1, 2]
    assert valid.all() == (role[0][0] != -1) == valid.any()


def test_at_least_one_positive_is_allowed():
    index, valid = drawn([[0, 0, 1, 0]], 2, 0.25)
    assert index[0, 0] == 2 and valid.all()
