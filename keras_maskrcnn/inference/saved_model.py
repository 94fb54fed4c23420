"""An exported SavedModel with the same `detect` as the model that it was exported from."""

import json
import pathlib

from keras_maskrcnn.data.image_type import ImageType
from keras_maskrcnn.data.sample import DataError
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.inference.export import DESCRIPTION
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Detector, Predictor


class SavedModel(Detector):
    """Loads what `MaskRCNN.export` wrote; `detect` and `detect_each` take the arguments of the model's.

    Args:
        folder: the SavedModel's folder.

    Attributes:
        class_names: list of K names, or None.
        num_classes: K, classes without background.
        schema: tuple of `heads.outputs.Output`, what the model predicts.
        image_type: `ImageType` of the images that it takes.
        layer_dtype: name of the dtype policy of the layers; None in exports of earlier versions.

    Raises:
        DataError: the folder holds no SavedModel, or one without this library's description.
    """

    def __init__(self, folder):
        import tensorflow as tf

        folder = pathlib.Path(folder)
        if not (folder / "saved_model.pb").is_file():
            raise DataError(folder, "is not a SavedModel (there is no saved_model.pb)")
        assets = folder / "assets"
        if not (assets / DESCRIPTION).is_file():
            reason = f"has no assets/{DESCRIPTION}: export the model again from its .keras file with this version"
            raise DataError(folder, reason)
        description = json.loads((assets / DESCRIPTION).read_text(encoding="utf-8"))
        self.class_names, self.num_classes = description["class_names"], description["num_classes"]
        self.layer_dtype = description.get("precision")
        placement = description["placement"]
        size, stretch = (placement.get(name) and tuple(placement[name]) for name in ("image_size", "stretch"))
        self.image_type = ImageType(**placement.get("image_type", {}))
        self.schema = tuple(Output(**output) for output in description["outputs"])
        self.predictor = Predictor(
            _Signature(tf.saved_model.load(str(folder)), self.image_type.channels),
            Placement(size, Resize.of(placement["resize"]), placement["stride"], stretch, self.image_type),
            self.schema,
            Detection.of(description["detection"]),
        )


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
