"""SavedModel for inference: images in, detections out, preprocessing inside; only TensorFlow is needed to run it."""

import dataclasses
import json
import pathlib
import tempfile

from keras_maskrcnn import backend
from keras_maskrcnn.heads.outputs import exported, maps

CLASS_NAMES = "class_names.txt"
DESCRIPTION = "model.json"
NO_PIXEL = 255  # in maps of images of unequal sizes
DECODED = (1, 3, 4)  # numbers of channels that `tf.io.decode_image` gives


def saved_model(model, folder):
    """Write a model as a SavedModel.

    Signatures:
        serving_default(images [B, H, W, C] of the model's `image_type`): images of one size, any H and W.
        serve_bytes(image_bytes string [B]): JPEG and PNG files of unequal sizes; the EXIF orientation is not applied.
            All outputs are 0 for a file that cannot be decoded. TensorFlow decodes files to 1, 3 or 4 channels (grey,
            R, G, B, and R, G, B with the stored alpha); models of other channels have no such signature.
        detect_on_canvas(images float32 [B, H, W, C], sizes float32 [B, 2], score_threshold, nms_iou, max_detections):
            the network, for images that are placed on a canvas already and for thresholds of the call.

    All but `detect_on_canvas` return, under the names of TensorFlow's own detection models, `detection_boxes` float32
    [B, D, 4] as ymin, xmin, ymax, xmax relative to the image, `detection_classes` int64 [B, D] (1…K, 0 in empty slots),
    `detection_scores` float32 [B, D], `detection_masks` float32 [B, D, m, m] (probabilities inside the box; masks of
    the whole canvas, such as YOLACT's, are resampled to it, with m = 56, so that clients need not tell models apart),
    `num_detections` int32 [B], as far as the model finds objects with masks, and what other heads export; a map is
    int64 [B, H, W], the class of each pixel of the images, and 255 beyond the smaller ones of unequal files. Images are
    stretched and placed as in `model.detect`, so that both give the same detections, except where `detect` cuts a large
    image into tiles.

    Class names are written to `assets/class_names.txt`, one per line, and the options and outputs that
    `inference.saved_model.SavedModel` needs to `assets/model.json`.

    Args:
        model: an `ImageModel`.
        folder: where to write; created if missing.

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
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        module.description = _asset(temporary / DESCRIPTION, json.dumps(description(model), indent=1))
        if model.class_names:
            lines = (" ".join(name.split()) for name in model.class_names)
            module.class_names = _asset(temporary / CLASS_NAMES, "\n".join(lines))
        (pathlib.Path(folder) / "assets" / CLASS_NAMES).unlink(missing_ok=True)  # of an earlier export
        tf.saved_model.save(module, str(folder), signatures=_signatures(model))


def reconfigured(model, dtype=None, **thresholds):
    """The model with another dtype policy or other thresholds: a new one with the same weights, unless nothing differs.

    Args:
        model: an `ImageModel`.
        dtype: name of the dtype policy of all layers, also of a backbone or head that has its own; None keeps it.
        **thresholds: options of `heads.detection.Detection`; None keeps the model's.

    Raises:
        ValueError: for a threshold outside its range, or of a model without objects.
    """
    thresholds = {name: value for name, value in thresholds.items() if value is not None}
    if dtype is None and not thresholds:
        return model
    config = model.get_config()
    if thresholds and "detection" not in config:
        raise ValueError(f"{', '.join(thresholds)}: {model.name} finds no objects, and has no thresholds")
    if thresholds:
        config["detection"] = {**config["detection"], **thresholds}
    if dtype is not None:
        config = {**_with_policy(config, dtype), "dtype": dtype}
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def _with_policy(config, dtype):
    """The config with the dtype policy in every layer that it contains."""
    if isinstance(config, list | tuple):
        return [_with_policy(part, dtype) for part in config]
    if not isinstance(config, dict):
        return config
    config = {name: _with_policy(part, dtype) for name, part in config.items()}
    # In these two it is the dtype of a tensor.
    if config.get("class_name", "InputLayer") not in ("InputLayer", "__keras_tensor__") and "dtype" in config["config"]:
        config["config"]["dtype"] = dtype
    return config


def description(model):
    """Placement, thresholds, precision and outputs of a model: the dict in `assets/model.json`."""
    return {
        "num_classes": model.num_classes,
        "class_names": model.class_names,
        "placement": dataclasses.asdict(model.placement),
        "detection": model.detection.asdict(),
        "precision": model.layer_dtype,
        "outputs": [dataclasses.asdict(output) for output in model.schema],
    }


def _asset(path, text):
    """A text file in the SavedModel's folder `assets`."""
    import tensorflow as tf

    path.write_text(text + "\n", encoding="utf-8")
    return tf.saved_model.Asset(str(path))


def _signatures(model):
    """The signatures as traced TensorFlow functions."""
    import tensorflow as tf

    from keras_maskrcnn.backend.tensorflow.network import signature

    placement, image_type = model.placement, model.image_type
    specs = signature(image_type.channels)
    images_spec = tf.TensorSpec([None, None, None, image_type.channels], image_type.dtype, name="images")

    # There is no Python control flow to convert, and autograph would read the source files again. The network is traced
    # once for both signatures that serve images.
    pair = tf.TensorSpec([2], tf.int32, name="image_size")

    @tf.function(input_signature=[specs["images"], specs["sizes"], pair], autograph=False)
    def detect(images, sizes, image_size):
        with backend.static_shapes_scope(False):
            found = model({"images": images, "sizes": sizes}, training=False)
            canvas = tf.unstack(tf.shape(images)[1:3])
            return exported(model.schema, found, sizes, (image_size[0], image_size[1]), canvas)

    @tf.function(input_signature=[images_spec], autograph=False)
    def serve(images):
        placed, size = placement.graph(_at_least_one(images))
        found = detect(placed, tf.repeat(size[None], tf.shape(placed)[0], axis=0), tf.shape(images)[1:3])
        return {name: values[: tf.shape(images)[0]] for name, values in found.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serve_bytes(image_bytes):
        files = _at_least_one(image_bytes)
        if placement.image_size and not maps(model.schema):
            images, sizes, read = _placed_together(placement, files)
            found = detect(images, sizes, tf.constant(placement.image_size))
        else:
            found, read = _one_by_one(serve, files, image_type, model.schema)

        def rows(values):
            read_rows = tf.reshape(read, [-1, *[1] * (values.shape.rank - 1)])
            return tf.where(read_rows, values, tf.zeros([], values.dtype))[: tf.shape(image_bytes)[0]]

        return {name: rows(values) for name, values in found.items()}

    @tf.function(input_signature=list(specs.values()), autograph=False)
    def detect_on_canvas(*inputs):
        with backend.static_shapes_scope(False):
            return model(dict(zip(specs, inputs, strict=True)), training=False)

    functions = {"serving_default": serve, "serve_bytes": serve_bytes, "detect_on_canvas": detect_on_canvas}
    if image_type.channels not in DECODED:
        print(f"{model.name}: no signature serve_bytes, TensorFlow decodes no files of {image_type.channels} channels")
        del functions["serve_bytes"]
    return {name: function.get_concrete_function() for name, function in functions.items()}


def _at_least_one(batch):
    """The batch, with one row of zeros or of empty strings if it has none: some operations need a row."""
    import tensorflow as tf

    missing = tf.cast(tf.shape(batch)[0] == 0, tf.int32)
    return tf.pad(batch, [[0, missing], *[[0, 0]] * (batch.shape.rank - 1)])


def _placed_together(placement, image_bytes):
    """Encoded images of unequal sizes on the model's one canvas: images, their sizes, and whether each was decoded."""
    import tensorflow as tf

    def one(encoded):
        image, read = _decode(encoded, placement.image_type)
        placed, size = placement.graph(image)
        return placed[0], size, read

    specs = (
        tf.TensorSpec([*placement.image_size, placement.image_type.channels], tf.float32),
        tf.TensorSpec([2], tf.float32),
        tf.TensorSpec([], tf.bool),
    )
    return tf.map_fn(one, image_bytes, fn_output_signature=specs)


def _one_by_one(serve, image_bytes, image_type, schema):
    """Detections in encoded images, each on a canvas of its own, and whether each was decoded."""
    import tensorflow as tf

    outputs = serve.get_concrete_function().structured_outputs
    specs = {name: tf.TensorSpec(output.shape[1:], output.dtype) for name, output in outputs.items()}
    of_maps = [output.exported for output in maps(schema) if output.exported]
    specs |= {name: tf.RaggedTensorSpec([None, None], tf.int64, ragged_rank=1) for name in of_maps}

    def one(encoded):
        image, read = _decode(encoded, image_type)
        found = {name: found[0] for name, found in serve(image).items()}
        return {**found, **{name: tf.RaggedTensor.from_tensor(found[name]) for name in of_maps}}, read

    found, read = tf.map_fn(one, image_bytes, fn_output_signature=(specs, tf.TensorSpec([], tf.bool)))
    return {**found, **{name: found[name].to_tensor(NO_PIXEL) for name in of_maps}}, read


def _decode(encoded, image_type):
    """A JPEG or PNG file as [1, H, W, C], and True; a black pixel and False if it cannot be decoded."""
    import tensorflow as tf

    def decode(encoded):
        dtype = tf.as_dtype(image_type.dtype)
        image = tf.io.decode_image(encoded, image_type.channels, dtype, expand_animations=False)
        return tf.ensure_shape(image, [None, None, image_type.channels])[None], True

    # An error in a graph ends the call, except in a data set.
    read = tf.data.Dataset.from_tensors(encoded).map(decode).ignore_errors()
    black = tf.data.Dataset.from_tensors((tf.zeros([1, 1, 1, image_type.channels], image_type.dtype), False))
    return read.concatenate(black).take(1).get_single_element()
