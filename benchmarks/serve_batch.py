"""Whether images that go through the network together cost less than one by one: the default of `serve --batch`.

    python benchmarks/serve_batch.py --output benchmarks/results/serve_batch.json --docs docs

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


def table(report):
    """The report in Markdown."""
    batches = list(report["sizes"][0]["ms"])
    head = ["image", *(f"{name}, ms" for name in batches), "ratio"]
    lines = [head, ["---"] * len(head)]
    for one in report["sizes"]:
        ratio = "{median:.2f}× ({lowest:.2f} … {highest:.2f})".format(**one["ratio"])
        lines.append([f"{one['size']} × {one['size']}", *(f"{one['ms'][name]:.0f}" for name in batches), ratio])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main():
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="nuclei", help="as for `serve` (default: %(default)s)")
    add("--sizes", type=pairs.positive, nargs="+", default=(32, 64, 128, 256), help="sides of the images in pixels")
    add("--batch", type=pairs.positive, default=4, help="images together (default: %(default)s)")
    add("--rounds", type=pairs.positive, default=5, help="timings of each size (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the table into serve.md of this folder")
    options = parser.parse_args()
    from keras_maskrcnn.cli.common import load

    model, rows = load(options.model), []
    for side in options.sizes:
        rows.append(row(model, side, options))
        print(f"{side} x {side}: {rows[-1]}", flush=True)
    settings = {"model": options.model, "batch": options.batch, "rounds": options.rounds, "sizes": rows}
    versions = machine.versions(["tensorflow", "keras", "numpy"])
    report = {**reports.header("serve_batch.py"), **settings, "versions": versions}
    reports.write(options.output, report)
    if options.docs:
        reports.fill(options.docs / "serve.md", "serve_batch", table(report))


if __name__ == "__main__":
    main()
