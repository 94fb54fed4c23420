"""SavedModel for inference: pictures in, detections out, preprocessing inside, TensorFlow alone needed to run it."""

import pathlib
import tempfile

import numpy as np
from keras import ops

from keras_maskrcnn import backend

CLASS_NAMES = "class_names.txt"
PASTE = "paste.txt"


def saved_model(model, folder):
    """Write a model as a SavedModel.

    Signatures: `serving_default(images uint8 [B, H, W, 3])` for any H and W, and `serve_bytes(image_bytes string [B])`
    for JPEG and PNG files of unequal sizes (EXIF orientation is not applied). Both return, under the names that
    TensorFlow's own detection models use, `detection_boxes` float32 [B, D, 4] as ymin, xmin, ymax, xmax relative to
    the picture, `detection_classes` int64 [B, D] (1…K, 0 in empty slots), `detection_scores` float32 [B, D],
    `detection_masks` float32 [B, D, m, m] (probabilities inside the box) and `num_detections` int32 [B]. Class names
    go to `assets/class_names.txt`, one a line, and how masks reach the picture (`options.Detection.paste`) to
    `assets/paste.txt`.

    Pictures are placed as `model.detect` places them, so that both give the same detections.

    Args:
        model: an `InstanceModel`.
        folder: where to write; made if missing.

    Raises:
        RuntimeError: if Keras does not run on TensorFlow.
    """
    if not backend.is_tensorflow():
        raise RuntimeError(
            "export needs the TensorFlow backend: save the model as .keras and export it under KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf

    module = tf.Module()
    module.model = [v.value for v in model.variables]
    serve, serve_bytes = _functions(model)
    signatures = {"serving_default": serve, "serve_bytes": serve_bytes}
    with tempfile.TemporaryDirectory() as temporary:
        if model.class_names:
            module.class_names = _asset(pathlib.Path(temporary) / CLASS_NAMES, model.class_names)
        module.paste = _asset(pathlib.Path(temporary) / PASTE, [model.detection.paste])
        tf.saved_model.save(module, str(folder), signatures=signatures)


def _asset(path, lines):
    """A text file that the SavedModel carries along."""
    import tensorflow as tf

    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tf.saved_model.Asset(str(path))


def _functions(model):
    """The two signatures as traced TensorFlow functions."""
    import tensorflow as tf

    # There is no Python control flow to convert, and autograph would read the source again, which may have changed.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")], autograph=False)
    def serve(images):
        fitted, size = _fit(model, images)
        return _detect(model, fitted, tf.repeat(size[None], tf.shape(images)[0], axis=0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_bytes(image_bytes):
        return _fitted_together(model, image_bytes) if model.image_size else _one_by_one(serve, image_bytes)

    return serve.get_concrete_function(), serve_bytes.get_concrete_function()


def _fitted_together(model, image_bytes):
    """Detections in encoded pictures of unequal sizes, which share the model's canvas and so make one batch."""
    import tensorflow as tf

    def one(encoded):
        fitted, size = _fit(model, _decode(encoded))
        return fitted[0], size

    specs = (tf.TensorSpec([*model.image_size, 3], tf.float32), tf.TensorSpec([2], tf.float32))
    return _detect(model, *tf.map_fn(one, image_bytes, fn_output_signature=specs))


def _one_by_one(serve, image_bytes):
    """Detections in encoded pictures, each on a canvas of its own."""
    import tensorflow as tf

    outputs = serve.get_concrete_function().structured_outputs
    specs = {name: tf.TensorSpec(output.shape[1:], output.dtype) for name, output in outputs.items()}

    def one(encoded):
        return {name: found[0] for name, found in serve(_decode(encoded)).items()}

    return tf.map_fn(one, image_bytes, fn_output_signature=specs)


def _decode(encoded):
    """A JPEG or PNG file as uint8 [1, H, W, 3]."""
    import tensorflow as tf

    picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(picture, [None, None, 3])[None]


def _fit(model, images):
    """Pictures of one size placed as `Detector.place` says: float32 [B, *canvas, 3] and (h, w) [2]."""
    import tensorflow as tf

    given, rule = tf.cast(tf.shape(images)[1:3], tf.float64), model.resize
    if model.image_size:
        canvas = tf.constant(model.image_size)
        limits = tf.cast(canvas, tf.float64)
        size = tf.cast(tf.clip_by_value(tf.round(given * tf.reduce_min(limits / given)), 1.0, limits), tf.int32)
    else:
        factor = tf.minimum(rule.shorter / tf.reduce_min(given), rule.longer / tf.reduce_max(given))
        size = tf.maximum(tf.floor(given * factor + (0.0 if rule.rounding == "down" else 0.5)), 1.0)
        size, multiple = tf.cast(size, tf.int32), model.canvas_multiple()
        canvas = -(-size // multiple) * multiple
    resized = tf.image.resize(images, size, antialias=rule.antialias)
    padding = tf.pad((canvas - size)[:, None], [[1, 1], [1, 0]])
    fitted = tf.ensure_shape(tf.pad(resized, padding), [None, *(model.image_size or (None, None)), 3])
    return fitted, tf.cast(size, tf.float32)


def _detect(model, images, sizes):
    import tensorflow as tf

    with backend.static_shapes_scope(False):
        found = model({"images": images, "sizes": sizes}, training=False)
    boxes = ops.take(found["boxes"], np.array([1, 0, 3, 2]), axis=-1)
    return {
        "detection_boxes": boxes / tf.concat([sizes, sizes], axis=-1)[:, None],
        "detection_classes": tf.cast(found["labels"], tf.int64),
        "detection_scores": found["scores"],
        "detection_masks": found["masks"],
        "num_detections": tf.reduce_sum(tf.cast(found["valid"], tf.int32), axis=1),
    }
