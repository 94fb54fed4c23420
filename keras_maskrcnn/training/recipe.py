"""Shared by the scripts in `train/`: arguments, the training run, and its summary."""

from keras_maskrcnn.quiet import keras  # isort: skip

import _thread
import argparse
import importlib.metadata
import pathlib
import re
import shlex
import sys
import threading
import time

import numpy as np
from PIL import Image

from keras_maskrcnn import data, evaluation, visualize
from keras_maskrcnn.backend import is_tensorflow
from keras_maskrcnn.backend.precision import fastest_policy
from keras_maskrcnn.data.cache import read_or_skip
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.training import anchor_proposal
from keras_maskrcnn.training.callbacks import EpochLine, SkippedSteps, TimeLine
from keras_maskrcnn.training.clock import ENDLESS, Clock, TimeBudget, TimedEval, endless
from keras_maskrcnn.training.run_folder import RunFolder
from keras_maskrcnn.training.schedules import warmup_cosine

# Candidates and widths for small images with few objects; those of the papers are about ten times as large.
SMALL = {
    "proposals": {"pre_nms": 200, "post_nms": 100},
    "rpn_sampling": {"size": 64},
    "box_sampling": {"size": 64},
    "box_stage": {"width": 256},
}
# Value of `--weights` for the features that a package or Keras provides, see `weights.imagenet`.
IMAGENET = "imagenet"


def parser(description, **defaults):
    """Makes the argument parser of a recipe.

    Args:
        description: the recipe's docstring, shown by `--help`.
        **defaults: defaults of the arguments below.

    Returns:
        argparse.ArgumentParser.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--output", type=pathlib.Path, required="output" not in defaults, help="folder of the run, created if missing")
    length = result.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, help="number of training steps (default: %(default)s)")
    length.add_argument(
        "--minutes",
        type=minutes,
        help="length of the training including scoring, instead of --steps; the learning rate follows the time",
    )
    add(
        "--epochs",
        type=positive,
        help="number of epochs of equal length, each followed by scoring (default: %(default)s)",
    )
    add("--batch-size", type=positive, help="images per step (default: %(default)s)")
    add(
        "--image-size",
        type=positive,
        nargs="+",
        help="side, or height and width, of the canvas (default: %(default)s)",
    )
    add("--learning-rate", type=float, help="peak of the schedule (default: %(default)s)")
    add("--hold", type=share, help="share of the training before the learning rate falls (default: %(default)s)")
    add("--backbone", help="resnet10 to resnet101, efficientnet_lite0 to 2 (default: %(default)s)")
    add("--width", type=positive, help="channels of the backbone's stem, 64 in the papers (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 if the machine supports it")
    add("--workers", type=positive, help="threads or processes that prepare images (default: %(default)s)")
    add(
        "--pipeline",
        choices=("threads", "grain"),
        help="grain: images are prepared in processes, for many cores (default: %(default)s)",
    )
    add("--seed", type=int, help="random seed (default: %(default)s)")
    add("--overwrite", action="store_true", help="delete the run in the output folder and start again")
    add("--debug", action="store_true", help="show the traceback of an error")
    common = {"epochs": 10, "hold": 0.3, "precision": "auto", "seed": 0, "workers": 2}
    common |= {"pipeline": "threads", "backbone": "resnet18"}
    result.set_defaults(**{**common, **defaults})
    return result


def positive(text):
    """Type of an argument: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def minutes(text):
    """Type of an argument: a positive number."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a positive number")
    return number


def share(text):
    """Type of an argument: a number from 0 to below 1."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0 and below 1")
    return number


def main(run, arguments):
    """Call `run(arguments)`; invalid input is one line on stderr and exit code 2, Ctrl-C a line and exit code 130."""
    sys.unraisablehook = _unraisable
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted{_after(arguments)}", file=sys.stderr)
        sys.exit(130)
    except (data.DataError, ValueError, OSError) as error:
        if arguments.debug:
            raise
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        sys.exit(2)


def _unraisable(error, usual=sys.unraisablehook):
    """Raises a Ctrl-C again that came while an object was being deleted, where Python prints and drops it."""
    if issubclass(error.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        usual(error)


def begin(arguments):
    """Sets the random seed and checks the output folder; the first call of a recipe.

    A run that is finished already ends the program with exit code 0. `--overwrite` deletes the run in the folder.

    Raises:
        ValueError: in one line, if the folder holds a run with other arguments.
    """
    keras.utils.set_random_seed(arguments.seed)
    folder = _folder(arguments)
    if arguments.overwrite:
        folder.delete()
    folder.check()
    if folder.finished:
        folder.backup().delete()
        print(f"{folder.path} holds a finished run; --overwrite starts it again")
        sys.exit(0)


def _folder(arguments):
    steps = None if arguments.minutes else arguments.steps
    return RunFolder(
        arguments.output, arguments, precision=policy(arguments), image_size=canvas(arguments), steps=steps
    )


def _after(arguments):
    """What a stopped run does when it is started again."""
    if "overwrite" not in arguments:  # not arguments of `parser`
        return ""
    epoch = _folder(arguments).backup().epoch()
    if not epoch:
        return " in the first epoch; the same command starts it again"
    return f"; the same command continues after epoch {epoch}"


def canvas(arguments):
    """(height, width) from `--image-size`."""
    sides = arguments.image_size if isinstance(arguments.image_size, list | tuple) else [arguments.image_size]
    return (sides[0], sides[-1])


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


def policy(arguments):
    """Keras dtype policy from `--precision`."""
    return fastest_policy() if arguments.precision == "auto" else arguments.precision


def batches(arguments, dataset, mask_size=56, **options):
    """Endless batches of a training set, see `data.batches`."""
    return data.batches(
        dataset,
        canvas(arguments),
        arguments.batch_size,
        mask_size=mask_size,
        repeat=True,
        seed=arguments.seed,
        workers=arguments.workers,
        backend="grain" if arguments.pipeline == "grain" else "auto",
        **options,
    )


def schedule(arguments):
    """Warm-up, constant rate, half a cosine: of the step, or with `--minutes` of the share of the training time."""
    if arguments.minutes:
        total, warmup, hold = 1.0, 0.05, arguments.hold
    else:
        total = arguments.steps
        warmup, hold = min(200, total // 10), int(arguments.hold * total)
    return warmup_cosine(arguments.learning_rate, total, warmup, hold, final_factor=0.01)


def learning_rate(arguments):
    """What the optimizer of a recipe takes: the schedule, or a number that `train` changes with the time."""
    found = schedule(arguments)
    return float(found(0.0)) if arguments.minutes else found


def optimizer(arguments):
    """AdamW for training from scratch; no decay of biases and norms."""
    result = keras.optimizers.AdamW(learning_rate(arguments), weight_decay=0.05, global_clipnorm=5.0)
    result.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return result


def strict(arguments, *datasets):
    """The data sets, which stop at bad input with `--strict`."""
    return [data.Strict(dataset) for dataset in datasets] if arguments.strict else datasets


def train(arguments, model, train_data, val_data, batches, max_detections=100, validation=None, callbacks=()):
    """Fits, scores, saves, exports and draws; prints the paths of all files.

    A run that was stopped continues after its last complete epoch if it is started again with the same arguments, and
    ends with the same weights, history and scores as one that was not stopped. With `--minutes` it has the time that
    its complete epochs have left.

    Args:
        arguments: parsed arguments of `parser`.
        model: a compiled model; its optimizer has the `learning_rate` of this module.
        train_data: reader of the training samples, for their names.
        val_data: reader of the validation samples.
        batches: endless batches for `fit` (`data.batches(..., repeat=True)`).
        max_detections: maximum number of detections per image in the scores.
        validation: batches for `val_loss`; None for some of `val_data`, on the canvas of the model.
        callbacks: functions from the clock to further callbacks.

    Returns:
        dict, the content of `OUTPUT/summary.json`.
    """
    output, folder = arguments.output, _folder(arguments)
    clock = Clock(arguments.batch_size)
    if arguments.minutes:
        clock = TimeBudget(arguments.minutes, schedule(arguments), arguments.batch_size)
    backup = folder.backup(clock.totals)
    done = backup.restore(model)
    if done:
        left = f" with {clock.left / 60:.1f} min left" if arguments.minutes else ""
        print(f"{output} continues after epoch {done} of {arguments.epochs}{left}")
    batches.rows.start = clock.steps * arguments.batch_size
    folder.start(done)
    scores = TimedEval(clock, val_data, log_dir=output / "logs", max_detections=max_detections)
    model.adopt(batches)  # which the endless iterator of `--minutes` may hide
    with batches.rows.raising():
        model.fit(
            endless(batches) if arguments.minutes else batches,
            epochs=done if clock.over else arguments.epochs,
            initial_epoch=done,
            steps_per_epoch=ENDLESS if arguments.minutes else max(arguments.steps // arguments.epochs, 1),
            validation_data=_validation(arguments, model, val_data, batches) if validation is None else validation,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                clock,
                scores,
                TimeLine(clock) if arguments.minutes else EpochLine(),
                SkippedSteps(train_data),
                keras.callbacks.CSVLogger(output / "history.csv", append=done > 0),
                *(make(clock) for make in callbacks),
                backup,  # last, so that the scores of an epoch are on disk before its state
            ],
        )
    start = time.perf_counter()
    figures = scores.scores
    if not scores.current:
        figures = evaluation.scores(model, val_data, max_detections=max_detections)
    print("\n" + evaluation.format_scores(figures))
    paths = _write(model, val_data, output)
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        "arguments": folder.arguments,
        "train_images": len(train_data),
        "val_images": len(val_data),
        "steps": int(model.optimizer.iterations),
        "batch_size": arguments.batch_size,
        "precision": model.layer_dtype,
        "parameters": model.count_params(),
        "left_out": data.left_out(train_data, val_data),
        **evaluation.for_json(figures, digits=4),
        "minutes": arguments.minutes,
        **clock.summary(),
        "finishing_seconds": round(time.perf_counter() - start, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", keras.config.backend(), "numpy")},
        **{name: path and str(path) for name, path in paths.items()},
    }
    folder.finish(summary)
    _print(summary, output)
    data.print_left_out(train_data, val_data)
    return summary


def _validation(arguments, model, val_data, batches):
    """Up to four batches and 32 images, spread over the validation set; None if its classes are not the model's."""
    if list(val_data.class_names) != list(batches.class_names):
        return None
    size = min(arguments.batch_size, len(val_data), 32)
    count = min(len(val_data), 32, 4 * size) // size * size  # full batches: JAX compiles for each size
    part = data.Subset(val_data, np.linspace(0, len(val_data) - 1, count).astype(int))
    part = data.Stretched(part, model.stretch) if model.stretch else part
    rows = batches.rows.prepare
    shape = {"max_instances": rows.max_instances, "mask_size": rows.mask_size}
    return data.batches(part, model.image_size or rows.image_size, size, **shape, cache=True, workers=arguments.workers)


def _write(model, val_data, output):
    """Save, export, and draw detections of the reloaded export; returns the paths, None for an export left out."""
    paths = {
        "keras_file": output / "model.keras",
        "saved_model": output / "saved_model" if is_tensorflow() else None,
        "tensorboard": output / "logs",
        "pictures": output / "pictures",
        "curves": output / "curves.png",
    }
    model.save(paths["keras_file"])
    visualize.curves(output / "history.csv", paths["curves"])
    served = model
    if paths["saved_model"]:
        model.export(paths["saved_model"])
        served = SavedModel(paths["saved_model"])
    paths["pictures"].mkdir(exist_ok=True)
    for i in np.unique(np.linspace(0, len(val_data) - 1, 12).astype(int)):
        sample = read_or_skip(val_data, int(i))
        if sample is None:
            continue
        pair = visualize.side_by_side(sample["image"], sample, served.detect(sample["image"]), val_data.class_names)
        Image.fromarray(pair).save(paths["pictures"] / image_name(i, sample["image_id"]))
    return paths


def image_name(position, image_id):
    """Name of the file of a drawn image; ids of COCO files may be any text, such as a path."""
    name = re.sub(r"[^\w.-]", "_", str(image_id))[-100:]
    return f"{position:05d}_{name}.png"


def _print(summary, output):
    model = summary["keras_file"]
    export = (
        f"KERAS_BACKEND=tensorflow python -m keras_maskrcnn export --model {model} --output {output / 'saved_model'}"
    )
    print(
        f"\n{summary['images_per_second']} images/s, {summary['training_seconds']:.0f} s of training, "
        f"{summary['scoring_seconds']:.0f} s of scoring"
        f"\nfigures      {output / 'summary.json'}"
        f"\ncurves       {summary['curves']}, or: tensorboard --logdir {summary['tensorboard']}"
        f"\nimages       {summary['pictures']} (ground truth next to detections)"
        f"\nmodel        {model}"
        f"\nSavedModel   {summary['saved_model'] or 'left out: export needs TensorFlow. ' + export}"
        f"\nnext         python -m keras_maskrcnn predict --model {model} "
        f"--output {output / 'predictions'} YOUR_IMAGES"
    )
