"""Processes that wait for one another, as threads of this process, and the environment that names them."""

import argparse
import concurrent.futures
import json
import socket

import pytest
import several

from keras_maskrcnn.training import distribution
from keras_maskrcnn.training.optimizers import schedule
from keras_maskrcnn.training.rendezvous import meet


@pytest.fixture
def address():
    return f"127.0.0.1:{several.ports(1)[0]}"


def test_all_meet_and_the_port_is_free_afterwards(address):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        meetings = [pool.submit(meet, index, 3, address, 20) for index in (2, 1, 0)]
        assert [meeting.result() for meeting in meetings] == [None] * 3
    port = int(address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as server:
        assert server.getsockname()[1] == port


def test_a_process_that_was_started_again_and_strangers_count_once(address):
    host, port = address.split(":")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, 0, 3, address, 20)
        for words in (b"GET / HTTP/1.1\n", b"process 7 3\n", b"process x 3\n", b"process 1 3\n"):
            while True:
                try:
                    with socket.create_connection((host, int(port))) as visitor:
                        visitor.sendall(words)
                    break
                except ConnectionRefusedError:
                    continue
        second = pool.submit(meet, 2, 3, address, 20)
        with pytest.raises(concurrent.futures.TimeoutError):
            first.result(timeout=0.7)
        meet(1, 3, address, 20)
        first.result(), second.result()


@pytest.mark.parametrize(
    ("index", "message"),
    [(0, r"waited 0.3 s for process 1, 2 of 3, which did not come"), (2, r"waited 0.3 s for the other 2 processes")],
)
def test_nobody_comes(address, index, message):
    with pytest.raises(ValueError, match=message):
        meet(index, 3, address, 0.3)


def test_an_address_without_a_port():
    with pytest.raises(ValueError, match="must be HOST:PORT, not 'machine'"):
        meet(1, 2, "machine", 1)


def test_the_environment_of_tensorflow():
    cluster = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
    for task, index in (({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": 1}, 2)):
        found = distribution._of_tf_config({"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})})
        assert found == (index, 3, "a:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "TF_CONFIG, which is not set"),
        ("{", "TF_CONFIG cannot be used"),
        ('{"cluster": {"worker": ["a:1"]}}', "KeyError: 'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 4}}', "TF_CONFIG cannot be used"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', r"has the jobs \['ps'\]"),
    ],
)
def test_an_environment_of_tensorflow_that_does_not_fit(text, message):
    with pytest.raises(ValueError, match=message):
        distribution._of_tf_config({"TF_CONFIG": text})


def test_the_environment_of_jax():
    variables = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert distribution._of_jax(variables) == (3, 4, "a:1")
    assert distribution._of_jax({}) == (0, 1, None)
    with pytest.raises(ValueError, match="needs the numbers JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        distribution._of_jax({"JAX_COORDINATOR_ADDRESS": "a:1"})
    with pytest.raises(ValueError, match=r"JAX_PROCESS_ID 4 is not in 0\.\.3"):
        distribution._of_jax({**variables, "JAX_PROCESS_ID": "4"})


def test_another_backend_is_named():
    with pytest.raises(ValueError, match="--distribute jax needs KERAS_BACKEND=jax, not tensorflow"):
        distribution.begin(argparse.Namespace(distribute="jax"))


def test_a_run_by_the_clock_is_for_one_process(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match="--minutes is for one process, not for --distribute multiworker"):
        distribution.begin(argparse.Namespace(distribute="multiworker", minutes=3.0, batch_size=2))


def test_the_rate_grows_with_the_batch():
    arguments = {"learning_rate": 0.02, "batch_size": 64, "steps": 100, "hold": 0.0, "minutes": None}
    options = argparse.Namespace(**arguments, lr_schedule="constant", base_batch_size=16)
    assert float(schedule(options)(50)) == pytest.approx(0.08)
    assert float(schedule(options)(0)) == pytest.approx(0.08e-3)  # the warm-up starts at a thousandth
    options.base_batch_size = None
    assert float(schedule(options)(50)) == pytest.approx(0.02)
