"""`benchmarks/profiling.py`: FLOPs against counts by hand, and a complete tiny run."""

import json

import profiling
import pytest
import tensorflow as tf

WIDE, NARROW, PRODUCT = "3×3 convolution", "1×1 convolution", "matrix product"


def count(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return profiling.count_flops(tf.function(function).get_concrete_function(*specs).graph)


def test_convolutions_by_hand():
    # Output 1×5×6×4 (stride 2, same padding); each value sums 3·3·2 products.
    found = count(lambda x, k: tf.nn.conv2d(x, k, 2, "SAME"), (1, 10, 12, 2), (3, 3, 2, 4))
    assert found == {WIDE: 2 * (5 * 6 * 4) * 18, NARROW: 0, PRODUCT: 0}
    found = count(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (2, 5, 6, 7), (1, 1, 7, 3))
    assert found == {WIDE: 0, NARROW: 2 * (2 * 5 * 6 * 3) * 7, PRODUCT: 0}
    # Two groups: each output channel depends on half of the 4 input channels.
    found = count(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (1, 5, 5, 4), (3, 3, 2, 6))
    assert found[WIDE] == 2 * (5 * 5 * 6) * 18
    found = count(lambda x, k: tf.nn.depthwise_conv2d(x, k, [1] * 4, "SAME"), (1, 5, 5, 4), (3, 3, 4, 2))
    assert found[WIDE] == 2 * (5 * 5 * 8) * 9


def test_gradients_of_a_convolution_cost_as_much_as_itself_each():
    def both(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = tf.nn.conv2d(x, kernel, 2, "SAME")
        return tape.gradient(y, (x, kernel))

    assert count(both, (1, 10, 12, 2), (3, 3, 2, 4))[WIDE] == 3 * 2 * (5 * 6 * 4) * 18


def test_matrix_products_by_hand():
    assert count(lambda a, b: a @ b, (5, 7), (7, 3))[PRODUCT] == 2 * 5 * 7 * 3
    turned = lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True)  # noqa: E731
    assert count(turned, (7, 5), (3, 7))[PRODUCT] == 2 * 5 * 7 * 3
    assert count(lambda a, b: a @ b, (4, 5, 7), (4, 7, 3))[PRODUCT] == 4 * 2 * 5 * 7 * 3


def test_unknown_shape_is_refused_by_name():
    with pytest.raises(ValueError, match="has no static shape"):
        count(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (None, 5, 6, 7), (1, 1, 7, 3))


def test_floor_takes_each_kind_at_its_own_rate():
    report = {"flops": {WIDE: 6e9, NARROW: 2e9, PRODUCT: 1e9}, "rate": {WIDE: 3e9, NARROW: 1e9, PRODUCT: 4e9}}
    assert profiling.floor(report) == pytest.approx(2 + 2 + 0.25)


@pytest.mark.slow
def test_tiny_run_measures_floor_and_parts(tmp_path, run_here, eager_functions):
    output, logs = tmp_path / "p.json", tmp_path / "logs"
    answer = run_here("profiling", "--tiny", "--rounds", 1, "--output", output, "--logdir", logs)
    assert answer.returncode == 0, answer.stderr[-2000:]
    report = json.loads(output.read_text())
    assert report["detections"] == 10
    assert all(report["flops"][kind] > 0 and report["rate"][kind] > 0 for kind in (WIDE, NARROW, PRODUCT))
    assert report["fraction"] == pytest.approx(report["floor_s"] / report["predict_s"]["median"])
    assert len(report["parts_s"]) == 4
    assert list(logs.rglob("*.xplane.pb"))
    assert "| **predict** |" in answer.stdout
