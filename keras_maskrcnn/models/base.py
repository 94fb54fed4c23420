"""What every model here shares: training step, loss bookkeeping, normalisation, detection, presets and export."""

import types

import keras
import numpy as np
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.backend.keras_internals import BuiltModel
from keras_maskrcnn.backend.network import Network
from keras_maskrcnn.data.image_type import ImageType
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.ground_truth import DTYPES, ground_truth
from keras_maskrcnn.heads.outputs import Declarations
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.models import class_weights as weights_of_classes
from keras_maskrcnn.models import compatibility
from keras_maskrcnn.models.images import Images
from keras_maskrcnn.models.presets import Presets

# Number of sample positions in `skipped_images`.
REMEMBERED = 64
# Names of background in other libraries, where it is class 0 and listed.
BACKGROUND = ("bg", "background")


class InstanceModel(Declarations, Detector, Images, Presets, BuiltModel, keras.Model):
    """Base of the instance segmentation models.

    A subclass declares what `heads.outputs.Declarations` lists, or calls `declare` with itself and the heads that it is
    composed of. It implements
        canvas_stride(): pixels of which the sides of a canvas are multiples;
        call(inputs, training): a dict of the scalars in LOSSES and HEALTH if `self.ground_truth(inputs)` is not None,
            else a dict of tensors `[B, D, ...]` by the names in OUTPUTS, and `valid` bool `[B, D]`. The thresholds of
            the call are `self.limits(inputs)`; `self.normalise` prepares the pixels.

    Args:
        num_classes: classes without background.
        class_names: `num_classes` names, or None.
        image_size: (height, width) of the canvas, or None.
        resize: `inference.placement.Resize`, a dict of its fields, or None.
        detection: `heads.detection.Detection`, a dict of its fields, or None.
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

    Raises:
        ValueError: in one line, for `num_classes` below 1, class names of another number, a `stretch` that is not two
            ascending percentiles, or channels, dtype or statistics that are not possible.
    """

    def __init__(
        self,
        num_classes,
        *,
        class_names=None,
        image_size=None,
        resize=None,
        detection=None,
        stretch=None,
        channels=3,
        image_dtype="uint8",
        pixel_mean=None,
        pixel_std=None,
        dtype=None,
        name=None,
    ):
        if not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise ValueError(f"num_classes={num_classes!r} must be a whole number of 1 or more (without background)")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        if not all(isinstance(name, str) for name in class_names or ()):
            raise ValueError(f"class_names={class_names!r} must be texts")
        background = [name for name in class_names or () if name.strip("_ ").lower() in BACKGROUND]
        if background:
            raise ValueError(f"class_names has {background[0]!r}: background is not a class here, labels start at 1")
        # The model itself stays in float32, so that Keras casts no box to half precision; its layers get the policy.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.num_classes = int(num_classes)
        self.class_names = list(class_names) if class_names is not None else None
        self.image_size = tuple(image_size) if image_size is not None else None
        self.resize = Resize.of(resize)
        self._detection = Detection.of(detection)
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
        self.class_weights = None
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps = keras.metrics.Sum(name="skipped_steps")
        # In a namespace, which Keras does not search for weights: it is no parameter, and is not saved.
        positions = np.full(REMEMBERED, -1, "int32")
        self._register = types.SimpleNamespace(positions=keras.Variable(positions, trainable=False, autocast=False))
        self._network = Network(self, self.detection)
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
        self.fields = tuple(dict.fromkeys(names("FIELDS")))
        for declared in (
            ["loss", "gradient_norm", "skipped_steps", *self.loss_names, *self.health_names],
            ["valid", *(output.name for output in self.schema)],
            ["num_detections", *(output.exported for output in self.schema if output.exported)],
        ):
            twice = sorted({name for name in declared if declared.count(name) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice)}: declared twice")
        self.loss_terms = {name: keras.metrics.Mean(name=name) for name in self.loss_names + self.health_names}

    # Input ------------------------------------------------------------------------------------------------------

    def ground_truth(self, inputs):
        """Ground truth among the inputs, see `heads.ground_truth`; None if there is none."""
        return ground_truth(inputs, self.fields)

    def limits(self, inputs):
        """`heads.detection.Limits` of a call: those among the inputs, else the model's own."""
        limits = self.detection.limits()
        return limits._replace(**{name: inputs[name] for name in limits._fields if name in inputs})

    # Detection --------------------------------------------------------------------------------------------------

    @property
    def detection(self):
        """`heads.detection.Detection`, fixed when the model is made; calls of `detect` take their own thresholds."""
        return self._detection

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

    # Training ---------------------------------------------------------------------------------------------------

    def compile(self, optimizer="rmsprop", *, loss_weights=None, class_weights=None, **kwargs):
        """Configure training. The losses are the model's own, so `loss` is not accepted.

        Args:
            optimizer: Keras optimizer.
            loss_weights: dict from names in `loss_names` to factors, 1 where a name is absent. Where all losses of a
                stage have the factor 0, none is computed, no batch statistic is updated, and they read 0.
            class_weights: factors of the errors of regions in the classification loss, by their true class: dict from
                class names, and "background", to factors, 1 where a name is absent; or a sequence of a factor for each
                class. See `training.class_weights`.
            **kwargs: passed on to `keras.Model.compile`, such as `jit_compile` and `run_eagerly`.

        Raises:
            ValueError: for a name that is not a loss of this model, class weights that do not fit its classes, or if
                `loss` or `metrics` is passed.
        """
        unknown = set(loss_weights or {}) - set(self.loss_names)
        if unknown:
            raise ValueError(
                f"loss_weights names {', '.join(sorted(unknown))}; the losses are {', '.join(self.loss_names)}"
            )
        if kwargs.get("loss") is not None or kwargs.get("metrics") is not None:
            raise ValueError(
                f"{type(self).__name__} computes its own losses and metrics: compile with an optimizer only"
            )
        self.loss_weights = dict(loss_weights or {})
        self.class_weights = weights_of_classes.plain(class_weights)
        if self.class_names or not isinstance(class_weights, dict):  # otherwise `fit` takes the names from the data
            self.class_factors  # noqa: B018 raises for weights that do not fit the classes
        super().compile(optimizer=optimizer, loss_weights=loss_weights, **kwargs)
        self._network = Network(self, self.detection)
        # All weights exist already. Slots made while a step is traced would make TensorFlow trace it twice.
        self.optimizer.build(self.trainable_variables)

    @property
    def class_factors(self):
        """Factors of background and of the classes in the classification loss, float32 `[K + 1]`; None without."""
        return weights_of_classes.factors(self.class_weights, self.class_names, self.num_classes)

    def left_out(self, *names):
        """Whether all these losses have the weight 0."""
        return all(self.loss_weights.get(name, 1.0) == 0 for name in names)

    def get_compile_config(self):
        """What `compile_from_config` needs."""
        config = super().get_compile_config()
        return config and {**config, "class_weights": self.class_weights}

    def compile_from_config(self, config):
        """Compile as the saved model was, loss and class weights included."""
        config = keras.saving.deserialize_keras_object(config)
        # Not jit_compile: whether XLA pays off depends on the machine that loads, not on the one that saved.
        keep = {"optimizer", "loss_weights", "class_weights", "run_eagerly", "steps_per_execution"}
        self.compile(**{key: value for key, value in config.items() if key in keep})

    def fit(self, x=None, y=None, **kwargs):
        """Train, see `keras.Model.fit`; `x` is a result of `data.batches`.

        The canvas size and the class names of the data become the model's where it has none; the data follows the
        antialiasing of the model's resize rule.

        Raises:
            ValueError: if `x` is a data set instead of batches, or has other or more classes than the model, another
            resize rule, no ground truth that the model needs, or a canvas that the backbone cannot take; or if the
            class weights name other classes.
        """
        if isinstance(x, Dataset):
            raise ValueError("fit takes batches: data.batches(dataset, image_size, batch_size)")
        self.adopt(x)
        self.class_factors  # noqa: B018 raises before the step is traced
        if not isinstance(x, keras.utils.PyDataset):
            kwargs.setdefault("shuffle", False)  # Keras would warn that it cannot shuffle data that comes in batches
        return super().fit(x, y, **kwargs)

    def adopt(self, data):
        """Takes canvas, class names and resize rule of a result of `data.batches`, as `fit` does.

        For `fit` on an iterator over the batches, which does not have them. Errors as for `fit`.
        """
        self._adopt(data)
        self._follow(data)

    def evaluate(self, x=None, y=None, **kwargs):
        """The losses on `x`, a result of `data.batches`, see `keras.Model.evaluate`.

        Raises:
            ValueError: if the images of `x` are resized by another rule than the model's.
        """
        self._follow(x)  # `fit` calls this method for its `validation_data`
        return super().evaluate(x, y, **kwargs)

    def _follow(self, data):
        """Have `data.batches` resize images by the model's rule, which `detect` applies too."""
        if hasattr(data, "rows"):
            data.rows.prepare.follow(self.resize.antialias, self.resize.keep_aspect)

    def _adopt(self, data):
        names = getattr(data, "class_names", None)
        if names is not None and len(names) > self.num_classes:
            raise ValueError(f"the data has {len(names)} classes, the model num_classes={self.num_classes}")
        if names and self.class_names and list(names) != self.class_names[: len(names)]:
            raise ValueError(f"the data's classes are {list(names)}, the model's {self.class_names}: they must agree")
        batch = data.element_spec if hasattr(data, "element_spec") else None
        if isinstance(data, keras.utils.PyDataset):
            batch = data[0]
        if batch is not None:
            self._adopt_batch(_merged(batch))
        if names is not None and len(names) == self.num_classes and self.class_names is None:
            self.class_names = list(names)

    def _adopt_batch(self, batch):
        """Check the fields and the images of a batch; take its canvas, which gives `detect` the scale of the training.

        With the option `scale` of `resize`, that is the scale of the training, and crops may have any canvas.
        """
        missing = [name for name in (*DTYPES, *self.fields) if name not in batch]
        if missing:
            raise ValueError(f"the data has no {', '.join(missing)}, which {self.name} is trained with")
        self.check_images(batch["images"])
        if self.image_size is not None:
            return
        canvas = tuple(batch["images"].shape[1:3])
        self.check_canvas(canvas)
        if self.resize.scale is not None:
            return
        self.image_size = canvas
        if self.resize != Resize():
            print(f"{self.name}: image_size {canvas} of the data replaces the preset's resize rule")

    def train_step(self, *args):
        """One training step: one forward pass gives the losses; see `backend.tensorflow.train_step`."""
        *state, data = args
        if backend.is_tensorflow():
            from keras_maskrcnn.backend.tensorflow.train_step import train_step

            return train_step(self, _merged(data))
        return super().train_step(*state, (_merged(data),))

    def test_step(self, *args):
        """One evaluation step: the losses without an update."""
        *state, data = args
        return super().test_step(*state, (_merged(data),))

    @property
    def metrics(self):
        """The model's metrics, which replace Keras' own."""
        return [self.loss_metric, *self.loss_terms.values(), self.gradient_norm, self.skipped_steps]

    def total_loss(self, terms):
        """Weighted sum of the loss terms, scalar, plus the layers' regularisation losses."""
        if self.loss_names[0] not in terms:
            needed = ", ".join((*DTYPES, *self.fields))
            raise ValueError(f"the data has no ground truth: x, y = batch must hold {needed}")
        total = sum(self.loss_weights.get(name, 1.0) * terms[name] for name in self.loss_names)
        return total + sum(self.losses) if self.losses else total

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """`total_loss` of the terms in `y_pred`; updates the metric "loss"."""
        loss = self.total_loss(y_pred)
        self.loss_metric.update_state(loss, sample_weight=ops.shape(x["images"])[0])
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Update the running mean of every term and return them with the loss."""
        for name, metric in self.loss_terms.items():
            metric.update_state(y_pred[name])
        return {metric.name: metric.result() for metric in (self.loss_metric, *self.loss_terms.values())}

    # Saving -----------------------------------------------------------------------------------------------------

    def export(self, filepath, format="tf_saved_model"):
        """Write a SavedModel that takes images and returns detections, see `inference.export.saved_model`.

        Raises:
            ValueError: for another format.
        """
        from keras_maskrcnn.inference.export import saved_model

        if format != "tf_saved_model":
            raise ValueError(f"format={format!r} is not supported; the only one is 'tf_saved_model'")
        saved_model(self, filepath)

    def get_config(self):
        """Constructor arguments that all models share."""
        return {
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "resize": self.resize.asdict(),
            "detection": self.detection.asdict(),
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
        return cls(**config)


def _merged(data):
    """One dict of inputs from (x, y), (x,) or x: ground truth reaches `call` together with the images."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return {**x, **(y or {})}
