"""Requests to models in this process: arrays of any shape, type and values; and bytes to a SavedModel."""

import io

import changes
import numpy as np
from attempts_arrays import STRANGE
from target import target

from keras_maskrcnn.data import DataError


def load():
    """Imports what the targets need, before memory is limited."""
    import attempts_models

    return attempts_models.load()


def serving():
    """tests/serve/serving.py, which has a model of a few lines of NumPy."""
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "serve"))
    import serving as module

    return module


def Squares():  # noqa: N802
    """A model of a few lines of NumPy, which finds a bright square."""
    return serving().Model()


KINDS = ("u1", "u2", "i8", "f2", "f4", "f8", "?", "c8", "O", "U2", "S3", ">u2", "M8[s]", "V3")
SHAPES = (
    (),
    (0,),
    (3,),
    (20, 30),
    (20, 30, 1),
    (20, 30, 2),
    (20, 30, 4),
    (0, 30, 3),
    (20, 0, 3),
    (1, 1, 3),
    (1, 3000, 3),
)
SHAPES += ((20, 30, 3), (2, 20, 30, 3), (20, 30, 3, 1), (3, 20, 30), (700, 1, 3), (20, 30, 0))
OPTIONS = {
    "score_threshold": (0, 1, 0.5, -0.1, 1.1, float("nan"), None, "0.5", [0.5], True, np.float32(0.2), 10**400),
    "nms_iou": (0, 1, 0.5, -1, float("inf"), None, "a", {}),
    "max_detections": (1, 100, 0, -1, 1.5, 2**31, 2**63, None, "3", True, float("nan")),
    "batch_size": (1, 8, 0, -1, 2.5, 10**9, None, "2"),
    "tiles": (None, (16, 16), (8, 8), (0, 0), (-1, 5), (16,), 16, "ab", (16.5, 16), (2**40, 2**40), (1, 1)),
    "overlap": (None, 0, 4, -1, 16, 100, 2.5, "a", float("nan")),
    "masks": ("full", "cropped", "none", None, 3, ["full"]),
}


def image(rng):
    """An image, or something else."""
    if rng.random() < 0.1:
        return rng.choice(STRANGE)
    values = np.random.default_rng(rng.randrange(2**32)).integers(0, 255, rng.choice(SHAPES))
    array = np.asarray(values).astype(rng.choice(KINDS[:1] * 8 + KINDS))
    if array.dtype.kind == "f" and array.size:
        array.flat[0] = rng.choice([np.nan, np.inf, -1e30])
    return array[::-1] if array.ndim and rng.random() < 0.1 else array


def options(rng):
    """Some options with valid and other values."""
    names = rng.sample(sorted(OPTIONS), rng.choice([0, 0, 1, 2]))
    return {name: rng.choice(OPTIONS[name]) for name in names}


def detected(model, given, chosen):
    """Detects, and checks what comes back."""
    found = model.detect(given, **chosen)
    for one in found if isinstance(found, list) else [found]:
        if "boxes" in one:
            assert np.isfinite(one["boxes"]).all() and len(one["boxes"]) == len(one["scores"])


def requests(model):
    """`case` of calls of `detect`."""
    valid = np.full((20, 30, 3), 200, np.uint8)

    def case(rng):
        if rng is None:
            return lambda: detected(model, valid, {})
        given = valid if rng.random() < 0.3 else [image(rng) for _ in range(3)] if rng.random() < 0.2 else image(rng)
        chosen = options(rng)
        return lambda: detected(model, given, chosen)

    return case


@target("predictor", quick=300, weight=2, allowed=(DataError, ValueError))
def predictor(folder):
    return requests(Squares())


@target("savedmodel", quick=30, weight=2, allowed=(DataError, ValueError))
def savedmodel(folder):
    from attempts_models import model

    from keras_maskrcnn.inference.export import export, opened

    export(model(), folder / "saved")
    return requests(opened(folder / "saved"))


@target("savedmodel_bytes", quick=60, allowed=())
def savedmodel_bytes(folder):
    """Files of any bytes to the signature `serve_bytes`, which has zeros for those that are no images."""
    import tensorflow as tf
    from attempts_images import plain
    from attempts_models import model

    from keras_maskrcnn.inference.export import export

    export(model(), folder / "saved")
    signature = tf.saved_model.load(str(folder / "saved")).signatures["serve_bytes"]
    files = [content for name, content in plain() if name.endswith(("png", "jpeg", "gif", "bmp"))]

    def ask(contents):
        found = signature(image_bytes=tf.constant(contents, tf.string))
        assert all(len(values) == len(contents) for values in found.values())
        assert np.isfinite(found["detection_boxes"]).all()

    def case(rng):
        if rng is None:
            return lambda: ask([files[0]])
        contents = []
        for _ in range(rng.choice([0, 1, 1, 2])):
            content = rng.choice(files)
            is_png = content.startswith(b"\x89PNG")
            contents.append(changes.png_changed(content, rng) if is_png else changes.bytes_changed(content, rng))
        return lambda: ask(contents)

    return case


def png(values):
    """The bytes of a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()
