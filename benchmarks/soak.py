"""Memory, threads and open files of one process that trains for thousands of steps and predicts thousands of images.

    python benchmarks/soak.py --output benchmarks/results/soak.json

The training is that of a recipe: epochs with the validation loss, COCO scores, TensorBoard, a history, the best model
and a backup of the state. The images of the predictions have 50 sizes in turn, so that no two neighbours share their
canvas. The network is tiny: what grows with time does so per step and per call, not per weight.

A sample is taken after each epoch and after each fiftieth of the predictions. The first fifth of each part is the
warm-up, in which functions are traced and memory pools fill. `growth` is the difference between the means of the last
and the first quarter of the samples after it, relative to the first, in percent; `spread` that between the highest and
the lowest sample.
"""

import argparse
import gc
import os
import pathlib
import tempfile
import time

import numpy as np
import reports
import scenes
from pairs import positive

SIZES = 50
WARM_UP = 0.2
PARTS = ("training", "prediction")
# Few candidates: a step takes some hundredths of a second.
SMALL = {
    "proposals": {"pre_nms": 50, "post_nms": 20},
    "rpn_sampling": {"size": 16},
    "box_sampling": {"size": 8},
}


def sample():
    """Resident memory in bytes, number of threads and number of open files of this process."""
    gc.collect()
    resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
    return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def summary(samples):
    """The figures of the samples of a part.

    Args:
        samples: list of (bytes, threads, files), one after another.

    Returns:
        dict: see the top of this file; threads and files are those of the first and the last sample after the warm-up,
        and the highest.
    """
    kept = samples[int(len(samples) * WARM_UP) :]
    memory = np.array([resident for resident, _, _ in kept], float)
    quarter = max(len(kept) // 4, 1)
    first, last = memory[:quarter].mean(), memory[-quarter:].mean()
    found = {
        "samples": len(kept),
        "memory_mb": round(float(first) / 1e6, 1),
        "growth_percent": round(float(100 * (last - first) / first), 2),
        "spread_percent": round(float(100 * (memory.max() - memory.min()) / memory.min()), 2),
    }
    for position, name in ((1, "threads"), (2, "files")):
        values = [one[position] for one in kept]
        found[name] = {"first": values[0], "last": values[-1], "highest": max(values)}
    return found


def training(model, steps, epochs, folder):
    """The samples of a training, one after each epoch."""
    import keras

    from keras_maskrcnn import data, training
    from keras_maskrcnn.training.backup import Backup
    from keras_maskrcnn.training.best import Best
    from keras_maskrcnn.training.clock import Clock, TimedEval

    (folder / "backup").mkdir()
    size, samples = (64, 64), []
    shapes = {"image_size": size, "object_size": (12, 30)}
    train, val = data.Shapes(1000, seed=1, **shapes), data.Shapes(8, seed=2, **shapes)
    options = {"max_instances": 6, "mask_size": 28, "workers": 2}
    batches = data.batches(train, size, 1, augment="flip", repeat=True, seed=0, **options)
    model.compile(training.SGD(1e-3, momentum=0.9, global_clipnorm=1.0))
    clock = Clock(1)
    scores = TimedEval(clock, val, log_dir=folder / "logs")

    class Sampled(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            samples.append(sample())

    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=max(steps // epochs, 1),
        validation_data=data.batches(val, size, 2, cache=True, **options),
        verbose=0,
        callbacks=[
            clock,
            scores,
            keras.callbacks.CSVLogger(folder / "history.csv"),
            Best(folder, scores),
            Backup(folder / "backup", clock.totals),
            Sampled(),
        ],
    )
    return samples


def sizes():
    """The heights and widths of images: 50 in an order in which neighbours differ."""
    return [(40 + 37 * number % 50 * 3, 40 + 23 * number % 50 * 3) for number in range(SIZES)]


def prediction(model, images):
    """The samples of a number of calls of `detect` for one image each."""
    generator, samples = np.random.default_rng(0), []
    pictures = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes()]
    for number in range(images):
        model.detect(pictures[number % SIZES], score_threshold=0.0)
        if (number + 1) % max(images // SIZES, 1) == 0:
            samples.append(sample())
    return samples


def run(steps, epochs, images):
    """The figures of both parts, by their names."""
    import keras

    keras.utils.set_random_seed(0)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            model = scenes.network(True, 3, image_size=(64, 64) if part == "training" else None, seed=0, **SMALL)
            start = time.perf_counter()
            if part == "training":
                samples = training(model, steps, epochs, pathlib.Path(folder))
            else:
                samples = prediction(model, images)
            figures[part] = {**summary(samples), "seconds": round(time.perf_counter() - start)}
            print(part, figures[part], flush=True)
    return figures


def main():
    """Runs both parts and writes their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=positive, default=5000, help="of the training (default: %(default)s)")
    add("--epochs", type=positive, default=50, help="of the training, each with a sample (default: %(default)s)")
    add("--images", type=positive, default=10_000, help="of the prediction (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    sizes_of = {"steps": options.steps, "epochs": options.epochs, "images": options.images, "sizes": SIZES}
    figures = run(options.steps, options.epochs, options.images)
    reports.write(options.output, {**reports.header("soak.py"), **sizes_of, **figures})


if __name__ == "__main__":
    main()
