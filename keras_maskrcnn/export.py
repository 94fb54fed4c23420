"""SavedModel for inference: pictures in, detections out, preprocessing inside, TensorFlow alone needed to run it."""

import pathlib
import tempfile

import numpy as np
from keras import ops

from keras_maskrcnn import backend

CLASS_NAMES = "class_names.txt"


def saved_model(model, folder):
    """Write a model as a SavedModel.

    Signatures: `serving_default(images uint8 [B, H, W, 3])` for any H and W, and `serve_bytes(image_bytes string [B])`
    for JPEG and PNG files of unequal sizes (EXIF orientation is not applied). Both return, under the names that
    TensorFlow's own detection models use, `detection_boxes` float32 [B, D, 4] as ymin, xmin, ymax, xmax relative to
    the picture, `detection_classes` int64 [B, D] (1…K, 0 in empty slots), `detection_scores` float32 [B, D],
    `detection_masks` float32 [B, D, m, m] (probabilities inside the box) and `num_detections` int32 [B]. Class names
    go to `assets/class_names.txt`, one a line.

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
            names = pathlib.Path(temporary) / CLASS_NAMES
            names.write_text("\n".join(model.class_names) + "\n", encoding="utf-8")
            module.class_names = tf.saved_model.Asset(str(names))
        tf.saved_model.save(module, str(folder), signatures=signatures)


def _functions(model):
    """The two signatures as traced TensorFlow functions."""
    import tensorflow as tf

    # There is no Python control flow to convert, and autograph would read the source again, which may have changed.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")], autograph=False)
    def serve(images):
        fitted, size = _fit(images, model.canvas_size())
        return _detect(model, fitted, tf.repeat(size[None], tf.shape(images)[0], axis=0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_bytes(image_bytes):
        canvas = model.canvas_size()

        def one(encoded):
            picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
            fitted, size = _fit(tf.ensure_shape(picture, [None, None, 3])[None], canvas)
            return fitted[0], size

        specs = (tf.TensorSpec([*canvas, 3], tf.float32), tf.TensorSpec([2], tf.float32))
        return _detect(model, *tf.map_fn(one, image_bytes, fn_output_signature=specs))

    return serve.get_concrete_function(), serve_bytes.get_concrete_function()


def _fit(images, canvas):
    """Pictures of one size fitted into the canvas as `ops.images.fit` does: float32 [B, *canvas, 3] and (h, w) [2]."""
    import tensorflow as tf

    canvas_size = tf.constant(canvas, tf.float64)
    given = tf.cast(tf.shape(images)[1:3], tf.float64)
    size = tf.round(given * tf.reduce_min(canvas_size / given))
    size = tf.cast(tf.clip_by_value(size, 1.0, canvas_size), tf.int32)
    resized = tf.image.resize(images, size, antialias=True)
    padding = [[0, 0], [0, canvas[0] - size[0]], [0, canvas[1] - size[1]], [0, 0]]
    fitted = tf.ensure_shape(tf.pad(resized, padding), [None, *canvas, 3])
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
