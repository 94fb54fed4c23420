import time

import data_workers


def test_table_worked_by_hand():
    rates = {("threads", 1): [10.0, 20.0, 30.0], ("threads", 2): [15.0, 40.0, 36.0]}
    rates |= {("processes", 1): [8.0, 9.0, 10.0], ("processes", 2): [16.0, 18.0, 15.0]}
    assert list(data_workers.table(rates))[2:] == [
        "| threads | 20.0 images/s | 36.0 images/s | 1.50× (1.20 … 2.00) |",
        "| processes | 9.0 images/s | 16.0 images/s | 2.00× (1.50 … 2.00) |",
    ]


def test_a_counter_counts_until_it_is_stopped():
    counter = data_workers.Counter()
    counter.start()
    rate, seconds = counter.rate(lambda: time.sleep(0.05))
    counter.goes_on = False
    counter.join(timeout=5)
    assert rate > 0 and seconds >= 0.05 and not counter.is_alive()
    assert counter.rate(lambda: time.sleep(0.01))[0] == 0
