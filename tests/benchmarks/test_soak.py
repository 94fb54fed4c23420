"""`benchmarks/soak.py` and `benchmarks/reproducibility.py`: their arithmetic, and a short run."""

import itertools
import json

import pytest
import reproducibility
import soak


def test_growth_is_that_of_the_means_of_the_quarters_after_the_warm_up():
    # The first two of ten are the warm-up; then 100 and 102 grow to 104 and 106.
    memory = [50, 70, 100, 102, 103, 110, 99, 103, 104, 106]
    samples = [(10**6 * each, 7, 20 + (number == 9)) for number, each in enumerate(memory)]
    assert soak.summary(samples) == {
        "samples": 8,
        "memory_mb": 101.0,
        "growth_percent": 3.96,  # 4 / 101
        "spread_percent": 11.11,  # 110 against 99
        "threads": {"first": 7, "last": 7, "highest": 7},
        "files": {"first": 20, "last": 21, "highest": 21},
    }


def test_the_images_have_fifty_sizes_and_neighbours_differ():
    sizes = soak.sizes()
    assert len(set(sizes)) == len(sizes) == 50
    assert all(abs(one[0] - two[0]) > 30 for one, two in itertools.pairwise(sizes))


def test_losses_are_compared_step_by_step():
    assert reproducibility.compared([3.0, 2.0], [3.0, 2.0]) == {"equal": True, "first": None, "largest": 0, "end": 0}
    found = reproducibility.compared([3.0, 2.5, 1.0], [3.0, 2.0, 1.25])
    assert found == {"equal": False, "first": 2, "largest": 0.5, "end": 0.25}


@pytest.mark.slow
def test_a_short_run_has_constant_memory_threads_and_files(run_here, tmp_path):
    sizes = ("--steps", 600, "--epochs", 20, "--images", 1000)
    answer = run_here("soak", *sizes, "--output", tmp_path / "soak.json")
    assert answer.returncode == 0, answer.stderr
    print(answer.stdout)
    found = json.loads((tmp_path / "soak.json").read_text())
    for part in soak.PARTS:
        assert found[part]["growth_percent"] < 2, found[part]  # pools still fill in so short a run
        for name in ("threads", "files"):
            assert found[part][name]["highest"] <= found[part][name]["first"] + 1, found[part]
