"""What all formats of exported models share: the description inside the file, and the reader built from it."""

import contextlib
import dataclasses
import math
import os
import re

import numpy as np
from PIL import Image

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_type import ImageType
from keras_maskrcnn.data.json_text import loads
from keras_maskrcnn.heads.detection import OUTPUTS, Detection, check_count
from keras_maskrcnn.heads.outputs import Output, of_objects
from keras_maskrcnn.inference.graph import CANVAS, THRESHOLDS
from keras_maskrcnn.inference.placement import Placement, Resize, check_bytes
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.ops.placement import MAX_SIDE

# Names of the class names, one per line, and of the description, JSON, in all formats that can hold them.
CLASS_NAMES, DESCRIPTION = "class_names.txt", "model.json"
# Entries of the description that files for inference engines have in addition.
OF_ENGINES = ("batch", "max_detections")
MAX_BATCH = 4096  # images of a call
CAPTION = re.compile(r"[^{}]*({(:[^{}]{0,5})?}[^{}]*)?")  # a wider field would take any memory
DAMAGED = f"its description ({DESCRIPTION}) is damaged: export the model again"


def description(model):
    """Placement, thresholds, precision and outputs of a model: the dict in `model.json`."""
    return {
        "num_classes": model.num_classes,
        "class_names": model.class_names,
        "placement": dataclasses.asdict(model.placement),
        "detection": model.detection.asdict(),
        "precision": model.layer_dtype,
        "outputs": [dataclasses.asdict(output) for output in model.schema],
    }


def class_names(model):
    """The class names of a model as text, one per line; empty if it has none."""
    return "\n".join(" ".join(name.split()) for name in model.class_names or ())


class Exported(Detector):
    """A model that was exported; `detect` and `detect_each` take the arguments of the model's, with the same results.

    Args:
        path: of the file or folder, for messages.
        content: what `description` returned. A subclass then calls `use` with its network.

    Attributes:
        class_names: list of K names, or None.
        num_classes: K, classes without background.
        schema: tuple of `heads.outputs.Output`, what the model predicts.
        image_type: `ImageType` of the images that it takes.
        layer_dtype: name of the dtype policy of the layers; None in exports of earlier versions.

    Raises:
        DataError: the content is not such a description.
    """

    def __init__(self, path, content):
        try:
            self.class_names, self.num_classes = content["class_names"], check_count("", content["num_classes"])
            _check(self.class_names is None or _are((str,), self.class_names))
            self.layer_dtype = content.get("precision")
            self.schema = tuple(_output(**output) for output in content["outputs"])
            self.placement = _placement(content["placement"])
            self.image_type = self.placement.image_type
            self.detection = Detection.of(content["detection"])
            _check_objects(self.schema)
            _check(content.get("batch") is None or check_count("batch", content["batch"]) <= MAX_BATCH)
            most = check_count("max_detections", content.get("max_detections", self.detection.max_detections))
            _check(most >= self.detection.max_detections)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(path, DAMAGED) from error

    def check_outputs(self, path, names):
        """Raises a `DataError` unless the network of a file has all outputs of the description, given their names."""
        if missing := {output.name for output in self.schema}.difference(names):
            raise DataError(path, f"{DAMAGED}: the network has no output {min(missing)[:80]!r}")

    def use(self, network):
        """Sets `predictor` with the network of a `Predictor`."""
        self.predictor = Predictor(network, self.placement, self.schema, self.detection)


def _placement(fields):
    """The `Placement` of a description; earlier versions have fewer fields."""
    pairs = {name: tuple(fields[name]) for name in ("image_size", "stretch", "canvas") if fields.get(name)}
    image_type = ImageType(**fields.get("image_type", {}))
    rule = Resize.of(fields["resize"])
    placement = Placement(**{"image_size": None, **fields, **pairs, "resize": rule, "image_type": image_type})
    _check(_are((bool,), [rule.antialias, rule.keep_aspect]))
    sides = [placement.stride, rule.multiple or 1]
    for size in filter(None, (placement.image_size, placement.canvas)):
        _check(len(size) == 2 and math.prod(size) <= (Image.MAX_IMAGE_PIXELS or math.inf))
        sides += size
    lengths = [rule.shorter, rule.longer]
    _check(_are((int,), sides) and _are((int, float), lengths) and (rule.scale or 1) <= MAX_SIDE)
    _check(all(1 <= side <= MAX_SIDE for side in sides + lengths))
    if placement.stretch is not None:
        low, high = placement.stretch
        _check(0 <= low < high <= 100)
    return placement


def _check_objects(schema):
    """Checks that the outputs of objects, if there are any, are those of every detector with others beside them."""
    found = {(output.name, output.kind) for output in of_objects(schema)}
    _check(schema and len({output.name for output in schema}) == len(schema))
    _check(not found or found >= {(output.name, output.kind) for output in OUTPUTS})


def _output(**fields):
    """An `Output` whose fields have the types that `export` writes."""
    output = Output(**fields)
    texts = [text for text in (output.exported, output.caption) if text is not None]
    _check(_are((str,), [output.name, *texts, *(output.names or ())]) and _are((int,), [output.stride]))
    _check(output.stride >= 1 and CAPTION.fullmatch(output.caption or ""))
    return output


def _are(kinds, values):
    return isinstance(values, list | tuple) and all(type(value) in kinds for value in values)


def _check(holds):
    if not holds:
        raise ValueError("a value that `export` does not write")


# Inference engines ------------------------------------------------------------------------------------------------


def engine_description(model, placement, batch):
    """`description` of a file that was written with a placement and a batch size, None for any.

    Outputs that are not exported are not among those of the file.
    """
    content, limits = description(model), model.detection.limits()
    outputs = [output for output in content["outputs"] if output["exported"]]
    return {
        **content,
        "outputs": outputs,
        "placement": dataclasses.asdict(placement),
        "batch": batch,
        **limits._asdict(),
    }


@contextlib.contextmanager
def required(path, extra):
    """Context of imports: a missing package becomes a `DataError` of a file with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason = f'needs the package {error.name}: pip install "keras3-maskrcnn[{extra}]"'
        raise DataError(path, reason) from error


@contextlib.contextmanager
def variable(name, value):
    """Context in which a variable of the environment has a value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def read_description(path, text, keys=OF_ENGINES):
    """The description in a file.

    Args:
        path: of the file, for messages.
        text: its JSON, str or bytes, or None if the file has none.
        keys: entries that it must have beside those that `Exported` reads.

    Raises:
        DataError: there is none, or it is no JSON object with these entries.
    """
    if text is None:
        raise DataError(path, "was not written by `export`: it has no description of the model")
    try:
        content = loads(text)
    except ValueError as error:
        raise DataError(path, DAMAGED) from error
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise DataError(path, DAMAGED)
    return content


class Batches:
    """What an engine runs as the network of a `Predictor`, whatever the number of images that the engine takes.

    Args:
        content: what `engine_description` returned.
        run: function of a dict of arrays, by the names in `CANVAS` and `THRESHOLDS`, to a dict of arrays by the names
            of the network's outputs. Threads share it.

    Attributes:
        batch: number of images of a call of the engine, None for any; the network takes any number.
        most: maximum number of detections per image.
        canvas: (height, width) of all images, or None for any.
    """

    dynamic = True

    def __init__(self, content, run):
        self.batch, self.most, self.run = content["batch"], content["max_detections"], run
        placement = content["placement"]
        self.canvas = placement.get("image_size") or placement.get("canvas")

    def __call__(self, inputs, limits):
        """Run the network, see `Predictor`.

        Raises:
            ValueError: for a canvas or a number of detections that the file does not have.
        """
        images, sizes = inputs["images"], inputs["sizes"]
        self._check(images.shape[1:3], limits.max_detections)
        thresholds = {name: np.array(getattr(limits, name), "float32") for name in THRESHOLDS}
        rows, found = self.batch or len(images), []
        check_bytes(rows, images.shape[1:])
        for first in range(0, len(images), rows):
            part = (_filled(values[first : first + rows], rows) for values in (images, sizes))
            found.append(self.run({**dict(zip(CANVAS, part, strict=True)), **thresholds}))
        return {name: np.concatenate([part[name] for part in found])[: len(images)] for name in found[0]}

    def _check(self, canvas, max_detections):
        if max_detections > self.most:
            again = f"export it again with --max-detections {max_detections}"
            raise ValueError(f"max_detections={max_detections}: the file has {self.most} per image; {again}")
        if self.canvas and tuple(canvas) != tuple(self.canvas):
            wanted, given = ("×".join(map(str, size)) for size in (self.canvas, canvas))
            raise ValueError(f"a canvas of {given} pixels: the file has one of {wanted} for all images")


def _filled(values, rows):
    """An array with rows of ones appended up to a number."""
    missing = rows - len(values)
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=1) if missing else values
