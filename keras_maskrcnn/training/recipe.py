"""Shared by the scripts in `train/`: data and options from the arguments, and the training run.

The arguments are those of `training.arguments`, the optimizer and its schedule are chosen in `training.optimizers`, and
`training.finishing` writes what a run leaves. Recipes take all of it from here.
"""

from keras_maskrcnn.quiet import keras  # isort: skip

import importlib.metadata
import shlex
import sys
import time

import numpy as np

from keras_maskrcnn import data, evaluation
from keras_maskrcnn.backend import is_tensorflow, processes
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.training import anchor_proposal, distribution, finishing, overfit
from keras_maskrcnn.training.arguments import (
    above_zero,
    add_backbone_rate,
    canvas,
    parser,
    policy,
    positive,
    share,
    value,
)
from keras_maskrcnn.training.best import Best
from keras_maskrcnn.training.callbacks import EpochLine, History, SkippedSteps, TimeLine
from keras_maskrcnn.training.clock import ENDLESS, Clock, TimeBudget, TimedEval, endless
from keras_maskrcnn.training.finishing import image_name
from keras_maskrcnn.training.lr_finder import LRFinder
from keras_maskrcnn.training.optimizers import learning_rate, optimizer, schedule
from keras_maskrcnn.training.program import main
from keras_maskrcnn.training.run_folder import RunFolder

__all__ = [
    "IMAGENET",
    "SMALL",
    "above_zero",
    "add_backbone_rate",
    "backbone",
    "batches",
    "begin",
    "canvas",
    "image_name",
    "learning_rate",
    "main",
    "optimizer",
    "parser",
    "policy",
    "positive",
    "proposed_anchors",
    "schedule",
    "select",
    "share",
    "strict",
    "train",
    "value",
]

# Candidates and widths for small images with few objects; those of the papers are about ten times as large.
SMALL = {
    "proposals": {"pre_nms": 200, "post_nms": 100},
    "rpn_sampling": {"size": 64},
    "box_sampling": {"size": 64},
    "box_stage": {"width": 256},
}
# Value of `--weights` for the features that a package or Keras provides, see `weights.imagenet`.
IMAGENET = "imagenet"


def begin(arguments):
    """Joins the processes of `--distribute`, sets the random seed and checks the output folder; first in a recipe.

    A run that is finished already ends the program with exit code 0. `--overwrite` deletes the run in the folder.
    `--find-lr` leaves it as it is.

    Raises:
        ValueError: in one line, if the folder holds a run with other arguments.
    """
    if arguments.overwrite or arguments.find_lr or not (arguments.output / "summary.json").is_file():
        distribution.begin(arguments)
    keras.utils.set_random_seed(arguments.seed)
    if arguments.find_lr:
        return
    folder, group = RunFolder.of(arguments), processes.group()
    if arguments.overwrite and group.is_chief:
        folder.delete()
    group.wait()
    folder.check()
    if folder.finished:
        if group.is_chief:
            folder.backup().delete()
        print(f"{folder.path} holds a finished run; --overwrite starts it again")
        sys.exit(0)


def select(train, count):
    """Training and held-out part of a training set, to choose options without the validation set.

    Args:
        train: `Dataset`.
        count: number of images that are held out, chosen by a generator of seed 0.

    Returns:
        (train, held_out): two `Dataset`.

    Raises:
        ValueError: if no image would be left.
    """
    if len(train) <= count:
        raise ValueError(f"--select holds out {count} training images, the data set has {len(train)}")
    order = np.random.default_rng(0).permutation(len(train))
    return data.Subset(train, order[count:]), data.Subset(train, order[:count])


def backbone(arguments, norm):
    """Arguments `backbone` and `weights` of a model from `--backbone`, `--width` and `--weights`."""
    options = {"name": arguments.backbone, "norm": norm}
    weights = getattr(arguments, "weights", None)
    if weights is None and arguments.backbone.startswith("resnet"):
        options["width"] = arguments.width  # published features have the published width
    return {"backbone": options, "weights": weights}


def proposed_anchors(dataset, scale):
    """Anchors proposed from a data set, which are printed; arguments as for `training.propose_anchors`."""
    anchors, summary = anchor_proposal.propose_anchors(dataset, scale)
    print(anchor_proposal.described(anchors, summary))
    return anchors


def batches(arguments, dataset, mask_size=56, **options):
    """Endless batches of a training set, see `data.batches`."""
    if value(arguments, "overfit"):
        options["cache"] = False  # `overfit.batches` replaces these
    return data.batches(
        dataset,
        canvas(arguments),
        arguments.batch_size,
        mask_size=mask_size,
        repeat=True,
        seed=arguments.seed,
        workers=arguments.workers,
        backend="grain" if arguments.pipeline == "grain" else "auto",
        shard=processes.group().shard,
        **options,
    )


def strict(arguments, *datasets):
    """The data sets, which stop at bad input with `--strict`."""
    return [data.Strict(dataset) for dataset in datasets] if arguments.strict else datasets


def train(arguments, model, train_data, val_data, batches, max_detections=100, validation=None, callbacks=()):
    """Fits, scores, saves, exports and draws; prints the paths of all files.

    A run that was stopped continues after its last complete epoch if it is started again with the same arguments, and
    ends with the same weights, history and scores as one that was not stopped. With `--minutes` it has the time that
    its complete epochs have left.

    With `--find-lr` the program ends here after a sweep of the learning rate. With `--overfit` the model is trained on
    a few of the training images and scored on them, see `training.overfit`, and nothing is exported.

    Args:
        arguments: parsed arguments of `parser`.
        model: a compiled model; its optimizer has the `learning_rate` of this module.
        train_data: reader of the training samples, for their names.
        val_data: reader of the validation samples.
        batches: endless batches for `fit` (`data.batches(..., repeat=True)`).
        max_detections: maximum number of detections per image in the scores.
        validation: batches for `val_loss`; None for some of `val_data`, on the canvas of the model.
        callbacks: functions from the clock to further callbacks.

    With `--distribute` all processes call this; the first one saves, exports, draws and prints.

    Returns:
        dict, the content of `OUTPUT/summary.json`; None in the other processes.
    """
    if arguments.find_lr:
        _find_learning_rate(arguments, model, batches)
    if arguments.overfit:
        train_data = val_data = overfit.images(train_data, arguments.overfit, model, canvas(arguments))
        batches, validation = overfit.batches(train_data, model, batches, arguments), None
    output, folder, group = arguments.output, RunFolder.of(arguments), processes.group()
    processes.leave_scope()
    clock = Clock(arguments.batch_size)
    if arguments.minutes:
        clock = TimeBudget(arguments.minutes, schedule(arguments), arguments.batch_size)
    log_dir = output / "logs" if group.is_chief else None
    scores = TimedEval(clock, val_data, log_dir=log_dir, max_detections=max_detections, group=group)
    if validation is None:
        validation = _validation(arguments, model, val_data, batches)
    further = [make(clock) for make in callbacks]
    if group.is_chief:
        further.insert(0, SkippedSteps(train_data))
    best = _fit(arguments, model, batches, validation, folder, clock, scores, further)
    start, steps = time.perf_counter(), int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    figures = _kept(arguments, model, val_data, scores, best)
    if not group.is_chief:
        group.wait()  # a process that ends would stop the first one
        return None
    print("\n" + evaluation.format_scores(figures))
    paths = finishing.save(model, output, export=is_tensorflow() and not arguments.overfit)
    served = SavedModel(paths["saved_model"]) if paths["saved_model"] else model
    finishing.draw(served, val_data, paths["pictures"])
    verdict = overfit.finish(model, val_data, figures, output, steps) if arguments.overfit else None
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        "arguments": folder.arguments,
        "train_images": len(train_data),
        "val_images": len(val_data),
        "steps": steps,
        "batch_size": arguments.batch_size,
        "model": type(model).__name__,
        "backbone": getattr(getattr(model, "backbone", None), "name", None),
        "precision": model.layer_dtype,
        "parameters": model.count_params(),
        "left_out": data.left_out(train_data, val_data),
        **evaluation.for_json(figures, digits=4),
        "best": best.found and {**best.found, "keras_file": str(best.path)},
        "overfit": evaluation.for_json(verdict, digits=4),
        "minutes": arguments.minutes,
        **clock.summary(),
        "finishing_seconds": round(time.perf_counter() - start, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", keras.config.backend(), "numpy")},
        **{name: path and str(path) for name, path in paths.items()},
    }
    folder.finish(summary)
    group.wait()
    print(finishing.report(summary, output))
    data.print_left_out(train_data, val_data)
    return summary


def _find_learning_rate(arguments, model, batches):
    """Sweeps the learning rate, prints what was found, and ends the program with exit code 0."""
    with batches.rows.raising():
        found = LRFinder(steps=arguments.find_lr).run(model, batches)
    picture = found.save(arguments.output)
    print(f"{found}\npicture      {picture}, numbers in lr_finder.json and lr_finder.csv next to it")
    sys.exit(0)


def _fit(arguments, model, batches, validation, folder, clock, scores, further):
    """Trains from the last backup of the run, if there is one, to its end; returns the `Best` of its epochs."""
    backup, group = folder.backup(clock.totals), processes.group()
    done = backup.restore(model)
    distribution.check_equal("numbers of complete epochs", done)
    if done and group.is_chief:
        left = f" with {clock.left / 60:.1f} min left" if arguments.minutes else ""
        print(f"{folder.path} continues after epoch {done} of {arguments.epochs}{left}")
    batches.rows.start = clock.steps * arguments.batch_size
    best = Best(folder.path, scores, done, writes=group.is_chief)
    if group.is_chief:
        folder.start(done)
        lines = [TimeLine(clock) if arguments.minutes else EpochLine()]
        lines.append(History(folder.path / "history.csv", append=done > 0))
    model.adopt(batches)  # which the endless iterator of `--minutes` may hide
    with batches.rows.raising():
        model.fit(
            endless(batches) if arguments.minutes else batches,
            epochs=done if clock.over else arguments.epochs,
            initial_epoch=done,
            steps_per_epoch=ENDLESS if arguments.minutes else max(arguments.steps // arguments.epochs, 1),
            validation_data=validation,
            verbose=(1 if sys.stdout.isatty() else 2) if group.is_chief else 0,
            callbacks=[
                clock,
                scores,
                *(lines if group.is_chief else ()),
                *further,
                best,
                # Last, so that the scores and the best of an epoch are on disk before its state.
                *([backup] if group.is_chief else ()),
            ],
        )
    group.wait()  # until the last files are written
    return best


def _kept(arguments, model, val_data, scores, best):
    """Gives the model the weights of `--keep`, and returns their scores."""
    loaded = arguments.keep == "best" and best.found
    if loaded:
        best.load(model)
    if scores.current and not loaded:
        return scores.scores
    return evaluation.scores(model, val_data, max_detections=scores.max_detections, group=processes.group())


def _validation(arguments, model, val_data, batches):
    """Up to four batches and 32 images, spread over the validation set; None if its classes are not the model's."""
    if list(val_data.class_names) != list(batches.class_names):
        return None
    size = min(arguments.batch_size, len(val_data), 32)
    group = processes.group()
    size = size // group.devices * group.devices
    if not size:  # fewer images than devices
        return None
    count = min(len(val_data), 32, 4 * size) // size * size  # full batches: JAX compiles for each size
    part = data.Subset(val_data, np.linspace(0, len(val_data) - 1, count).astype(int))
    part = data.Stretched(part, model.stretch) if model.stretch else part
    rows = batches.rows.prepare
    shape = {"max_instances": rows.max_instances, "mask_size": rows.mask_size, "shard": group.shard}
    return data.batches(part, model.image_size or rows.image_size, size, **shape, cache=True, workers=arguments.workers)
