"""Matching: hand-computed cases and a slow reference, with padding, crowds, ties and images without objects."""

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn.ops.boxes import iou
from keras_maskrcnn.ops.matching import match


def matched(candidates, truth, valid=None, crowd=None, high=0.7, low=0.3, **options):
    """Index and role for one image, as lists."""
    truth = np.array(truth, "float32").reshape(-1, 4)
    valid = np.ones(len(truth), bool) if valid is None else np.array(valid)
    crowd = np.zeros(len(truth), bool) if crowd is None else np.array(crowd)
    index, role = match(np.array(candidates, "float32"), truth[None], valid[None], crowd[None], high, low, **options)
    index, role = keras.ops.convert_to_numpy(index), keras.ops.convert_to_numpy(role)
    assert index.dtype == role.dtype == "int32"
    assert index.shape == role.shape == (1, len(candidates))
    return index[0].tolist(), role[0].tolist()


# IoU with [0, 0, 10, 10]: 1, 8/10, 1/2, 2/10, 0.
SHRINKING = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 2], [50, 50, 60, 60]]
OBJECT = [[0, 0, 10, 10]]


def test_thresholds_by_hand():
    assert matched(SHRINKING, OBJECT)[1] == [1, 1, -1, 0, 0]
    assert matched(SHRINKING, OBJECT, high=0.5, low=0.5)[1] == [1, 1, 1, 0, 0]  # exactly `high` is positive
    assert matched(SHRINKING, OBJECT, high=0.6, low=0.5)[1] == [1, 1, -1, 0, 0]  # exactly `low` is not negative


def test_each_candidate_gets_the_object_with_the_highest_iou():
    truth = [[0, 0, 10, 10], [8, 0, 18, 10]]
    candidates = [[0, 0, 9, 10], [7, 0, 18, 10], [4, 0, 14, 10]]
    # The third shares 6·10 with both (ties go to the lower row): 60 / 140 < 0.7.
    assert matched(candidates, truth) == ([0, 1, 0], [1, 1, -1])


def test_keep_best_gives_every_object_a_positive():
    weak = [[0, 0, 10, 2], [0, 8, 10, 10], [0, 0, 10, 1], [30, 30, 40, 40]]
    assert matched(weak, OBJECT)[1] == [0, 0, 0, 0]
    assert matched(weak, OBJECT, keep_best=True)[1] == [1, 1, 0, 0]  # both have IoU 0.2: all ties are kept
    assert matched(weak[3:], OBJECT, keep_best=True)[1] == [0]  # without overlap there is no best candidate


def test_one_candidate_for_each_object_by_hand():
    # IoU of the candidates with the objects: 0.8 and 0.94; 0.5 and 0.67; 0.15 and 0.06.
    truth = [[0, 0, 10, 10], [0, 0, 10, 7.5]]
    candidates = [[0, 0, 10, 8], [0, 0, 10, 5], [0, 7, 10, 8.5]]
    index, role = matched(candidates, truth, high=0.95, low=0.3, keep_best="one_each")
    # The second object has the highest IoU of all, with the first candidate; so the first object gets the second one.
    assert index[:2] == [1, 0] and role == [1, 1, 0]
    # With True, the objects share their best candidate.
    assert matched(candidates, truth, high=0.95, low=0.3, keep_best=True)[1] == [1, -1, 0]


def greedy(overlap):
    """Object of each candidate that is fixed pair by pair, the highest IoU first; -1 for the others."""
    overlap, own = overlap.copy(), np.full(overlap.shape[1], -1)
    while overlap.size and overlap.max() > 0:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        own[column] = row
        overlap[row], overlap[:, column] = -1, -1
    return own


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(1, 12), st.booleans())
def test_one_candidate_for_each_object_as_by_a_loop(seed, objects, count, whole):
    rng = np.random.default_rng(seed)

    def boxes(number):
        corner = rng.uniform(0, 12, (number, 2))
        found = np.concatenate([corner, corner + rng.uniform(2, 9, (number, 2))], axis=1)
        return (np.rint(found) if whole else found).astype("float32")  # whole numbers give ties

    truth, candidates = boxes(objects), boxes(count)
    overlap = keras.ops.convert_to_numpy(iou(truth, candidates))
    own = greedy(overlap)
    index, role = (np.array(a) for a in matched(candidates, truth, high=0.5, low=0.4, keep_best="one_each"))
    best = overlap.max(axis=0)
    expected = np.where((own >= 0) | (best >= 0.5), 1, np.where(best < 0.4, 0, -1))
    np.testing.assert_array_equal(role, expected)
    np.testing.assert_array_equal(index, np.where(own >= 0, own, overlap.argmax(axis=0)))


def test_no_ground_truth_makes_everything_negative():
    assert matched(SHRINKING, [[0, 0, 0, 0]] * 2, valid=[False, False], keep_best=True) == ([0] * 5, [0] * 5)
    # The content of padding is ignored.
    assert matched(SHRINKING, OBJECT, valid=[False], keep_best=True)[1] == [0] * 5


def test_crowds_are_never_matched_and_negatives_inside_are_ignored():
    crowd = [[0, 0, 100, 100]]
    candidates = [[0, 0, 100, 100], [10, 10, 20, 20], [95, 0, 105, 10], [96, 0, 106, 10], [300, 300, 310, 310]]
    # Inside by 1, 1, exactly 0.5, 0.4 and 0 of their own area.
    assert matched(candidates, crowd, crowd=[True], keep_best=True)[1] == [-1, -1, -1, 0, 0]
    assert matched(candidates, crowd, crowd=[True], crowd_cover=0.6)[1] == [-1, -1, 0, 0, 0]
    assert matched(candidates, crowd, crowd=[True], crowd_cover=None)[1] == [0] * 5
    # A positive inside a crowd stays positive.
    assert matched(candidates, [*crowd, [10, 10, 20, 20]], crowd=[True, False]) == ([1, 1, 1, 1, 1], [-1, 1, -1, 0, 0])
    # A crowd region that is padding has no effect.
    assert matched(candidates, crowd, crowd=[True], valid=[False])[1] == [0] * 5


def test_candidates_per_image():
    candidates = np.array([[[0, 0, 10, 10]], [[0, 0, 10, 2]]], "float32")
    truth = np.array([OBJECT, OBJECT], "float32")
    yes, no = np.ones((2, 1), bool), np.zeros((2, 1), bool)
    role = match(candidates, truth, yes, no, 0.7, 0.3)[1]
    assert keras.ops.convert_to_numpy(role).tolist() == [[1], [0]]


def test_unusable_candidates_are_ignored_also_by_keep_best():
    candidates = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [40, 40, 50, 50]], "float32")
    truth, yes, no = np.array([[[0, 0, 10, 10]]], "float32"), np.ones((1, 1), bool), np.zeros((1, 1), bool)

    def roles(*usable):
        usable = np.array([usable]) if usable else None
        role = match(candidates, truth, yes, no, 0.7, 0.3, True, usable=usable)[1]
        return keras.ops.convert_to_numpy(role).tolist()[0]

    assert roles() == [1, -1, 0]
    assert roles(False, True, True) == [-1, 1, 0]  # the second is the best of the usable ones, with IoU 0.6
    assert roles(False, False, False) == [-1, -1, -1]


def overlaps(a, b):
    """(IoU, fraction of a inside b) of integer boxes, in float32 as in the op, so that ties and thresholds agree."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    own, other = (max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b))
    union = own + other - shared
    iou = np.float32(shared) / np.float32(union) if union else np.float32(0)
    return iou, np.float32(shared) / np.float32(max(own, 1e-6))


def slow_match(candidates, truth, valid, crowd, high, low, keep_best):
    """The rules of `match` in loops."""
    objects = [n for n in range(len(truth)) if valid[n] and not crowd[n]]
    best_of = {n: max(overlaps(c, truth[n])[0] for c in candidates) for n in objects}
    index, role = [], []
    for candidate in candidates:
        found = {n: overlaps(candidate, truth[n])[0] for n in objects}
        best = max(found.values(), default=-1)
        index.append(min((n for n in found if found[n] == best), default=0))
        forced = keep_best and any(found[n] == best_of[n] > 0 for n in objects)
        hidden = any(
            valid[n] and crowd[n] and overlaps(candidate, truth[n])[1] >= np.float32(0.5) for n in range(len(truth))
        )
        if best >= np.float32(high) or forced:
            role.append(1)
        elif best < np.float32(low) and not hidden:
            role.append(0)
        else:
            role.append(-1)
    return index, role


# A coarse grid, so that equal overlaps, exact thresholds and empty boxes are frequent.
number = st.integers(0, 4)
box = st.tuples(number, number, number, number).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
row = st.tuples(box, st.booleans(), st.sampled_from([False, False, True]))


@settings(max_examples=120, deadline=None)
@given(
    st.lists(box, min_size=1, max_size=8),
    st.lists(row, min_size=1, max_size=4),
    st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.25, 0.125)]),
    st.booleans(),
)
def test_against_the_slow_reference(candidates, rows, thresholds, keep_best):
    truth, valid, crowd = (list(column) for column in zip(*rows, strict=True))
    found = matched(candidates, truth, valid, crowd, *thresholds, keep_best=keep_best)
    assert found == slow_match(candidates, truth, valid, crowd, *thresholds, keep_best)
