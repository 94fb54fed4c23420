"""`benchmarks/memory.py`: the peak of given events, and a complete tiny run."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
import memory


def events(*rows):
    """Events (whether an allocation, address, requested bytes) of a pool that adds 10 bytes to each."""
    total, found = 100, []
    for time, (made, address, size) in enumerate(rows):
        total += size + 10 if made else -size - 10
        found.append(memory.Event(time, made, address, size, size + 10, total, operation=f"of {address}"))
    return found


def test_the_peak_contains_what_is_allocated_and_not_deallocated():
    rows = [(True, 1, 50), (True, 2, 30), (False, 1, 50), (True, 3, 200), (False, 2, 30), (True, 1, 5)]
    before, live = memory.at_peak(events(*rows))
    assert before == 100
    assert {event.address: event.requested for event in live} == {2: 30, 3: 200}
    assert before + sum(event.allocated for event in live) == max(event.total for event in events(*rows))


def test_deallocations_of_earlier_tensors_are_not_counted():
    before, live = memory.at_peak(events((False, 7, 20), (True, 1, 500)))
    assert before == 100 - 30 and [event.address for event in live] == [1]
    assert memory.at_peak(events((True, 1, 500), (False, 7, 20)))[0] == 100  # the peak comes before it


def test_without_events_the_error_names_the_variable():
    with pytest.raises(ValueError, match="TF_CPU_ALLOCATOR_USE_BFC"):
        memory.at_peak([])


@pytest.mark.parametrize(
    "operation, found",
    [
        ("mask_rcnn_1/resnet50_1/Conv2D_22", ("backbone", False)),
        ("gradient_tape/mask_rcnn_1/rpn_1/conv1_1/convolution/Conv2DBackpropInput", ("RPN", True)),
        ("mask_rcnn/align_1/SparseMatrixMatMul", ("RoIAlign", False)),
        ("SparseMatrixMatMul", ("RoIAlign", True)),
        ("gradient_tape/mask_rcnn_1/box_head_1/fc1_1/MatMul/MatMul_1", ("box head", True)),
        ("mask_rcnn_1/rpn_1/Reshape", ("RPN", False)),
        ("SGD/mul_3", (memory.REST, False)),
        ("", (memory.REST, False)),
    ],
)
def test_parts_by_name(operation, found):
    assert memory.part(operation) == found


@pytest.mark.slow
def test_tiny_run_adds_up(tmp_path):
    output = tmp_path / "memory.json"
    (tmp_path / "speed.md").write_text("<!-- memory: begin -->\n<!-- memory: end -->\n")
    words = ["--tiny", "--size", 64, "--output", output, "--docs", tmp_path, "--top", 5]
    command = [sys.executable, str(BENCHMARKS / "memory.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    inside = sum(map(sum, report["parts"].values()))
    assert report["peak"] == report["before"] + inside + report["slack"]
    assert 0 < report["variables"] <= report["before"] and report["slack"] >= 0
    # Gradients of all parts are held until the update; of the forward pass, whatever the step's peak coincides with.
    assert all(sum(report["parts"][name]) > 0 for name in ("backbone", "pyramid", "RPN", "box head", "mask head"))
    assert [row["bytes"] for row in report["largest"]] == sorted((r["bytes"] for r in report["largest"]), reverse=True)
    assert len(report["largest"]) == 5 and report["process_mb"] > report["imports_mb"]
    assert "| **all** |" in (tmp_path / "speed.md").read_text()


def test_invalid_sizes_are_rejected(run_here):
    done = run_here("memory", "--size", 100)
    assert done.returncode == 2 and "--size 100 is not a multiple of 64" in done.stderr.splitlines()[-1]
