"""What every model here shares: pixels, placement, declarations of heads, detection, presets and export."""

import types
from collections.abc import Sequence

import keras
import numpy as np

from keras_maskrcnn import atomic
from keras_maskrcnn.backend.keras_internals import BuiltModel
from keras_maskrcnn.backend.network import Network
from keras_maskrcnn.data.image_type import ImageType
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.ground_truth import ground_truth
from keras_maskrcnn.heads.outputs import Declarations
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.models import compatibility
from keras_maskrcnn.models.images import Images
from keras_maskrcnn.models.own_losses import OwnLosses, refuse_background
from keras_maskrcnn.models.presets import Presets
from keras_maskrcnn.options import Options

# Number of sample positions in `skipped_images`.
REMEMBERED = 64


class ImageModel(Declarations, Detector, Images, Presets, OwnLosses, BuiltModel, keras.Model):
    """Base of all models: a function of images on a canvas, with outputs and losses that it declares.

    `models.base.InstanceModel` is the base of those that find objects.

    A subclass declares what `heads.outputs.Declarations` lists, or calls `declare` with itself and the heads that it is
    composed of. It implements
        canvas_stride(): pixels of which the sides of a canvas are multiples;
        call(inputs, training): a dict of the scalars in LOSSES and HEALTH if `self.ground_truth(inputs)` is not None,
            else a dict of tensors by the names in OUTPUTS. `self.normalise` prepares the pixels.

    Args:
        num_classes: classes without background.
        class_names: `num_classes` names, or None.
        image_size: (height, width) of the canvas, or None.
        resize: `inference.placement.Resize`, a dict of its fields, or None.
        stretch: two percentiles in [0, 100], such as (1, 99.8): the grey levels of each whole image are stretched so
            that they become 0 and the highest level, see `data.stretch`. `detect` and exported models do so themselves;
            training data must be `data.Stretched`. None keeps the pixels.
        channels: channels C of the images, 1 to 8; 3 are R, G, B.
        image_dtype: "uint8" or "uint16".
        pixel_mean: mean of each channel that the network expects, in levels of `image_dtype`; None for the attribute of
            this name of `backbone`, or ImageNet's if the model has no such backbone. These are of R, G, B of 8 bits:
            for another number of channels each channel has their mean, and for uint16 they are multiplied by 257. The
            configuration holds the values.
        pixel_std: standard deviation of each channel; None likewise.
        dtype: Keras dtype policy of the layers.
        name: name of the model.

    Attributes:
        OBJECT_FIELDS: names of the ground-truth fields that all models of a kind need, whatever their heads.
        detection: `heads.detection.Detection`. Without outputs of objects its thresholds have no effect.
        fields: names of all ground-truth fields that the model needs.

    Raises:
        ValueError: in one line, for `num_classes` below 1, class names of another number, a `stretch` that is not two
            ascending percentiles, or channels, dtype or statistics that are not possible.
    """

    OBJECT_FIELDS: tuple[str, ...] = ()
    detection = Detection()

    def __init__(
        self,
        num_classes: int,
        *,
        class_names: Sequence[str] | None = None,
        image_size: tuple[int, int] | None = None,
        resize: Options | dict | None = None,
        stretch: tuple[float, float] | None = None,
        channels: int = 3,
        image_dtype: str = "uint8",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        dtype: str | None = None,
        name: str | None = None,
    ):
        if not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise ValueError(f"num_classes={num_classes!r} must be a whole number of 1 or more (without background)")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names or ()):
            raise ValueError(f"class_names={class_names!r} must be a list of texts")
        refuse_background(class_names)
        # The model itself stays in float32, so that Keras casts no box to half precision; its layers get the policy.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.num_classes = int(num_classes)
        self.class_names = list(class_names) if class_names is not None else None
        self.image_size = None if image_size is None else _size(image_size)
        self.resize = Resize.of(resize)
        if stretch is not None and not (len(stretch) == 2 and 0 <= stretch[0] < stretch[1] <= 100):
            raise ValueError(f"stretch={stretch!r} must be two ascending percentiles in [0, 100], or None")
        self.stretch = tuple(stretch) if stretch is not None else None
        self._set_images(ImageType(channels, image_dtype), pixel_mean, pixel_std)
        self.layer_dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        if "float16" in self.layer_dtype.replace("bfloat16", ""):
            raise ValueError(
                f"dtype={self.layer_dtype!r} is not supported: use 'mixed_bfloat16', which needs no scaling"
            )
        self.loss_weights = {}
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps = keras.metrics.Sum(name="skipped_steps")
        # In a namespace, which Keras does not search for weights: it is no parameter, and is not saved.
        positions = np.full(REMEMBERED, -1, "int32")
        self._register = types.SimpleNamespace(positions=keras.Variable(positions, trainable=False, autocast=False))
        self._network = Network(self)
        self.declare(self)

    @property
    def skipped_images(self):
        """Variable int32 `[REMEMBERED]`: data-set positions of the images of skipped steps, latest first; -1: none."""
        return self._register.positions

    def declare(self, *heads):
        """Collect what heads declare: loss and health names, ground-truth fields, and the schema of the outputs.

        Raises:
            ValueError: if two heads declare the same name, or one that the model uses itself.
        """

        def names(kind):
            return tuple(name for head in heads for name in getattr(head, kind))

        self.loss_names, self.health_names, self.schema = names("LOSSES"), names("HEALTH"), names("OUTPUTS")
        self.fields = tuple(dict.fromkeys((*self.OBJECT_FIELDS, *names("FIELDS"))))
        for declared in (
            ["loss", "gradient_norm", "skipped_steps", *self.loss_names, *self.health_names],
            ["valid", *(output.name for output in self.schema)],
            ["num_detections", *(output.exported for output in self.schema if output.exported)],
        ):
            twice = sorted({name for name in declared if declared.count(name) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice)}: declared twice")
        self.loss_terms = {name: keras.metrics.Mean(name=name) for name in self.loss_names + self.health_names}

    def all_heads(self):
        """Heads by name; none unless a subclass has some."""
        return {}

    def __call__(self, inputs, *args, **kwargs):
        """Run `call`; raises a ValueError for inputs that are no dict of images and sizes."""
        if not (isinstance(inputs, dict) and {"images", "sizes"} <= set(inputs)):
            raise ValueError(
                f"{self.name} takes a dict of images [B, H, W, C] and sizes [B, 2]; detect takes images of any size"
            )
        return super().__call__(inputs, *args, **kwargs)

    # Input ------------------------------------------------------------------------------------------------------

    def ground_truth(self, inputs):
        """Ground truth among the inputs, see `heads.ground_truth`; None if there is none."""
        return ground_truth(inputs, self.fields)

    # Detection --------------------------------------------------------------------------------------------------

    @property
    def placement(self):
        """`inference.placement.Placement`: where images lie on the canvas."""
        return Placement(self.image_size, self.resize, self.canvas_stride(), self.stretch, self.image_type)

    @property
    def predictor(self):
        """`inference.predictor.Predictor` of this model; its compiled functions are kept until `compile`."""
        return Predictor(self._network, self.placement, self.schema, self.detection)

    def check_canvas(self, image_size):
        """Raises a ValueError for a canvas (height, width) whose sides are not multiples of the stride."""
        stride = self.canvas_stride()
        if any(side % stride for side in image_size):
            raise ValueError(f"image_size={tuple(image_size)} must be multiples of {stride}, the backbone's stride")

    # Saving -----------------------------------------------------------------------------------------------------

    def export(self, filepath, format=None, image_size=None, batch=None, weights=None, calibration=None):
        """Write a SavedModel, or a file for an inference engine, see `inference.export.export`.

        Args:
            filepath: a folder, or a file whose suffix gives the format.
            format: "saved_model" ("tf_saved_model" is the same), "onnx", "openvino", "litert", or None.
            image_size: of the images of an engine, for models without a canvas.
            batch: images per call of an engine.
            weights: "float16" or "int8" for smaller LiteRT files.
            calibration: images for an OpenVINO file in INT8.

        Raises:
            ValueError: for another format.
        """
        from keras_maskrcnn.inference.export import export

        export(self, filepath, format, image_size, batch, weights, calibration)

    def save(self, filepath, overwrite=True, zipped=None, **options):
        """Save the model, see `keras.Model.save`; a `.keras` file is complete, or as it was before.

        Raises:
            OSError: the file cannot be written; the one that was there is kept.
        """
        if not overwrite or not str(filepath).endswith(".keras") or "://" in str(filepath):
            super().save(filepath, overwrite, zipped, **options)
            return
        with atomic.replacing(filepath) as new:
            super().save(new, overwrite, zipped, **options)

    def get_config(self):
        """Constructor arguments that all models share."""
        return {
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "resize": self.resize.asdict(),
            "stretch": self.stretch,
            "channels": self.image_type.channels,
            "image_dtype": self.image_type.dtype,
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "dtype": self.layer_dtype,
            "name": self.name,
        }

    def load_own_variables(self, store):
        """Read the variables that belong to no layer, see `keras.Layer.load_own_variables`."""
        super().load_own_variables(compatibility.current_variables(store))

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        backbone = config.get("backbone")
        if isinstance(backbone, dict) and "class_name" in backbone:
            config = {**config, "backbone": keras.saving.deserialize_keras_object(backbone, custom_objects)}
        return cls(**config)


def _size(image_size):
    """(height, width) as ints."""
    sides = tuple(image_size) if isinstance(image_size, Sequence | np.ndarray) else ()
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in sides):
        raise ValueError(f"image_size={image_size!r} must be (height, width), two whole numbers of at least 1")
    return tuple(int(side) for side in sides)
