import pathlib
import time

import data_workers
import pytest


def test_table_worked_by_hand():
    rates = {("threads", 1): [10.0, 20.0, 30.0], ("threads", 2): [15.0, 40.0, 36.0]}
    rates |= {("processes", 1): [8.0, 9.0, 10.0], ("processes", 2): [16.0, 18.0, 15.0]}
    assert list(data_workers.table(rates))[2:] == [
        "| threads | 20.0 images/s | 36.0 images/s | 1.50× (1.20 … 2.00) |",
        "| processes | 9.0 images/s | 16.0 images/s | 2.00× (1.50 … 2.00) |",
    ]


@pytest.mark.skipif(not pathlib.Path("/proc/self/schedstat").is_file(), reason="Linux counts the time of threads")
def test_a_spinner_runs_until_it_is_stopped():
    spinner = data_workers.Spinner()
    spinner.start()
    time.sleep(0.1)
    running, waiting = data_workers.seconds_of(spinner)
    assert running > 0 and waiting >= 0
    spinner.goes_on = False
    spinner.join(timeout=5)
    assert not spinner.is_alive()
