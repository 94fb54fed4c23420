"""NMS: hand-computed cases, torchvision, a slow reference; both lowerings, and under XLA."""

import itertools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn import backend
from keras_maskrcnn.backend.nms import fast_nms, nms, nms_by_level
from keras_maskrcnn.ops.nms import nms as pure_nms

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "nms.npz"
both = pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])


def kept(boxes, scores, threshold, max_output, static, suppress=nms, **options):
    """Kept rows per image, as lists."""
    with backend.static_shapes_scope(static):
        answer = suppress(np.asarray(boxes, "float32"), np.asarray(scores, "float32"), threshold, max_output, **options)
    indices, valid = (keras.ops.convert_to_numpy(a) for a in answer)
    assert indices.dtype == "int32" and valid.dtype == "bool"
    assert indices.shape == valid.shape == (len(boxes), max_output)
    assert not indices[~valid].any()
    assert all(row.tolist() == sorted(row, reverse=True) for row in valid)
    return [row[ok].tolist() for row, ok in zip(indices, valid, strict=True)]


# IoU of 0 and 1: 8·10 / (2·100 - 80) = 2/3; of 1 and 2: the same; of 0 and 2: 6·10 / (200 - 60) = 3/7. Box 3 is apart.
CHAIN = [[[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [50, 50, 60, 60]]]


@both
def test_chain_by_hand(static):
    scores = [[0.9, 0.8, 0.7, 0.1]]
    assert kept(CHAIN, scores, 0.5, 4, static) == [[0, 2, 3]]  # 1 is suppressed by 0, so it does not suppress 2
    assert kept(CHAIN, scores, 0.4, 4, static) == [[0, 3]]
    assert kept(CHAIN, scores, 0.7, 4, static) == [[0, 1, 2, 3]]
    assert kept(CHAIN, [[0.7, 0.9, 0.8, 0.1]], 0.5, 4, static) == [[1, 3]]


@both
def test_fast_nms_by_hand(static):
    fast = {"static": static, "suppress": fast_nms}
    scores = [[0.9, 0.8, 0.7, 0.1]]
    assert kept(CHAIN, scores, 0.5, 4, **fast) == [[0, 3]]  # 1 removes 2 although 0 removes 1
    assert kept(CHAIN, scores, 0.7, 4, **fast) == [[0, 1, 2, 3]]
    assert kept(CHAIN, scores, 0.7, 2, **fast) == [[0, 1]]
    assert kept(CHAIN, [[0.5, 0.5, 0.5, 0.5]], 0.5, 4, **fast) == [[0, 3]]  # ties: the lower row is the first
    assert kept(CHAIN, scores, 0.3, 4, groups=np.array([[0, 1, 0, 0]]), **fast) == [[0, 1, 3]]
    assert kept(CHAIN, scores, 0.5, 4, valid=np.array([[True, False, True, True]]), **fast) == [[0, 2, 3]]
    assert kept(CHAIN, scores, 0.5, 4, valid=np.zeros((1, 4), "bool"), **fast) == [[]]


@both
def test_fast_nms_is_that_of_a_loop_and_keeps_a_subset(static):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (2, 80, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (2, 80, 2))], axis=-1)
    scores, groups, valid = rng.uniform(size=(2, 80)), rng.integers(0, 3, (2, 80)), rng.uniform(size=(2, 80)) > 0.2
    found = kept(boxes, scores, 0.2, 80, static, suppress=fast_nms, groups=groups, valid=valid)
    exact = kept(boxes, scores, 0.2, 80, static, groups=groups, valid=valid)
    for image, rows in enumerate(found):
        order = [row for row in np.argsort(-scores[image]) if valid[image, row]]
        expected = []
        for place, row in enumerate(order):
            higher = [other for other in order[:place] if groups[image, other] == groups[image, row]]
            if all(overlap(boxes[image, row], boxes[image, other]) <= 0.2 for other in higher):
                expected.append(int(row))
        assert rows == expected and set(rows) <= set(exact[image])
    assert sum(map(len, found)) < sum(map(len, exact))


@both
def test_fast_nms_takes_all_rows_where_the_best_ones_do_not_suffice(static):
    # The best 30 rows of the first image are one object: with 2 results the first pass tries 4 rows.
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (2, 40, 2))
    corner[0, :30] = 700
    boxes = np.concatenate([corner, corner + 9], axis=-1)
    scores = np.tile(np.linspace(1, 0.1, 40), (2, 1))
    found = kept(boxes, scores, 0.5, 2, static, suppress=fast_nms, groups=np.zeros((2, 40), int))
    assert found == [[0, 30], [0, 1]]


def overlap(one, other):
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    return sides.prod() / (areas - sides.prod())


@both
def test_iou_equal_to_the_threshold_is_kept(static):
    boxes = [[[0, 0, 10, 10], [0, 0, 10, 5]]]  # IoU exactly one half
    assert kept(boxes, [[0.9, 0.8]], 0.5, 2, static) == [[0, 1]]
    assert kept(boxes, [[0.9, 0.8]], 0.49, 2, static) == [[0]]


@both
def test_at_most_max_output(static):
    assert kept(CHAIN, [[0.9, 0.8, 0.7, 0.1]], 0.7, 2, static) == [[0, 1]]
    assert kept(CHAIN, [[0.9, 0.8, 0.7, 0.1]], 0.7, 9, static) == [[0, 1, 2, 3]]


@both
def test_of_equal_scores_the_lower_row_comes_first(static):
    assert kept(CHAIN, [[0.5, 0.5, 0.5, 0.5]], 0.5, 4, static) == [[0, 2, 3]]
    assert kept(CHAIN, [[0.2, 0.5, 0.5, 0.5]], 0.5, 4, static) == [[1, 3]]


@both
def test_groups_do_not_suppress_each_other(static):
    scores = [[0.9, 0.8, 0.7, 0.1]]
    assert kept(CHAIN, scores, 0.3, 4, static, groups=np.array([[0, 1, 0, 0]])) == [[0, 1, 3]]
    assert kept(CHAIN, scores, 0.3, 4, static, groups=np.array([[7, 79, 0, 3]])) == [[0, 1, 2, 3]]


@both
def test_rows_that_are_not_used(static):
    nan, inf = float("nan"), float("inf")
    assert kept(CHAIN, [[-inf, 0.8, nan, 0.1]], 0.5, 4, static) == [[1, 3]]
    assert kept(CHAIN, [[0.9, 0.8, 0.7, 0.1]], 0.5, 4, static, valid=np.array([[False, True, True, True]])) == [[1, 3]]
    assert kept(CHAIN, [[0.9, 0.8, 0.7, 0.1]], 0.5, 4, static, valid=np.zeros((1, 4), "bool")) == [[]]
    wild = np.array([[[nan, 0, 1e30, 10], *CHAIN[0][1:]]])
    groups, valid = np.array([[1, 0, 1, 1]]), np.array([[False, True, True, True]])
    assert kept(wild, [[0.9, 0.8, 0.7, 0.1]], 0.5, 4, static, groups=groups, valid=valid) == [[1, 2, 3]]


@both
def test_images_are_independent(static):
    boxes, scores = np.repeat(CHAIN, 2, axis=0), [[0.9, 0.8, 0.7, 0.1], [0.1, 0.9, 0.2, 0.3]]
    assert kept(boxes, scores, 0.5, 3, static) == [[0, 2, 3], [1, 3]]


@both
def test_no_boxes(static):
    assert kept(np.zeros((2, 0, 4)), np.zeros((2, 0)), 0.5, 3, static) == [[], []]


@both
def test_boxes_without_area_suppress_nothing(static):
    boxes = [[[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10], [4, 4, 4, 8]]]
    assert kept(boxes, [[0.9, 0.8, 0.7, 0.6]], 0.1, 4, static) == [[0, 1, 2, 3]]


@both
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_torchvision(static, threshold):
    golden = np.load(GOLDEN)
    wanted = [row[row >= 0].tolist() for row in golden[f"kept_{threshold}"]]
    assert kept(golden["boxes"], golden["scores"], threshold, 120, static, groups=golden["groups"]) == wanted


def test_torchvision_under_xla():
    golden = np.load(GOLDEN)
    run = tf.function(lambda *inputs: nms(inputs[0], inputs[1], 0.5, 120, inputs[2]), jit_compile=True)
    indices, valid = run(golden["boxes"], golden["scores"], golden["groups"])
    np.testing.assert_array_equal(np.where(valid, indices, -1), golden["kept_0.5"])


def test_dynamic_batch_and_rows_in_a_graph():
    run = tf.function(
        lambda boxes, scores: nms(boxes, scores, 0.5, 3),
        input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None))],
    )
    indices, valid = run(np.asarray(CHAIN, "float32"), np.array([[0.9, 0.8, 0.7, 0.1]], "float32"))
    assert indices.numpy().tolist() == [[0, 2, 3]] and valid.numpy().all()


@both
def test_bfloat16_scores_and_policy(static):
    # In bfloat16 these boxes would be equal: 1000 … 1003 round to the same number.
    boxes = np.array([[[1000, 0, 1001, 2], [1001, 0, 1002, 2], [1002, 0, 1003, 2]]], "float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scores = keras.ops.cast(np.array([[0.9, 0.8, 0.7]]), "bfloat16")
        with backend.static_shapes_scope(static):
            _, valid = nms(boxes, scores, 0.5, 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.ops.convert_to_numpy(valid).all()


def slow_reference(boxes, scores, threshold, groups):
    """Greedy suppression in loops with integers: IoU > threshold as shared·den > union·num."""
    numerator, denominator = threshold
    chosen = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        for j in chosen:
            x1, y1 = np.maximum(boxes[i, :2], boxes[j, :2])
            x2, y2 = np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = max(x2 - x1, 0) * max(y2 - y1, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if groups[i] == groups[j] and min(areas) > 0 and shared * denominator > (sum(areas) - shared) * numerator:
                break
        else:
            chosen.append(i)
    return chosen


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 40), sevenths=st.integers(1, 6), groups=st.integers(1, 30))
def test_any_boxes_against_the_slow_reference(seed, rows, sevenths, groups):
    # Integer boxes with sides up to 12; the threshold, slightly less than a multiple of 1/7, is never met exactly.
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 20, (rows, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 12, (rows, 2))], axis=1)
    scores, group = rng.integers(0, 6, rows) / 8, rng.integers(0, groups, rows)
    threshold = (sevenths * 10000 - 37, 70000)
    wanted = slow_reference(boxes, scores, threshold, group)
    for static in (False, True):
        found = kept(boxes[None], scores[None], threshold[0] / threshold[1], rows, static, groups=group[None])
        assert found == [wanted]


def same_as_static(boxes, scores, threshold, max_output, **options):
    """Kept rows of the dynamic lowering, after comparison with the static one."""
    dynamic, static = (kept(boxes, scores, threshold, max_output, static, **options) for static in (False, True))
    assert dynamic == static
    return dynamic


ONE_PLACE_FIRST = [[[0, 0, 10, 10]] * 40 + [[20 * i, 0, 20 * i + 10, 10] for i in range(1, 11)]]


def test_results_that_are_not_among_the_best_rows():
    scores = np.linspace(1, 0.1, 50)[None]
    # More than twice the requested number of rows are copies of one box; the others have lower scores.
    assert same_as_static(ONE_PLACE_FIRST, scores, 0.5, 3) == [[0, 40, 41]]
    # One image has all results among the best rows, the other has not.
    assert same_as_static(np.repeat(ONE_PLACE_FIRST, 2, axis=0), np.concatenate([scores, scores[:, ::-1]]), 0.5, 3) == [
        [0, 40, 41],
        [49, 48, 47],
    ]
    # The other image has fewer rows than are tried first.
    few = np.where(np.arange(50) < 5, scores, float("-inf"))
    assert same_as_static(np.repeat(ONE_PLACE_FIRST, 2, axis=0), np.concatenate([few, scores]), 0.5, 3) == [
        [0],
        [0, 40, 41],
    ]


def test_large_group_numbers():
    groups = np.array([[0, 2**31 - 1, 2**31 - 1, 5]])
    assert same_as_static(CHAIN, [[0.9, 0.8, 0.7, 0.1]], 0.5, 4, groups=groups) == [[0, 1, 3]]


@pytest.mark.parametrize("grouped", [False, True])
def test_dynamic_batch_and_rows_equal_the_static_lowering(grouped):
    run = tf.function(
        lambda boxes, scores, groups: nms(boxes, scores, 0.5, 3, groups if grouped else None),
        input_signature=[
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None)),
            tf.TensorSpec((None, None), "int32"),
        ],
    )
    for images, rows in [(0, 0), (0, 5), (1, 0), (2, 1), (1, 12), (2, 13), (3, 200)]:
        boxes, scores, groups = crowd(np.random.default_rng(rows), images, rows, groups=2)
        found = [np.asarray(a) for a in run(boxes, scores, groups)]
        with backend.static_shapes_scope(True):
            wanted = nms(boxes, scores, 0.5, 3, groups if grouped else None) if images else np.zeros((2, 0, 3))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def crowd(rng, images, rows, groups):
    """Boxes [B, N, 4] around a few places, some without area; scores [B, N] with many ties and some -inf; groups."""
    corner = rng.choice([0.0, 1.5, 30.0], (images, rows, 2)) + rng.normal(0, 1, (images, rows, 2))
    size = np.maximum(rng.normal(8, 4, (images, rows, 2)), 0)
    scores = rng.integers(0, rng.choice([3, 1000]), (images, rows)) / 8
    scores[rng.uniform(size=scores.shape) < rng.choice([0.0, 0.1, 0.9, 1.0])] = float("-inf")
    boxes = np.concatenate([corner, corner + size], axis=-1)
    return boxes.astype("float32"), scores.astype("float32"), rng.integers(0, groups, (images, rows)).astype("int32")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    rows=st.integers(1, 150),
    max_output=st.integers(1, 40),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    groups=st.sampled_from([1, 3, 80, 1203]),
)
def test_both_lowerings_agree(seed, images, rows, max_output, threshold, groups):
    boxes, scores, group = crowd(np.random.default_rng(seed), images, rows, groups)
    same_as_static(boxes, scores, threshold, max_output, groups=group)
    same_as_static(boxes, scores, threshold, max_output)


@pytest.mark.parametrize("size", [(None, None), (2, 60), (2, 0)])
def test_one_traced_graph_serves_all_thresholds_and_counts(size):
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec((*size, 4)),
            tf.TensorSpec(size),
            tf.TensorSpec(size, "int32"),
            tf.TensorSpec(()),
            tf.TensorSpec((), "int32"),
        ]
    )
    def run(boxes, scores, groups, threshold, count):
        traces.append(size)
        return nms(boxes, scores, threshold, count, groups)

    for rows in (0, 7, 60) if None in size else size[1:]:
        boxes, scores, groups = crowd(np.random.default_rng(rows), 2, rows, groups=2)
        for used in (scores, np.full_like(scores, -np.inf)):
            for threshold, count in itertools.product((0.0, 0.3, 0.5, 1.0), (1, 3, 20, 100)):
                found = run(boxes, used, groups, threshold, count)
                for known in (nms, pure_nms):
                    wanted = known(boxes, used, threshold, count, groups)
                    for one, other in zip(found, wanted, strict=True):
                        np.testing.assert_array_equal(one, other)
    assert len(traces) == 1


def test_pure_implementation_takes_a_threshold_tensor():
    boxes, scores, groups = crowd(np.random.default_rng(3), 2, 60, groups=2)
    for threshold in (0.0, 0.3, 0.7):
        found = pure_nms(boxes, scores, tf.constant(threshold), 9, groups)
        for one, other in zip(found, pure_nms(boxes, scores, threshold, 9, groups), strict=True):
            np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rows=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    max_output=st.integers(1, 60),
    threshold=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_levels_one_by_one_give_the_result_of_all_in_groups(seed, rows, max_output, threshold):
    boxes, scores, _ = crowd(np.random.default_rng(seed), 2, sum(rows), groups=1)
    level = np.repeat(np.arange(len(rows)), rows)[None].repeat(2, axis=0)
    valid = np.random.default_rng(seed).uniform(size=scores.shape) < 0.9
    wanted = pure_nms(boxes, scores, threshold, max_output, level, valid)
    for static in (False, True):
        with backend.static_shapes_scope(static):
            parts = np.split(scores, np.cumsum(rows)[:-1], axis=1)
            found = nms_by_level(boxes, parts, threshold, max_output, valid)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
