"""How the input pipeline grows with workers: threads, which share the interpreter's lock, against processes.

    python benchmarks/data_workers.py --data FOLDER

FOLDER contains `annotations/instances_SPLIT.json` and the images in `SPLIT/`, as COCO's downloads do. Two measurements:

- images per second of `data.batches` with one and with two workers, as threads (`backend="tf"`) and as processes
  (`backend="grain"`), in turn in each round, after the first batches have been made;
- the time per image for which preparing it holds the lock: a thread counts while another one prepares images, and the
  share of its counts that is missing is the share of the time in which the lock was held. It counts alone before and
  after, as other programs slow it down too.

The time that the lock is held limits threads at any number of cores; processes have a lock each.
"""

import argparse
import os
import pathlib
import statistics
import sys
import threading
import time

import machine

BATCH, CANVAS = 4, (800, 1344)
KINDS = {"threads": "tf", "processes": "grain"}


def reader(options):
    """The first images of the split."""
    from keras_maskrcnn import data

    whole = data.Coco.from_folder(options.data, options.split)
    return whole[: min(options.pictures, len(whole))]


def rate(dataset, kind, workers, augment, batches):
    """Images per second of an endless pipeline, from the time on at which every worker has made two batches."""
    from keras_maskrcnn import data

    made = data.batches(dataset, CANVAS, BATCH, augment=augment, repeat=True, workers=workers, backend=KINDS[kind])
    stream = iter(made)
    for _ in range(4 * workers):  # what was made ahead is not counted: as much is made ahead at the end
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    seconds = time.perf_counter() - start
    if kind == "processes":
        made.close()
    return batches * BATCH / seconds


class Counter(threading.Thread):
    """Counts as fast as the interpreter lets it, until `stop`."""

    def __init__(self):
        super().__init__(daemon=True)
        self.count, self.goes_on = 0, True

    def run(self):
        """Counts."""
        while self.goes_on:
            self.count += 1

    def rate(self, work):
        """Calls a function once; returns the counts per second meanwhile, and the seconds."""
        start, before = time.perf_counter(), self.count
        work()
        seconds = time.perf_counter() - start
        return (self.count - before) / seconds, seconds


def lock_time(dataset, augment, images):
    """Milliseconds per image for which preparing it holds the interpreter's lock."""
    import numpy as np

    from keras_maskrcnn.data import augment as augmentation
    from keras_maskrcnn.data.prepare import Prepare

    prepare = Prepare(CANVAS, 100, 112, augmentation.get(augment))

    def other(rng):
        return dataset[int(rng.integers(len(dataset)))]

    def work():
        for number in range(images):
            sample = dataset[number % len(dataset)]
            prepare(sample, np.random.default_rng(number), number, other)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # the lock changes hands as soon as the other thread waits for it
    counter = Counter()
    counter.start()
    alone = [counter.rate(lambda: time.sleep(1.0))[0]]
    beside, seconds = counter.rate(work)
    alone.append(counter.rate(lambda: time.sleep(1.0))[0])
    counter.goes_on = False
    sys.setswitchinterval(interval)
    return (1 - beside / statistics.mean(alone)) * seconds / images * 1e3


def table(rates):
    """Lines of a Markdown table; `rates` is a dict from (kind, workers) to images per second of each round."""
    yield "| workers | 1 | 2 | 2 to 1, same round |"
    yield "|---|---|---|---|"
    for kind in KINDS:
        one, two = rates[kind, 1], rates[kind, 2]
        growth = [b / a for a, b in zip(one, two, strict=True)]
        cells = [f"{statistics.median(values):.1f}" for values in (one, two)]
        spread = f"{statistics.median(growth):.2f}× ({min(growth):.2f} … {max(growth):.2f})"
        yield f"| {kind} | {cells[0]} images/s | {cells[1]} images/s | {spread} |"


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = os.environ.get("KMR_DATA")
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=pathlib.Path(known) / "coco_tiny" if known else None)
    add("--split", default="train", help="split of the data set (default: %(default)s)")
    add("--pictures", type=int, default=60, help="number of images (default: %(default)s)")
    add("--batches", type=int, default=15, help="batches that are timed (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")
    add("--augment", default="flip", help="flip, standard, strong, lsj or copy_paste (default: %(default)s)")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER is missing, and KMR_DATA is not set")
    dataset = reader(options)
    rates = {(kind, workers): [] for kind in KINDS for workers in (1, 2)}
    locks = []
    for _ in range(options.rounds):
        for (kind, workers), found in rates.items():
            found.append(rate(dataset, kind, workers, options.augment, options.batches))
        locks.append(lock_time(dataset, options.augment, options.batches * BATCH))
    held = statistics.median(locks)
    print(f"{machine.description()}; augment={options.augment}, batches of {BATCH}, {CANVAS[0]}×{CANVAS[1]}\n")
    print(*table(rates), sep="\n")
    print(f"\nThe lock is held for {held:.1f} ms per image ({min(locks):.1f} … {max(locks):.1f}): threads make at most")
    print(f"{1e3 / held:.0f} images/s on any number of cores.")


if __name__ == "__main__":
    main()
