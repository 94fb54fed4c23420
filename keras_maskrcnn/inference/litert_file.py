"""LiteRT (TensorFlow Lite): one file, an image in, detections out, with preprocessing inside, for phones and browsers.

Behind the model, where TensorFlow Lite has the files of its metadata, a ZIP archive holds the class names and the
description of the model: `zipfile` and `unzip` read it.
"""

import json
import os
import tempfile
import threading
import zipfile
import zlib

from keras_maskrcnn import atomic
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.inference.exported import (
    DAMAGED,
    DESCRIPTION,
    Batches,
    Exported,
    class_names,
    engine_description,
    read_description,
    required,
)
from keras_maskrcnn.inference.graph import engine_graph
from keras_maskrcnn.inference.litert_weights import with_narrow_weights
from keras_maskrcnn.inference.saved_model import save

MAX_BYTES = 4 * 2**20  # of the description
LABELS = "labels.txt"  # the usual name of class names in these files
# Signatures: images to detections, and the network alone. The first one by name is what clients without signatures run.
SERVE, NETWORK = "serving_default", "serving_on_canvas"


def write(model, path, placement, batch=None, weights=None):
    """Write a model as a LiteRT file, see `inference.export.export`.

    It needs the built-in operations only, and has two signatures, which share the weights:
        serving_default(images [1, H, W, C] of the model's `image_type`): the outputs of a SavedModel. The client sets H
            and W with `resize_tensor_input`; until then they are 1.
        serving_on_canvas(canvas_images float32 [1, *canvas, C], canvas_sizes float32 [1, 2], and the float32 scalars
            score_threshold and nms_iou): what the network finds in an image that is placed on the canvas already.

    Args:
        model: an `ImageModel`.
        path: the file.
        placement: `Placement` of the images.
        batch: number of images, 1 or None.
        weights: "float16" or "int8", see `litert_weights.with_narrow_weights`; None for float32.

    Raises:
        ValueError: the placement has no canvas for all images, or for another batch.
        DataError: the package is missing.
    """
    import tensorflow as tf

    if batch not in (None, 1):
        raise ValueError(f"{path}: a LiteRT model takes one image, not a batch of {batch}")
    if placement.one_canvas is None:
        raise ValueError(f"{path}: a LiteRT model has one canvas; give the size of the images with --image-size H W")
    with tempfile.TemporaryDirectory() as folder:
        signatures = _signatures(model, placement)
        save(model, folder, signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        content = converter.convert()
    if weights:
        with required(path, "litert"):
            content = with_narrow_weights(content, weights)
    with atomic.replacing(path) as new:
        new.write_bytes(content)
        with zipfile.ZipFile(new, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(LABELS, class_names(model))
            archive.writestr(DESCRIPTION, json.dumps(engine_description(model, placement, batch=1)))


def _signatures(model, placement):
    """The signatures by name, as traced TensorFlow functions."""
    import tensorflow as tf

    graph = engine_graph(model, placement, batch=1)
    run = graph.parts[1]
    images, sizes, _, *limits = run.input_signature

    @tf.function(input_signature=graph.signature[:1], autograph=False)
    def serve(images):
        found = graph.function(images, *graph.defaults.values())
        return {name: found[name] for name in graph.public}

    @tf.function(input_signature=[images, sizes, *limits], autograph=False)
    def network(images, sizes, *thresholds):
        found = run(images, sizes, tf.constant(placement.one_canvas), *thresholds)
        return {name: found[inner] for name, inner in graph.network.items()}

    return {name: function.get_concrete_function() for name, function in ((SERVE, serve), (NETWORK, network))}


class LiteRtFile(Exported):
    """Reads what `write` wrote, and runs it with LiteRT; see `exported.Exported`.

    Threads share it, and run it one at a time: one run uses all processors.

    Args:
        path: the .tflite file.

    Raises:
        DataError: it is no LiteRT model, or one without this library's description; or the package is missing.
    """

    def __init__(self, path):
        with required(path, "litert"):
            from ai_edge_litert import interpreter
        content = _description(path)
        super().__init__(path, content)
        try:
            model = interpreter.Interpreter(model_path=str(path), num_threads=os.cpu_count())
            runner = model.get_signature_runner(NETWORK)
        except ValueError as error:
            raise DataError(path, "is not a LiteRT model") from error
        self.check_outputs(path, runner.get_output_details())
        taken, lock = list(runner.get_input_details()), threading.Lock()

        def run(inputs):
            with lock:
                return runner(**{name: inputs[name] for name in taken})

        self.use(Batches(content, run))


def _description(path):
    """The description behind a model.

    Raises:
        DataError: there is none, or a damaged one, or it would be too large in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(DESCRIPTION).file_size > MAX_BYTES:
                raise DataError(path, f"its {DESCRIPTION} has more than {MAX_BYTES} bytes")
            text = archive.read(DESCRIPTION)
    except (zipfile.BadZipFile, KeyError):
        text = None
    except (EOFError, RuntimeError, zlib.error) as error:  # of an encrypted or damaged entry
        raise DataError(path, DAMAGED) from error
    return read_description(path, text)
