"""Arguments of the scripts in `train/`: their parser, their types, and what several modules derive from them."""

import argparse
import pathlib

from keras_maskrcnn.backend.precision import fastest_policy

SCHEDULES = ("hold_cosine", "constant", "step", "multi_step", "one_cycle")
OPTIMIZERS = ("adamw", "adam", "sgd")
OVERFIT_MINUTES = 3.0  # default length of `--overfit`
# Defaults of the arguments below that a recipe need not choose.
DEFAULTS = {
    "epochs": 10,
    "hold": 0.3,
    "lr_schedule": "hold_cosine",
    "optimizer": "adamw",
    "backbone_rate": 1.0,
    "backbone": "resnet18",
    "precision": "auto",
    "workers": 2,
    "pipeline": "threads",
    "seed": 0,
    "keep": "last",
    "find_lr": None,
    "overfit": None,
    "distribute": None,
    "wait": 300.0,
    "base_batch_size": None,
    "sync_batch_norm": False,
}


class Parser(argparse.ArgumentParser):
    """A parser whose `--overfit` changes defaults: it has a length of its own, and no more images per step than N."""

    def parse_known_args(self, args=None, namespace=None):
        """See `argparse.ArgumentParser.parse_known_args`."""
        found, rest = super().parse_known_args(args, namespace)
        if found.overfit:
            given, _ = super().parse_known_args(args, argparse.Namespace(steps=None, minutes=None))
            if given.steps is None and given.minutes is None:
                found.minutes = OVERFIT_MINUTES
            found.batch_size = min(found.batch_size, found.overfit)
        return found, rest


def parser(description, **defaults):
    """Makes the argument parser of a recipe.

    Args:
        description: the recipe's docstring, shown by `--help`.
        **defaults: defaults of the arguments below.

    Returns:
        argparse.ArgumentParser.
    """
    result = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--output", type=pathlib.Path, required="output" not in defaults, help="folder of the run, created if missing")
    _add_length(result)
    add("--batch-size", type=positive, help="images per step (default: %(default)s)")
    add(
        "--image-size",
        type=positive,
        nargs="+",
        help="side, or height and width, of the canvas (default: %(default)s)",
    )
    _add_optimizer(add)
    add("--backbone", help="resnet10 to resnet101, efficientnet_lite0 to 2, darknet53 (default: %(default)s)")
    add("--width", type=positive, help="channels of the backbone's stem, 64 in the papers (default: %(default)s)")
    add("--precision", choices=("auto", "float32", "mixed_bfloat16"), help="auto: bfloat16 if the machine supports it")
    add("--workers", type=positive, help="threads or processes that prepare images (default: %(default)s)")
    add(
        "--pipeline",
        choices=("threads", "grain"),
        help="grain: images are prepared in processes, for many cores (default: %(default)s)",
    )
    add("--seed", type=int, help="random seed (default: %(default)s)")
    add(
        "--keep",
        choices=("last", "best"),
        help="weights that are scored, saved and exported: of the last epoch, which is usually the best, since the "
        "learning rate has fallen; or of the best score, which best.keras has in any case (default: %(default)s)",
    )
    _add_checks(result)
    _add_distribution(add)
    add("--overwrite", action="store_true", help="delete the run in the output folder and start again")
    add("--debug", action="store_true", help="show the traceback of an error")
    result.set_defaults(**{**DEFAULTS, **defaults})
    return result


def _add_length(parser):
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, help="number of training steps (default: %(default)s)")
    length.add_argument(
        "--minutes",
        type=above_zero,
        help="length of the training including scoring, instead of --steps; the learning rate follows the time",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        help="number of epochs of equal length, each followed by scoring (default: %(default)s)",
    )


def _add_optimizer(add):
    add(
        "--optimizer",
        choices=OPTIMIZERS,
        help="sgd has a momentum of 0.9, and needs another --learning-rate than the others (default: %(default)s)",
    )
    add("--learning-rate", type=above_zero, help="peak of the schedule (default: %(default)s)")
    add(
        "--lr-schedule",
        choices=SCHEDULES,
        help="hold_cosine: constant, then half a cosine; step: a tenth after each third of the training; multi_step: a "
        "tenth after 2/3 and 8/9 of it; one_cycle: up and down along cosines (default: %(default)s)",
    )
    add(
        "--hold",
        type=share,
        help="share of the training before the rate of hold_cosine and one_cycle falls (default: %(default)s)",
    )


def _add_checks(parser):
    checks = parser.add_mutually_exclusive_group()
    checks.add_argument(
        "--find-lr",
        type=positive,
        nargs="?",
        const=100,
        metavar="STEPS",
        help="instead of training, raise the learning rate from 1e-6 to 1 in STEPS steps (default: %(const)s), print "
        "proposals for --learning-rate, draw OUTPUT/lr_finder.png, and exit",
    )
    checks.add_argument(
        "--overfit",
        type=positive,
        metavar="N",
        help="train on N training images without augmentation, score them, and say whether the model can memorise "
        "them: the first check when nothing learns. Whole images as the model detects in them, or, with a fixed scale, "
        f"one window of --image-size of each (default length: {OVERFIT_MINUTES:g} minutes)",
    )


def _add_distribution(add):
    add(
        "--distribute",
        choices=("mirrored", "multiworker", "jax"),
        help="train on all devices of this process (mirrored, or jax without an address), or with further processes, "
        "which run the same command and share --output: see docs/scale.md for the environment",
    )
    add(
        "--wait",
        type=above_zero,
        metavar="SECONDS",
        help="how long a process waits for the others, at the start and if one is lost (default: %(default)g)",
    )
    add(
        "--base-batch-size",
        type=positive,
        metavar="N",
        help="--learning-rate is that of N images per step, and is multiplied by --batch-size / N",
    )
    add(
        "--sync-batch-norm",
        action="store_true",
        help="batch statistics over the images of all devices, where the recipe has batch normalisation",
    )


def add_backbone_rate(parser):
    """Adds `--backbone-rate`, for recipes that can start from pretrained features."""
    parser.add_argument(
        "--backbone-rate",
        type=factor,
        metavar="FACTOR",
        help="learning rate of the backbone as a factor of that of the other layers, such as 0.1 for pretrained "
        "features (default: %(default)s)",
    )


def positive(text):
    """Type of an argument: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def above_zero(text):
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


def factor(text):
    """Type of an argument: a number of 0 or more."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of at least 0")
    return number


def value(arguments, name):
    """An argument of `DEFAULTS`, or its default where a program with a parser of its own does not have it."""
    return getattr(arguments, name, DEFAULTS[name])


def canvas(arguments):
    """(height, width) from `--image-size`."""
    sides = arguments.image_size if isinstance(arguments.image_size, list | tuple) else [arguments.image_size]
    return (sides[0], sides[-1])


def policy(arguments):
    """Keras dtype policy from `--precision`."""
    return fastest_policy() if arguments.precision == "auto" else arguments.precision
