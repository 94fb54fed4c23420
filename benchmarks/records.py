"""Opens TFRecord files of a million images, measures how well an epoch is shuffled, and how fast records are read.

    python benchmarks/records.py --output benchmarks/results/records.json --docs docs

The files are written first: images of 16 × 16 pixels with one object each, in files of 1,000. Each case is a process of
its own that opens them, and takes a first batch of 8 for training from `data.batches`. Its memory is what it holds more
than a process that does the same with one of the files: resident at the end, and at the peak. The files were just
written, so that they are in the memory of the system and not read from a disk.

The order of an epoch of the library is compared with other ways to read such files, and with what is expected of a
permutation of which all are equally likely:

- near: share of the images that follow one another in a file and are at most 1,024 places apart in the epoch;
- distance: median over those pairs of their distance in the epoch, as a share of its length;
- entropy: of the file that an image is from, in bits, mean over windows of 1,024 images of the epoch.

Last, records of 100 kB are read at random places, of TFRecord and of ArrayRecord (`pip install grain`).
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import machine
import numpy as np
import pairs
import reports

PER_FILE = 1000
NAME = "train.tfrecord"
WINDOW = 1024
CYCLE, BUFFER = 16, 10_000  # of the pipeline that the order is compared with
SHAPE = {"image_size": (32, 32), "batch_size": 8, "max_instances": 4, "mask_size": 8}
BASE = "one file"
CASES = (BASE, "index", "index, file:// URL", "no index")


# Files --------------------------------------------------------------------------------------------------------------


def write(folder, images):
    """Writes files of `PER_FILE` images each, with their index and label map: all records are the same one."""
    from keras_maskrcnn import data
    from keras_maskrcnn.data import record_index, tf_record_file

    (first,) = data.write_tfrecord(data.Shapes(1, image_size=(16, 16), object_size=(6, 10)), folder / "one")
    content = tf_record_file.contents(first)[0]
    files = -(-images // PER_FILE)
    lengths = {}
    for number in range(files):
        file = folder / f"{NAME}-{number:05d}-of-{files:05d}"
        lengths[file.name] = [len(content)] * min(PER_FILE, images - number * PER_FILE)
        with tf_record_file.writer(file) as append:
            for _ in lengths[file.name]:
                append(content)
    record_index.write(folder / f"{NAME}{record_index.ENDING}", lengths)


@contextlib.contextmanager
def hidden(path):
    """A block in which a file has another name."""
    other = path.rename(f"{path}.hidden")
    try:
        yield
    finally:
        other.rename(path)


# Opening ------------------------------------------------------------------------------------------------------------


def opening(path):
    """Figures of this process: seconds of opening and of the first batch, and bytes at the end and at the peak."""
    from keras_maskrcnn import data

    if "://" in path:
        import tensorflow  # the batches below need it in all cases

    reader = data.TfRecord  # imports the reader
    start = time.perf_counter()
    dataset = reader(path)
    opened = time.perf_counter() - start
    import tensorflow  # noqa: F401

    start = time.perf_counter()
    batches = iter(data.batches(dataset, **SHAPE, augment="flip", repeat=True))
    next(batches)
    first = time.perf_counter() - start
    resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return {"images": len(dataset), "opened": opened, "first": first, "resident": resident, "peak": _peak()}


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(folder, rounds):
    """Figures of each case, the rounds of the cases alternating: a list of dicts by name."""
    index, first = folder / f"{NAME}.index", sorted(folder.glob(f"{NAME}-00000-of-*"))[0]
    paths = {BASE: first, "index": folder / NAME, "index, file:// URL": f"file://{folder / NAME}"}
    found = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            with hidden(index) if case == "no index" else contextlib.nullcontext():
                found[case].append(_process(paths.get(case, folder / NAME)))
    return found


def _process(path):
    command = [sys.executable, __file__, "--open", str(path)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "KMR_CACHE": cache, "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{path}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def summary(found):
    """One row per case: medians, and the memory beyond that of the process that opens one file."""
    rows = []
    for case, runs in found.items():
        row = {"case": case, "images": runs[0]["images"]}
        row |= {name: reports.spread([run[name] for run in runs]) for name in ("opened", "first")}
        for name in ("resident", "peak") if case != BASE else ():
            more = [run[name] - base[name] for run, base in zip(runs, found[BASE], strict=True)]
            row[name] = reports.spread(more)
        rows.append(row)
    return rows


# Order --------------------------------------------------------------------------------------------------------------


def orders(images, files, seed=0):
    """The order of an epoch, int [images], by the way of reading; each yields its name first."""
    yield "order of the files", np.arange(images)
    yield f"buffer of {BUFFER:,}", _streamed(images, files, 1, seed)
    yield f"{CYCLE} files in turn, buffer of {BUFFER:,}", _streamed(images, files, CYCLE, seed)
    from keras_maskrcnn.data.sampling import Order

    yield "`data.batches`", Order(images, shuffle=True, seed=seed)(0)[:, 0]


def _streamed(images, files, cycle, seed):
    """Order of the usual pipeline: files in random order, `cycle` of them read in turn, into a shuffle buffer."""
    import tensorflow as tf

    def records(file):
        return tf.data.Dataset.range(file * PER_FILE, tf.minimum((file + 1) * PER_FILE, images))

    names = tf.data.Dataset.range(files).shuffle(files, seed=seed)
    stream = names.interleave(records, cycle_length=cycle).shuffle(BUFFER, seed=seed)
    return next(iter(stream.batch(images))).numpy()


def quality(order):
    """The measures of the module's docstring, of a permutation of the images."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    apart = np.abs(np.diff(places))
    full = len(order) // WINDOW * WINDOW
    windows = (order[:full] // PER_FILE).reshape(-1, WINDOW)
    return {
        "near": float((apart <= WINDOW).mean()),
        "distance": float(np.median(apart) / len(order)),
        "entropy": float(np.mean([_entropy(np.bincount(window)) for window in windows])),
    }


def expected(images, seed=0):
    """Those measures expected of a permutation; that of the entropy by drawing 200 windows."""
    near = sum(images - apart for apart in range(1, WINDOW + 1)) * 2 / (images * (images - 1))
    sizes = np.bincount(np.arange(images) // PER_FILE)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(sizes, WINDOW, size=200)
    return {"near": near, "distance": 1 - 0.5**0.5, "entropy": float(np.mean([_entropy(counts) for counts in drawn]))}


def _entropy(counts):
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


# Reads --------------------------------------------------------------------------------------------------------------


def reads(folder, rounds, records=2000, size=100_000):
    """Microseconds in which a record at a random place is read: a dict by format, each in one file."""
    readers = {"TFRecord and index": _tfrecord(folder, records, size), "ArrayRecord by grain": _array_record(folder)}
    rng, times = np.random.default_rng(0), {name: [] for name in readers}
    for _ in range(rounds):
        places = rng.integers(0, records, records).tolist()
        for name, read in readers.items():
            start = time.perf_counter()
            for place in places:
                read(place)
            times[name].append((time.perf_counter() - start) / records * 1e6)
    return {name: reports.spread(found) for name, found in times.items()}


def _tfrecord(folder, records, size):
    """A function that reads a record of a file of random bytes."""
    from keras_maskrcnn.data import record_shards, tf_record_file

    rng = np.random.default_rng(0)
    with tf_record_file.writer(folder / "reads.record") as append:
        for _ in range(records):
            append(rng.bytes(size))
    return record_shards.Shards(folder / "reads.record").read


def _array_record(folder):
    """A function that reads the same record of the same bytes in an ArrayRecord file."""
    from absl import flags
    from array_record.python.array_record_module import ArrayRecordWriter
    from grain.sources import ArrayRecordDataSource

    from keras_maskrcnn.data import tf_record_file

    flags.FLAGS.mark_as_parsed()
    writer = ArrayRecordWriter(str(folder / "reads.array_record"), "group_size:1")  # for random places
    for content in tf_record_file.contents(folder / "reads.record"):
        writer.write(content)
    writer.close()
    return ArrayRecordDataSource([str(folder / "reads.array_record")]).__getitem__


# Report -------------------------------------------------------------------------------------------------------------


def lines(report):
    """The report in Markdown."""
    yield "| opening | images | s | first batch, s | resident, MB | peak, MB | bytes per image |"
    yield "|---|---|---|---|---|---|---|"
    for row in report["rows"]:
        memory = ["", "", ""]
        if "resident" in row:
            resident, peak = row["resident"]["median"], row["peak"]["median"]
            memory = [f"{resident / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{resident / row['images']:.0f}"]
        times = [f"{row['opened']['median']:.2f}", f"{row['first']['median']:.2f}"]
        yield f"| {' | '.join([row['case'], format(row['images'], ','), *times, *memory])} |"
    yield "\n| order of an epoch | near | distance | entropy, bits |"
    yield "|---|---|---|---|"
    for name, found in report["orders"].items():
        yield f"| {name} | {found['near']:.2%} | {found['distance']:.3f} | {found['entropy']:.2f} |"
    yield "\n| 100 kB at a random place | µs |\n|---|---|"
    for name, found in report["reads"].items():
        yield f"| {name} | {found['median']:.0f} ({found['lowest']:.0f} … {found['highest']:.0f}) |"
    yield f"\n{report['images']:,} images in files of {PER_FILE:,}; medians of {report['rounds']} processes of a case;"
    yield f"{report['machine']}, {report['date']}, {reports.versions(report['versions'])}."


def main():
    """Writes the files, opens them, measures orders, prints the tables; with --open a process of one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=pairs.positive, default=1_000_000, help="(default: %(default)s)")
    add("--rounds", type=pairs.positive, default=3, help="processes of each case (default: %(default)s)")
    add("--folder", type=pathlib.Path, help="existing one, for the 1 GB of files (default: a temporary one)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the tables into this folder's scale.md")
    add("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opening(options.open)))
        return
    if options.images < WINDOW:
        parser.error(f"--images {options.images} is less than a window of {WINDOW}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(pathlib.Path(folder), options.images)
        found = measured(pathlib.Path(folder), options.rounds)
        times = reads(pathlib.Path(folder), options.rounds)
    files = -(-options.images // PER_FILE)
    report = {
        **reports.header("records.py"),
        "versions": machine.versions(["tensorflow", "keras", "numpy", "protobuf"]),
        "images": options.images,
        "rounds": options.rounds,
        "rows": summary(found),
        "orders": {name: quality(order) for name, order in orders(options.images, files)}
        | {"a random permutation, expected": expected(options.images)},
        "reads": times,
    }
    text = "\n".join(lines(report))
    print(text)
    reports.write(options.output, report)
    if options.docs:
        reports.fill(options.docs / "scale.md", "records", text)


if __name__ == "__main__":
    main()
