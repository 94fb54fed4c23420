"""`benchmarks/scale.py`: times that a person can compute."""

import pytest
import scale


def test_one_device_has_its_own_speed():
    assert scale.Cluster(20.0).speed(1) == pytest.approx(20.0)


def test_rings_inside_and_between_hosts():
    cluster = scale.Cluster(20.0, parameters=250e6, devices=8, link=100.0, network=10.0, latency=0.0)
    # 1 GB: 2 · 7/8 / 100 s inside, less than a millisecond of messages; 2 · 7/8 / 10 s between eight hosts.
    assert cluster.exchange(8) == pytest.approx(0.0175, rel=1e-2)
    assert cluster.exchange(64) == pytest.approx(0.0175 + 0.175, rel=1e-2)
    assert cluster.step(64)[0] == pytest.approx(0.1 + 0.1925, rel=1e-2)
    assert cluster.step(64)[1] == "exchange"


def test_the_input_limits():
    cluster = scale.Cluster(20.0, pipeline=40.0)
    assert cluster.step(8) == (0.4, "input")
    assert cluster.speed(16) == pytest.approx(80.0)


def test_the_program_prints_a_table_and_compares(run_here):
    measured = ("--accelerators", 2, "--devices", 1, "--latency", 0, "--parameters", 5e6, "--network", 1, "--batch", 4)
    done = run_here("scale", "--images-per-second", 10, "--measured", 16, *measured)
    assert done.returncode == 0, done.stderr
    # 20 MB through 1 GB/s: 20 ms of a step of 420 ms, 19.05 images/s; measured is a step of 500 ms.
    assert "| 2 | 420.0 ms | 20.0 ms | 19.0 | 95% | compute |" in done.stdout
    assert "predicted 19.05 (-16%)" in done.stdout and "100.0 ms longer than that of one" in done.stdout
