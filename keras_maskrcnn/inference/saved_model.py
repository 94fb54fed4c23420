"""SavedModel: images in, detections out, with preprocessing inside; only TensorFlow is needed to run it.

`saved_model` writes one, and `SavedModel` has the same `detect` as the model that it was exported from.
"""

import json
import os
import pathlib
import shutil
import tempfile

from keras_maskrcnn import backend
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.heads.outputs import exported, maps
from keras_maskrcnn.inference.exported import (
    CLASS_NAMES,
    DESCRIPTION,
    Exported,
    class_names,
    description,
    read_description,
)

NO_PIXEL = 255  # in maps of images of unequal sizes
_PROGRAM = "saved_model.pb"
_NEW = ".part"  # folder of a SavedModel that is being written
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
    `SavedModel` needs to `assets/model.json`.

    The files are written to a folder in `folder` first: a SavedModel that is there stays usable until the new one is
    complete, and if the process is killed while the files get their places, there is none.

    Args:
        model: an `ImageModel`.
        folder: where to write; created if missing. Other files in it are kept.

    Raises:
        OSError: in one line, if the files cannot be written.
    """
    folder = pathlib.Path(folder)
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    try:
        with tempfile.TemporaryDirectory() as temporary:
            temporary = pathlib.Path(temporary)
            assets = {"description": _asset(temporary / DESCRIPTION, json.dumps(description(model), indent=1))}
            if model.class_names:
                assets["class_names"] = _asset(temporary / CLASS_NAMES, class_names(model))
            save(model, new, _signatures(model), **assets)
        for name in (_PROGRAM, f"assets/{CLASS_NAMES}"):  # of an earlier export
            (folder / name).unlink(missing_ok=True)
        # Without the program there is no SavedModel, so it comes last.
        for file in sorted(new.rglob("*"), key=lambda file: file.name == _PROGRAM):
            place = folder / file.relative_to(new)
            place.mkdir(exist_ok=True) if file.is_dir() else os.replace(file, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def save(model, folder, signatures, **assets):
    """Writes functions of a model, with its variables and further attributes, as a SavedModel.

    Args:
        model: an `ImageModel`.
        folder: where to write.
        signatures: dict of concrete functions by name.
        **assets: `tf.saved_model.Asset` by name.

    Raises:
        OSError: in one line, if the files cannot be written.
    """
    import tensorflow as tf

    module = tf.Module()
    module.variables_of_model = [v.value for v in model.variables]
    for name, asset in assets.items():
        setattr(module, name, asset)
    try:
        tf.saved_model.save(module, str(folder), signatures=signatures)
    except tf.errors.OpError as error:  # a full disk, no permission, a limit on the size of files
        reason = " ".join(f"{type(error).__name__}: {error.message}".split())
        raise OSError(f"{folder}: the SavedModel cannot be written ({reason})") from error


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
        with backend.static_shapes_scope(False), backend.inference_scope():
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
        with backend.static_shapes_scope(False), backend.inference_scope():
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


class SavedModel(Exported):
    """Loads what `saved_model` wrote, see `Exported`.

    Args:
        path: the SavedModel's folder.

    Raises:
        DataError: the folder holds no SavedModel, or one without this library's description.
    """

    def __init__(self, path):
        import tensorflow as tf

        folder = pathlib.Path(path)
        if not (folder / "saved_model.pb").is_file():
            raise DataError(folder, "is not a SavedModel (there is no saved_model.pb)")
        described = folder / "assets" / DESCRIPTION
        if not described.is_file():
            reason = f"has no assets/{DESCRIPTION}: export the model again from its .keras file with this version"
            raise DataError(folder, reason)
        super().__init__(folder, read_description(folder, described.read_bytes(), keys=()))
        signature = _Signature(tf.saved_model.load(str(folder)), self.image_type.channels)
        self.check_outputs(folder, signature.function.structured_outputs)
        self.use(signature)


class _Signature:
    """The signature `detect_on_canvas` of a loaded SavedModel as the network of a `Predictor`."""

    dynamic = True

    def __init__(self, loaded, channels):
        from keras_maskrcnn.backend.tensorflow.network import signature

        self.specs = signature(channels)
        self.loaded = loaded  # its variables live as long as this reference
        self.function = loaded.signatures["detect_on_canvas"]

    def __call__(self, inputs, limits):
        import tensorflow as tf

        given = {**inputs, **limits._asdict()}
        found = self.function(**{name: tf.constant(given[name], spec.dtype) for name, spec in self.specs.items()})
        return {name: values.numpy() for name, values in found.items()}
