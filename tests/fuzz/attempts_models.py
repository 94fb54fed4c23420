"""Models in files: `.keras`, `.weights.h5`, preset folders, and the descriptions of exported models."""

import io
import json

import changes
import numpy as np
from attempts_arrays import hdf5_changed
from target import changed_files, target, written

from keras_maskrcnn.data import DataError

TINY = {
    "backbone": {"name": "resnet10", "norm": "group", "width": 4},
    "fpn_channels": 8,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "proposals": {"pre_nms": 20, "post_nms": 8},
    "box_stage": {"width": 8},
    "mask_stage": {"width": 8, "depth": 1},
    "image_size": (64, 64),
    "class_names": ["ant", "bee"],
}
CODE = f'open("{changes.CANARY}", "w")'
# Parts of configurations that would run code, or name objects of other modules.
HOSTILE = (
    {"module": "builtins", "class_name": "exec", "config": CODE, "registered_name": "exec"},
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
    {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", changes.CANARY]},
        "registered_name": None,
    },
    {"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}},
    {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "a", "function": {"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}}},
        "registered_name": None,
    },
    {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": "../outside"},
        "registered_name": None,
    },
    {"module": "keras_maskrcnn.cli", "class_name": "main", "config": {}, "registered_name": None},
    {"class_name": "__tensor__", "config": {"value": [1] * 3, "dtype": "object"}},
    {"class_name": "__numpy__", "config": {"value": [1], "dtype": "O"}},
    {"class_name": "__bytes__", "config": {"value": "ab"}},
    {"class_name": "keras_maskrcnn>MaskRCNN", "config": {}},
)
NAMES = (
    "resnet50",
    "simple_cnn",
    "keras_maskrcnn>FCN",
    "keras_maskrcnn>MaskRCNN",
    "Functional",
    "builtins",
    "os",
    "eval",
)
VALUES = (*changes.VALUES, *HOSTILE, *HOSTILE, *NAMES)


def load():
    """Imports what the targets need, before memory is limited, and starts TensorFlow's threads."""
    import keras
    import tensorflow as tf

    import keras_maskrcnn.models

    keras.ops.convert_to_numpy(keras.ops.matmul(keras.ops.ones((64, 64)), keras.ops.ones((64, 64))))
    return tf, keras_maskrcnn.models


def model():
    """A tiny model."""
    from keras_maskrcnn import MaskRCNN

    return MaskRCNN(2, **TINY)


def changed_inside(folder):
    """Function that changes an entry of a `.keras` file: JSON trees and HDF5 files."""

    def change(name, content, rng):
        if name.endswith(".json"):
            return changes.json_changed(content, rng, VALUES)
        if name.endswith(".h5") and rng.random() < 0.7:
            return hdf5_changed(folder / "inner.tmp", content, rng)
        return changes.bytes_changed(content, rng)

    return change


@target("keras", quick=12, weight=4)
def keras_file(folder):
    """The model that the command line loads."""
    from keras_maskrcnn.cli.common import load as load_model

    path, work = folder / "model" / "m.keras", folder / "work"
    path.parent.mkdir()
    work.mkdir()
    model().save(path)
    inside = changed_inside(work)

    def change(_, content, rng):
        return changes.zip_changed(content, rng, inside)

    return changed_files(path.parent, lambda: load_model(path), change)


@target("keras_weights", quick=60)
def keras_weights(folder):
    """A `.weights.h5` file, checked only."""
    from keras_maskrcnn.weights import keras_file as checked

    path = folder / "a" / "m.weights.h5"
    path.parent.mkdir()
    model().save_weights(path)

    def change(_, content, rng):
        return (
            hdf5_changed(folder / "inner.tmp", content, rng)
            if rng.random() < 0.5
            else changes.bytes_changed(content, rng)
        )

    return changed_files(path.parent, lambda: checked.check(path), change)


@target("preset", quick=12, weight=4, allowed=(DataError, ValueError))
def preset(folder):
    """A folder of a preset, whose description is adapted to the changed weights."""
    from keras_maskrcnn.models.image_model import ImageModel
    from keras_maskrcnn.weights import preset_folder

    place = folder / "preset"
    model().save_preset(place)

    def change(name, content, rng):
        if name.endswith(".h5"):
            return (
                hdf5_changed(folder / "inner.tmp", content, rng)
                if rng.random() < 0.5
                else changes.bytes_changed(content, rng)
            )
        return changes.json_changed(content, rng, VALUES)

    def read():
        weights, metadata = place / preset_folder.FILES["h5"], place / preset_folder.METADATA
        if weights.is_file() and weights.stat().st_size != size:
            described = json.loads(metadata.read_bytes())
            described["weights"] |= {"sha256": preset_folder.sha256(weights), "bytes": weights.stat().st_size}
            metadata.write_text(json.dumps(described))
        ImageModel.from_preset(place)

    size = (place / preset_folder.FILES["h5"]).stat().st_size
    cases = changed_files(place, read, change)
    original = (place / preset_folder.METADATA).read_bytes()

    def case(rng):
        metadata = place / preset_folder.METADATA
        if metadata.is_file() or metadata.is_symlink():  # also a link to itself
            metadata.unlink()
        if not metadata.exists():
            metadata.write_bytes(original)
        return cases(rng)

    return case


@target("description", quick=300, weight=2, allowed=(DataError,))
def description(folder):
    """The description in an exported file, of which the model is then used."""
    from attempts_requests import Squares

    from keras_maskrcnn.heads.detection import OUTPUTS
    from keras_maskrcnn.heads.outputs import Output
    from keras_maskrcnn.inference import exported

    squares = Squares()
    squares.layer_dtype, squares.num_classes, squares.detection = "float32", 1, squares.predictor.detection
    squares.schema = (*OUTPUTS, Output("masks", "box_masks"))
    text = json.dumps(exported.engine_description(squares, squares.placement, None)).encode()
    image = np.full((20, 30, 3), 200, np.uint8)

    def read(content):
        described = exported.read_description(folder, content)
        opened = exported.Exported(folder, described)
        opened.check_outputs(folder, ["boxes", "labels", "scores", "masks", "valid"])
        opened.use(exported.Batches(described, lambda inputs: run(squares, inputs)))
        try:
            opened.detect(image)
        except ValueError as error:  # of a canvas that is too large for this image
            raise DataError(folder, error) from error

    def case(rng):
        content = text if rng is None else changes.json_changed(text, rng)
        return lambda: read(content)

    return case


def run(squares, inputs):
    """Runs the network as an engine, whose inputs have other names."""
    from keras_maskrcnn.heads.detection import Limits
    from keras_maskrcnn.inference.graph import CANVAS, THRESHOLDS

    limits = Limits(*(inputs[name] for name in THRESHOLDS), 1)
    return squares.network(dict(zip(("images", "sizes"), (inputs[name] for name in CANVAS), strict=True)), limits)


@target("onnx", quick=0)
def onnx(folder):
    """An ONNX file with another description, or cut off."""
    import onnx as library

    from keras_maskrcnn.inference.export import export, opened

    path = folder / "file" / "m.onnx"
    path.parent.mkdir()
    export(model(), path)

    def change(_, content, rng):
        if rng.random() < 0.2:
            return content[: rng.randrange(len(content))]
        file = library.load(io.BytesIO(content))
        for entry in file.metadata_props:
            change = changes.json_changed if entry.value.startswith("{") else changes.bytes_changed
            entry.value = change(entry.value.encode(), rng).decode("utf-8", "replace")
        return file.SerializeToString()

    return changed_files(path.parent, lambda: opened(path), change)


@target("savedmodel_description", quick=0)
def savedmodel_description(folder):
    """The description in a SavedModel, whose program is not changed."""
    from keras_maskrcnn.inference.export import export, opened

    export(model(), folder / "saved")
    path = next((folder / "saved").rglob("model.json"))
    written(folder / "copy.json", path.read_bytes())

    def case(rng):
        content = (folder / "copy.json").read_bytes()
        path.write_bytes(content if rng is None else changes.json_changed(content, rng))
        return lambda: opened(folder / "saved").detect(np.zeros((20, 30, 3), np.uint8))

    return case
