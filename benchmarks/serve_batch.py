"""Whether images that go through the network together cost less than one by one: the default of `serve --batch`.

    python benchmarks/serve_batch.py --output benchmarks/results/serve_batch.json

Processor time per image as the service detects, for images of several sizes. It depends less on other programs of the
machine than elapsed time. The sizes of batches alternate; the ratio is that of timings that stood next to each other.
"""

import argparse
import pathlib
import statistics
import time

import machine
import pairs
import reports
import scenes

SCORE = 0.5


def processor_seconds(served, images, batch):
    """Processor time of one pass over the images, per image."""
    detect = served.detector(SCORE, None)
    begin = time.process_time()
    for first in range(0, len(images), batch):
        detect(images[first : first + batch])
    return (time.process_time() - begin) / len(images)


def row(model, side, options):
    """The figures of images of one size."""
    from keras_maskrcnn.serve.served import Served

    batches = (1, options.batch)
    served = {batch: Served("model", model, most=batch) for batch in batches}
    images = [scenes.scene(side, side, 5, seed)[0] for seed in range(2 * options.batch)]
    times = {batch: [] for batch in batches}
    for repeat in range(options.rounds + 1):
        for batch in batches:
            seconds = processor_seconds(served[batch], images, batch)
            if repeat:  # the first round traces
                times[batch].append(1e3 * seconds)
    ratios = [alone / together for alone, together in zip(*times.values(), strict=True)]
    medians = {f"batch {batch}": round(statistics.median(values), 1) for batch, values in times.items()}
    return {"size": side, "ms": medians, "ratio": reports.spread(ratios)}


def main():
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="nuclei", help="as for `serve` (default: %(default)s)")
    add("--sizes", type=pairs.positive, nargs="+", default=(32, 64, 128, 256), help="sides of the images in pixels")
    add("--batch", type=pairs.positive, default=4, help="images together (default: %(default)s)")
    add("--rounds", type=pairs.positive, default=5, help="timings of each size (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    from keras_maskrcnn.cli.common import load

    model, rows = load(options.model), []
    for side in options.sizes:
        rows.append(row(model, side, options))
        times = ", ".join(f"{name}: {value:.0f} ms" for name, value in rows[-1]["ms"].items())
        print(
            f"{side} x {side}: {times} of processor time an image; ratio {rows[-1]['ratio']['median']:.2f}", flush=True
        )
    settings = {"model": options.model, "batch": options.batch, "rounds": options.rounds, "sizes": rows}
    versions = machine.versions(["tensorflow", "keras", "numpy"])
    reports.write(options.output, {**reports.header("serve_batch.py"), **settings, "versions": versions})


if __name__ == "__main__":
    main()
