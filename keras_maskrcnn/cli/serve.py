"""`serve`: models behind HTTP."""

import pathlib
import re

from keras_maskrcnn.cli.common import MODEL, load

EXAMPLE = "--model runs/demo/model.keras --port 8000"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LEVELS = ("debug", "info", "warning", "error")


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    several = "; NAME=MODEL names it in paths; the first of several is the default"
    add("--model", required=True, action="append", metavar="MODEL", help=MODEL + several)
    add("--host", default="127.0.0.1", help="address to listen on, 0.0.0.0 for all (default: %(default)s)")
    add("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    add("--log-level", choices=LEVELS, default="info", help="of the JSON lines on stderr (default: %(default)s)")
    limits = parser.add_argument_group("limits")
    add = limits.add_argument
    add("--max-bytes", type=int, metavar="N", help="of the body of a request (default: 20 MiB)")
    add("--max-pixels", type=int, metavar="N", help="of an image (default: 40 million)")
    add("--timeout", type=float, metavar="S", help="seconds for a body to arrive, and for its answer (default: 30)")
    add("--queue", type=int, metavar="N", help="images in the service at a time; more are answered 429 (default: 16)")
    add("--batch", type=int, metavar="N", help="waiting images that go through the network together (default: 1)")
    add("--score", type=float, metavar="S", help="minimum score of requests without one (default: the model's, or 0.5)")


def run(args):
    """Answers HTTP requests with the objects in images, and shows a page to try it in a browser."""
    named = _named(args.model)
    try:
        from keras_maskrcnn.serve.server import run as serve
    except ModuleNotFoundError as error:
        raise ValueError(f'serve needs {error.name}: pip install "keras3-maskrcnn[serve]"') from error
    from keras_maskrcnn.serve.settings import Settings

    if not 0 <= args.port < 2**16:
        raise ValueError(f"--port {args.port}: must be from 0 to 65535")
    names = ("max_bytes", "max_pixels", "timeout", "queue", "batch", "score")
    settings = Settings(**{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    serve(lambda: {name: load(model) for name, model in named.items()}, settings, args.host, args.port, args.log_level)
    return 0


def _named(models):
    """The models by name: dict from the words of --model, in their order."""
    named = {}
    for word in models:
        name, equals, model = word.partition("=")
        if not equals or pathlib.Path(word).exists():
            name, model = re.sub(r"[^A-Za-z0-9._-]+", "-", pathlib.PurePath(word).stem).strip("-._"), word
        if not NAME.fullmatch(name):
            raise ValueError(f"--model {word}: the name {name!r} is not of letters, digits, dots, - and _")
        if name in named:
            raise ValueError(f"--model {word}: another model has the name {name!r}; give NAME=MODEL")
        named[name] = model
    return named
