"""Shared by the scripts in `train/`: arguments, the training run, and its summary."""

from keras_maskrcnn.quiet import keras  # isort: skip

import argparse
import importlib.metadata
import pathlib
import shlex
import sys
import time

import numpy as np
from PIL import Image

from keras_maskrcnn import data, evaluation, visualize
from keras_maskrcnn.backend import is_tensorflow
from keras_maskrcnn.backend.precision import fastest_policy
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.training.callbacks import CocoEval, EpochLine, SkippedSteps
from keras_maskrcnn.training.run_folder import RunFolder
from keras_maskrcnn.training.schedules import warmup_cosine

# Candidates and widths for small images with few objects; those of the papers are about ten times as large.
SMALL = {
    "proposals": {"pre_nms": 200, "post_nms": 100},
    "rpn_sampling": {"size": 64},
    "box_sampling": {"size": 64},
    "box_stage": {"width": 256},
}


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
    add("--steps", type=positive, help="number of training steps (default: %(default)s)")
    add(
        "--epochs",
        type=positive,
        help="number of epochs of equal steps, each followed by scoring (default: %(default)s)",
    )
    add("--batch-size", type=positive, help="images per step (default: %(default)s)")
    add(
        "--image-size",
        type=positive,
        nargs="+",
        help="side, or height and width, of the canvas (default: %(default)s)",
    )
    add("--learning-rate", type=float, help="peak of the schedule (default: %(default)s)")
    add("--backbone", help="resnet10, resnet18, resnet34, resnet50, resnet101 (default: %(default)s)")
    add("--width", type=positive, help="channels of the backbone's stem, 64 in the papers (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 if the machine supports it")
    add("--workers", type=positive, help="threads that prepare images (default: %(default)s)")
    add("--seed", type=int, help="random seed (default: %(default)s)")
    add("--overwrite", action="store_true", help="delete the run in the output folder and start again")
    add("--debug", action="store_true", help="show the traceback of an error")
    result.set_defaults(
        **{"epochs": 10, "precision": "auto", "seed": 0, "workers": 2, "backbone": "resnet18", **defaults}
    )
    return result


def positive(text):
    """Type of an argument: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def main(run, arguments):
    """Call `run(arguments)`; invalid input is one line on stderr and exit code 2, Ctrl-C a line and exit code 130."""
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
    return RunFolder(arguments.output, arguments, precision=policy(arguments), image_size=canvas(arguments))


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


def coco_split(root, part):
    """Name of a split in a folder of COCO's layout: "train2017" if there is such a file, else "train"."""
    found = sorted((root / "annotations").glob(f"instances_{part}*.json"))
    return found[-1].stem.removeprefix("instances_") if found else part


def policy(arguments):
    """Keras dtype policy from `--precision`."""
    return fastest_policy() if arguments.precision == "auto" else arguments.precision


def batches(arguments, dataset, **options):
    """Endless batches of a training set, with masks of 56×56, see `data.batches`."""
    return data.batches(
        dataset,
        canvas(arguments),
        arguments.batch_size,
        mask_size=56,
        repeat=True,
        seed=arguments.seed,
        workers=arguments.workers,
        **options,
    )


def optimizer(arguments, hold=0.3):
    """AdamW for training from scratch: warm-up, constant rate, half a cosine; no decay of biases and norms."""
    schedule = warmup_cosine(
        arguments.learning_rate,
        arguments.steps,
        warmup=min(200, arguments.steps // 10),
        hold_steps=int(hold * arguments.steps),
        final_factor=0.01,
    )
    result = keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=5.0)
    result.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return result


def train(arguments, model, train_data, val_data, batches, max_detections=100):
    """Fits, scores, saves, exports and draws; prints the paths of all files.

    A run that was stopped continues after its last complete epoch if it is started again with the same arguments, and
    ends with the same weights, history and scores as one that was not stopped.

    Args:
        arguments: parsed arguments of `parser`.
        model: a compiled model.
        train_data: reader of the training samples, for their names.
        val_data: reader of the validation samples.
        batches: endless batches for `fit` (`data.batches(..., repeat=True)`).
        max_detections: maximum number of detections per image in the scores.

    Returns:
        dict, the content of `OUTPUT/summary.json`.
    """
    output, folder = arguments.output, _folder(arguments)
    steps = max(arguments.steps // arguments.epochs, 1)
    clock = _Clock(arguments.batch_size)
    backup = folder.backup(clock.totals)
    done = backup.restore(model)
    if done:
        print(f"{output} continues after epoch {done} of {arguments.epochs}")
    batches.rows.start = done * steps * arguments.batch_size
    folder.start(done)
    scores = CocoEval(val_data, log_dir=output / "logs", max_detections=max_detections)
    model.fit(
        batches,
        epochs=arguments.epochs,
        initial_epoch=done,
        steps_per_epoch=steps,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            clock,
            scores,
            EpochLine(),
            SkippedSteps(train_data),
            keras.callbacks.CSVLogger(output / "history.csv", append=done > 0),
            backup,  # last, so that the scores of an epoch are on disk before its state
        ],
    )
    figures = scores.scores or evaluation.coco_scores(model, val_data, max_detections=max_detections)
    print("\n" + evaluation.format_scores(figures))
    paths = _write(model, val_data, output)
    seconds, images = clock.totals.tolist()
    summary = {
        "command": shlex.join(["python", *sys.argv]),
        "arguments": folder.arguments,
        "train_images": len(train_data),
        "val_images": len(val_data),
        "steps": int(model.optimizer.iterations),
        "batch_size": arguments.batch_size,
        "precision": model.layer_dtype,
        "parameters": model.count_params(),
        **evaluation.for_json(figures, digits=4),
        "training_seconds": round(seconds, 1),
        "images_per_second": round(images / max(seconds, 1e-9), 2),
        "versions": {name: importlib.metadata.version(name) for name in ("keras", keras.config.backend(), "numpy")},
        **{name: path and str(path) for name, path in paths.items()},
    }
    folder.finish(summary)
    _print(summary, output)
    return summary


class _Clock(keras.callbacks.Callback):
    """Seconds and images of the training steps, without evaluation, saving and the first step (tracing)."""

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size
        self.totals = np.zeros(2)  # seconds, images
        self._last = None
        self._traced = False

    def on_epoch_begin(self, epoch, logs=None):
        """Start, unless the step function is not traced yet."""
        self._last = time.perf_counter() if self._traced else None

    def on_train_batch_end(self, batch, logs=None):
        """Add the time since the last batch."""
        now = time.perf_counter()
        if self._last is not None:
            self.totals += now - self._last, self.batch_size
        self._last, self._traced = now, True


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
        sample = val_data[int(i)]
        pair = visualize.side_by_side(sample["image"], sample, served.detect(sample["image"]), val_data.class_names)
        Image.fromarray(pair).save(paths["pictures"] / f"{sample['image_id']}.png")
    return paths


def _print(summary, output):
    model = summary["keras_file"]
    export = (
        f"KERAS_BACKEND=tensorflow python -m keras_maskrcnn export --model {model} --output {output / 'saved_model'}"
    )
    print(
        f"\n{summary['images_per_second']} images/s, {summary['training_seconds']:.0f} s of training"
        f"\nfigures      {output / 'summary.json'}"
        f"\ncurves       {summary['curves']}, or: tensorboard --logdir {summary['tensorboard']}"
        f"\nimages       {summary['pictures']} (ground truth next to detections)"
        f"\nmodel        {model}"
        f"\nSavedModel   {summary['saved_model'] or 'left out: export needs TensorFlow. ' + export}"
        f"\nnext         python -m keras_maskrcnn predict --model {model} "
        f"--output {output / 'predictions'} YOUR_IMAGES"
    )
