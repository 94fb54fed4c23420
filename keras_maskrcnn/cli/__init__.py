"""The command line: `python -m keras_maskrcnn VERB`, also installed as `keras-maskrcnn`.

A verb is a module here with `run(args)`, which does the work and returns an exit code, `arguments(parser)`, and
`EXAMPLE`; the docstring of `run` is its help text. An error is one line on stderr and exit code 2; `--debug` shows the
traceback. Keras and TensorFlow are imported when a verb runs, so that `--help` is fast; a verb with `KERAS = False`
runs without them.
"""

import argparse
import importlib
import sys

from keras_maskrcnn.cli import compare, convert, convert_data, evaluate, export, info, inspect, join, predict, serve
from keras_maskrcnn.cli.common import fail

VERBS = (predict, join, serve, evaluate, compare, export, convert, convert_data, inspect, info)


def main(argv=None):
    """Runs one verb.

    Args:
        argv: list of arguments; None for those of the process.

    Returns:
        int: exit code, 0 for success, 2 for an error.
    """
    args = _parser().parse_args(argv)
    try:
        if args.keras:
            importlib.import_module(
                "keras_maskrcnn.quiet"
            )  # before a verb imports Keras, so that only its output is seen
        return args.run(args)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except Exception as error:  # a user reads one line, not a traceback
        if args.debug:
            raise
        # A full disk is an error without a file name.
        unnamed = isinstance(error, OSError) and error.errno and not error.filename
        return fail(error, getattr(args, "output", None) if unnamed else None)


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-maskrcnn",
        description="Instance segmentation with Mask R-CNN in Keras.",
        epilog="The recipes in train/ train models. Help for one verb: keras-maskrcnn VERB --help",
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[-1].replace("_", "-")
        one = verbs.add_parser(
            name,
            help=verb.run.__doc__,
            description=verb.run.__doc__,
            epilog=f"example:\n  python -m keras_maskrcnn {name} {verb.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(one)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        one.set_defaults(run=verb.run, keras=getattr(verb, "KERAS", True))
    return parser
