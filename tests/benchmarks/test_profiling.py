"""`benchmarks/profiling.py`: FLOPs against counts by hand, and a tiny run to the end."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "profiling.py"
WIDE, NARROW, PRODUCT = "3×3 convolution", "1×1 convolution", "matrix product"


@pytest.fixture(scope="module")
def profiling():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("profiling", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


def count(profiling, function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return profiling.count_flops(tf.function(function).get_concrete_function(*specs).graph)


def test_convolutions_by_hand(profiling):
    # Output 1×5×6×4 (stride 2, same padding); each value sums 3·3·2 products.
    found = count(profiling, lambda x, k: tf.nn.conv2d(x, k, 2, "SAME"), (1, 10, 12, 2), (3, 3, 2, 4))
    assert found == {WIDE: 2 * (5 * 6 * 4) * 18, NARROW: 0, PRODUCT: 0}
    found = count(profiling, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (2, 5, 6, 7), (1, 1, 7, 3))
    assert found == {WIDE: 0, NARROW: 2 * (2 * 5 * 6 * 3) * 7, PRODUCT: 0}
    # Two groups: each output channel sees half of the 4 input channels.
    found = count(profiling, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (1, 5, 5, 4), (3, 3, 2, 6))
    assert found[WIDE] == 2 * (5 * 5 * 6) * 18
    found = count(profiling, lambda x, k: tf.nn.depthwise_conv2d(x, k, [1] * 4, "SAME"), (1, 5, 5, 4), (3, 3, 4, 2))
    assert found[WIDE] == 2 * (5 * 5 * 8) * 9


def test_gradients_of_a_convolution_cost_as_much_as_itself_each(profiling):
    def both(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = tf.nn.conv2d(x, kernel, 2, "SAME")
        return tape.gradient(y, (x, kernel))

    assert count(profiling, both, (1, 10, 12, 2), (3, 3, 2, 4))[WIDE] == 3 * 2 * (5 * 6 * 4) * 18


def test_matrix_products_by_hand(profiling):
    assert count(profiling, lambda a, b: a @ b, (5, 7), (7, 3))[PRODUCT] == 2 * 5 * 7 * 3
    turned = lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True)  # noqa: E731
    assert count(profiling, turned, (7, 5), (3, 7))[PRODUCT] == 2 * 5 * 7 * 3
    assert count(profiling, lambda a, b: a @ b, (4, 5, 7), (4, 7, 3))[PRODUCT] == 4 * 2 * 5 * 7 * 3


def test_unknown_shape_is_refused_by_name(profiling):
    with pytest.raises(ValueError, match="has no static shape"):
        count(profiling, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (None, 5, 6, 7), (1, 1, 7, 3))


def test_floor_takes_each_kind_at_its_own_rate(profiling):
    report = {"flops": {WIDE: 6e9, NARROW: 2e9, PRODUCT: 1e9}, "rate": {WIDE: 3e9, NARROW: 1e9, PRODUCT: 4e9}}
    assert profiling.floor(report) == pytest.approx(2 + 2 + 0.25)


def test_tiny_run_tells_floor_and_parts(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    output, logs = tmp_path / "p.json", tmp_path / "logs"
    command = [sys.executable, SCRIPT, "--tiny", "--rounds", "2", "--output", output, "--logdir", logs]
    answer = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr[-2000:]
    report = json.loads(output.read_text())
    assert report["detections"] == 10
    assert all(report["flops"][kind] > 0 and report["rate"][kind] > 0 for kind in (WIDE, NARROW, PRODUCT))
    assert report["fraction"] == pytest.approx(report["floor_s"] / report["predict_s"]["median"])
    assert len(report["parts_s"]) == 4
    assert list(logs.rglob("*.xplane.pb"))
    assert "| **predict** |" in answer.stdout
