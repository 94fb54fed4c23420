"""The design choices of the Mask R-CNN paper, trained under one budget of images and compared with its tables.

    python train/ablations.py --output runs/ablations --jobs 2                 # all tables, three seeds, two at a time
    python train/ablations.py --output runs/ablations --only roi stride        # tables 2(c) and 2(d)
    python train/ablations.py --output runs/ablations --variant c4_pool        # one row with its seeds
    python train/ablations.py --list                                           # tables and variants

Every variant is trained from scratch on generated images of thin, rotated, overlapping shapes (table 5: stick figures)
and scored on 200 others. The variants of one seed see the same images in the same order; another seed has other images
and other initial weights. A run that was stopped continues with the next training. OUTPUT/results.jsonl has a line for
each training, OUTPUT/ablations.md the tables beside the paper's, OUTPUT/ablations.png draws them.
"""

import argparse
import concurrent.futures
import copy
import gc
import json
import multiprocessing
import os
import pathlib
import shlex
import signal
import sys
import time

import keras_maskrcnn.quiet  # noqa: F401  before TensorFlow

# isort: split
import keras

from ablations_report import order
from ablations_report.paper import TABLES
from ablations_report.results import Results
from ablations_report.variants import VARIANTS, dataset
from keras_maskrcnn import MaskRCNN, evaluation, plots
from keras_maskrcnn.training import recipe
from keras_maskrcnn.training.clock import Clock

KINDS = ("bbox", "segm", "keypoints")
VAL_SEED = 1_000_000  # no seed of a training


def run(arguments):
    """Train what has no result yet, and write the tables after each training."""
    if arguments.list:
        print(listing())
        return
    if arguments.output is None:
        raise ValueError("give --output FOLDER")
    names = selected(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.output / "results.jsonl", settings(arguments))
    results.check(VARIANTS)
    # All variants of a seed before the next seed: a run that is stopped has comparable rows.
    todo = [(name, seed) for seed in range(arguments.seeds) for name in names if (name, seed) not in results]
    start = time.perf_counter()
    for number, (name, seed, figures) in enumerate(trained(todo, arguments), start=1):
        results.add(name, seed, VARIANTS[name], figures)
        write(arguments, results)
        left = (time.perf_counter() - start) / number * (len(todo) - number) / 60
        scores = ", ".join(f"{kind} AP {figures[f'{kind}_AP'] or 0:.3f}" for kind in KINDS if f"{kind}_AP" in figures)
        speed = f"{figures['images_per_second']} images/s, {figures['seconds']:.0f} s"
        print(f"{number}/{len(todo)} {name}, seed {seed}: {scores}; {speed}; {left:.0f} min left", flush=True)
    print("\n" + write(arguments, results))


def selected(arguments):
    """Names of the variants that the arguments choose, each once; raises a ValueError for one that does not exist."""
    names = [name for table in arguments.only or () for name in TABLES[table].rows] + (arguments.variant or [])
    if unknown := [name for name in names if name not in VARIANTS]:
        raise ValueError(f"--variant {unknown[0]} is not one of {', '.join(VARIANTS)}")
    return list(dict.fromkeys(names or VARIANTS))


def settings(arguments):
    """What the results of a run have in common."""
    names = ("budget", "batch_size", "image_size", "learning_rate", "val_images")
    return {**{name: getattr(arguments, name) for name in names}, "precision": recipe.policy(arguments)}


def trained(todo, arguments):
    """Train variants, `arguments.jobs` at a time, and yield (name, seed, figures) in the order in which they end.

    Networks of this size leave most of a second processor idle: two trainings at a time, on two processors, end sooner
    than one after another. Each has a process of its own, which frees all it held when it ends.

    Args:
        todo: list of (name, seed).
        arguments: Namespace of `parse`.
    """
    if arguments.jobs == 1:
        yield from ((name, seed, train(name, seed, arguments)) for name, seed in todo)
        return
    with concurrent.futures.ProcessPoolExecutor(
        arguments.jobs, multiprocessing.get_context("spawn"), _one_processor, max_tasks_per_child=1
    ) as pool:
        waiting = {pool.submit(train, name, seed, arguments): (name, seed) for name, seed in todo}
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield *waiting[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _one_processor():
    """Set up a process of `trained`: operations run on one thread, and a Ctrl-C is left to the main process."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train(name, seed, arguments):
    """Train and score one variant; returns its figures.

    Raises:
        ValueError: in one line, for options that the model does not have.
    """
    start = time.perf_counter()
    gc.collect()
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    size = recipe.canvas(arguments)
    images = dataset(name, arguments.budget, size, seed)
    options = {"image_size": size, "seed": seed, "dtype": recipe.policy(arguments)}
    try:
        model = MaskRCNN(images.num_classes, **copy.deepcopy(VARIANTS[name]), **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error
    plan = argparse.Namespace(
        **{**vars(arguments), "seed": seed, "steps": max(arguments.budget // arguments.batch_size, 1)}
    )
    model.compile(recipe.optimizer(plan))
    batches, clock = recipe.batches(plan, images, max_instances=8, shuffle=False), Clock(arguments.batch_size)
    model.fit(batches, epochs=1, steps_per_epoch=plan.steps, verbose=0, callbacks=[clock])
    scores = evaluation.coco_scores(model, dataset(name, arguments.val_images, size, VAL_SEED))
    scores.pop("per_class")
    return {
        **evaluation.for_json(scores, digits=5),
        "parameters": model.count_params(),
        "images_per_second": clock.summary()["images_per_second"],
        "seconds": round(time.perf_counter() - start, 1),
    }


def write(arguments, results):
    """Write the tables, the picture and the summary; returns the Markdown of the tables."""
    tables = [table for table in TABLES.values() if order.markdown(table, results)]
    command = shlex.join(["python", *sys.argv])
    text = f"`{command}`\n\n" + "\n".join(order.markdown(table, results) for table in tables)
    (arguments.output / "ablations.md").write_text(text, encoding="utf-8")
    plots.beside(panels(tables, results), "AP points").savefig(arguments.output / "ablations.png", dpi=110)
    summary = {
        "command": command,
        "settings": results.settings,
        "seconds": round(sum(record["seconds"] for record in results.records.values()), 1),
        "comparisons": {table.title: order.comparisons(table, results) for table in tables},
    }
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return text


def panels(tables, results):
    """What `plots.beside` draws: the figures whose order is checked, one panel per table and figure."""
    found = {}
    for table in tables:
        for figure in table.judged:
            found[f"{table.title.split(',')[0]}\n{order.heading(figure)}"] = {
                name: (list(results.values(variant, figure).values()), table.published(variant, figure))
                for variant, (name, _) in table.rows.items()
            }
    return found


def listing():
    """The tables with their variants."""
    lines = []
    for key, table in TABLES.items():
        lines += [f"--only {key}: {table.title}", *(f"    {name:18} {row[0]}" for name, row in table.rows.items())]
    return "\n".join(lines)


def parse(arguments=None):
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=pathlib.Path, help="folder of the run, created if missing")
    add("--only", nargs="+", choices=TABLES, metavar="TABLE", help=f"the variants of these tables: {', '.join(TABLES)}")
    add("--variant", nargs="+", metavar="NAME", help="these variants, see --list")
    add("--list", action="store_true", help="list tables and variants")
    add("--budget", type=recipe.positive, help="training images of each variant (default: %(default)s)")
    add("--seeds", type=recipe.positive, help="trainings of each variant, of seeds 0, 1, … (default: %(default)s)")
    add("--val-images", type=recipe.positive, help="images that are scored (default: %(default)s)")
    add("--batch-size", type=recipe.positive, help="images per step (default: %(default)s)")
    add("--image-size", type=recipe.positive, nargs="+", help="side, or height and width (default: %(default)s)")
    add("--learning-rate", type=recipe.above_zero, help="peak of the schedule (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 if the machine supports it")
    add("--jobs", type=recipe.positive, help="trainings at a time, on a processor each (default: %(default)s)")
    add("--workers", type=recipe.positive, help="threads that prepare images (default: %(default)s)")
    add("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(budget=5000, seeds=3, val_images=200, batch_size=4, image_size=[128], learning_rate=1e-3)
    parser.set_defaults(precision="auto", jobs=1, workers=2, pipeline="threads", minutes=None, hold=0.3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    recipe.main(run, parse())
