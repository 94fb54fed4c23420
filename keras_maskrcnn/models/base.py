"""What every model here shares: the step, loss bookkeeping, normalisation, presets and export."""

import keras
import numpy as np
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.models import options, presets
from keras_maskrcnn.models.detector import Detector
from keras_maskrcnn.ops import images as image_ops

# How many sample positions `skipped_images` remembers.
REMEMBERED = 64


class InstanceModel(Detector, keras.Model):
    """Base of the instance segmentation models.

    A subclass implements `call(inputs, training)`: a dict of the loss terms named in `LOSSES` (and further figures)
    where ground truth is among the inputs, a dict of detections where it is not.

    Args:
        num_classes: classes without background.
        class_names: `num_classes` names or None.
        image_size: (height, width) of the canvas, or None.
        resize: `options.Resize`, a dict of its fields, or None.
        detection: `options.Detection`, a dict of its fields, or None.
        pixel_mean: three values.
        pixel_std: three values.
        dtype: Keras dtype policy of the layers.
        name: name of the model.
    """

    LOSSES = ()
    HEALTH = ()

    def __init__(self, num_classes, class_names, image_size, resize, detection, pixel_mean, pixel_std, dtype, name):
        if not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise ValueError(f"num_classes={num_classes!r} must be a whole number of 1 or more (without background)")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class names for {num_classes} classes")
        # The model itself stays in float32, so that Keras casts no box to half precision; its layers get the policy.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.num_classes = int(num_classes)
        self.class_names = list(class_names) if class_names is not None else None
        self.image_size = tuple(image_size) if image_size is not None else None
        self.resize = options.Resize.of(resize)
        self.detection = options.Detection.of(detection)
        self.pixel_mean, self.pixel_std = tuple(pixel_mean), tuple(pixel_std)
        self.layer_dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name
        if "float16" in self.layer_dtype.replace("bfloat16", ""):
            raise ValueError(
                f"dtype={self.layer_dtype!r} is not supported: use 'mixed_bfloat16', which needs no scaling"
            )
        self.loss_weights = {}
        self.loss_terms = {name: keras.metrics.Mean(name=name) for name in self.LOSSES + self.HEALTH}
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps = keras.metrics.Sum(name="skipped_steps")
        self.skipped_images = self.add_weight(
            name="skipped_images",
            shape=(REMEMBERED,),
            dtype="int32",
            initializer=keras.initializers.Constant(-1),
            trainable=False,
            autocast=False,
        )
        self._predict_functions = {}

    # Input ------------------------------------------------------------------------------------------------------

    def normalise(self, images, sizes):
        """Pixels 0…255 to standardised float32, zero in the padding right of and below each picture."""
        mean, std = (np.asarray(v, "float32") for v in (self.pixel_mean, self.pixel_std))
        height, width = ops.shape(images)[1:3]
        # Rows of 3·W numbers: broadcasting along an inner axis of 3 takes TensorFlow four times as long.
        rows = ops.cast(ops.reshape(images, (-1, height, 3 * width)), "float32")
        rows = (rows - ops.tile(mean, [width])) / ops.tile(std, [width])
        inside = image_ops.inside(height, 3 * width, ops.ceil(sizes) * np.array([1, 3], "float32"))
        return ops.reshape(ops.where(inside, rows, 0.0), (-1, height, width, 3))

    # Training ---------------------------------------------------------------------------------------------------

    def compile(self, optimizer="rmsprop", *, loss_weights=None, **kwargs):
        """Configure training. The losses are the model's own, so `loss` is not taken.

        Args:
            optimizer: Keras optimizer.
            loss_weights: dict from names in `LOSSES` to factors; what is not named counts once. Of a
                stage whose losses all have the factor 0 no loss is computed, no batch statistic moves, and they read 0.
            **kwargs: passed on to `keras.Model.compile`, such as `jit_compile` and `run_eagerly`.

        Raises:
            ValueError: for a name that is no loss of this model, or if `loss` or `metrics` is passed.
        """
        unknown = set(loss_weights or {}) - set(self.LOSSES)
        if unknown:
            raise ValueError(
                f"loss_weights names {', '.join(sorted(unknown))}; the losses are {', '.join(self.LOSSES)}"
            )
        if kwargs.get("loss") is not None or kwargs.get("metrics") is not None:
            raise ValueError(
                f"{type(self).__name__} computes its own losses and metrics: compile with an optimizer only"
            )
        self.loss_weights = dict(loss_weights or {})
        self._predict_functions = {}
        super().compile(optimizer=optimizer, loss_weights=loss_weights, **kwargs)
        # All weights exist already. Slots made while a step is traced would make TensorFlow trace it twice.
        self.optimizer.build(self.trainable_variables)

    def left_out(self, *names):
        """Whether all these losses have the weight 0, so that nobody needs them."""
        return all(self.loss_weights.get(name, 1.0) == 0 for name in names)

    def compile_from_config(self, config):
        """Compile as the saved model was, loss weights included."""
        config = keras.saving.deserialize_keras_object(config)
        # Not jit_compile: whether XLA pays off depends on the machine that loads, not on the one that saved.
        keep = {"optimizer", "loss_weights", "run_eagerly", "steps_per_execution"}
        self.compile(**{key: value for key, value in config.items() if key in keep})

    def fit(self, x=None, y=None, **kwargs):
        """Train, see `keras.Model.fit`; `x` is what `data.batches` makes.

        The canvas size and the class names of the data become the model's where it has none.

        Raises:
            ValueError: if the data has more classes than the model, or a canvas that the backbone cannot take.
        """
        self._adopt(x)
        if not isinstance(x, keras.utils.PyDataset):
            kwargs.setdefault("shuffle", False)  # Keras would warn that it cannot shuffle what comes in batches
        return super().fit(x, y, **kwargs)

    def _adopt(self, data):
        names = getattr(data, "class_names", None)
        if names is not None and len(names) > self.num_classes:
            raise ValueError(f"the data has {len(names)} classes, the model num_classes={self.num_classes}")
        if self.image_size is None:
            self._adopt_canvas(data)
        if names is not None and len(names) == self.num_classes and self.class_names is None:
            self.class_names = list(names)

    def _adopt_canvas(self, data):
        """Take the data's canvas, so that pictures are found at the scale that was trained."""
        if hasattr(data, "element_spec"):
            canvas = tuple(data.element_spec[0]["images"].shape[1:3])
        elif isinstance(data, keras.utils.PyDataset):
            canvas = tuple(data[0][0]["images"].shape[1:3])
        else:
            return
        self.check_canvas(canvas)
        self.image_size = canvas
        if self.resize != options.Resize():
            print(f"{self.name}: image_size {canvas} of the data replaces the preset's resize rule")

    def train_step(self, *args):
        """One step of training: one forward pass gives the losses; see `backend.tensorflow.train_step`."""
        *state, data = args
        if backend.is_tensorflow():
            from keras_maskrcnn.backend.tensorflow.train_step import train_step

            return train_step(self, _merged(data))
        return super().train_step(*state, (_merged(data),))

    def test_step(self, *args):
        """One step of evaluation: the losses without an update."""
        *state, data = args
        return super().test_step(*state, (_merged(data),))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Weighted sum of the loss terms in `y_pred`, scalar, plus the layers' regularisation losses."""
        if self.LOSSES[0] not in y_pred:
            raise ValueError("the data has no ground truth: x, y = batch must hold boxes, labels, masks, crowd, valid")
        total = sum(self.loss_weights.get(name, 1.0) * y_pred[name] for name in self.LOSSES)
        return total + sum(self.losses) if self.losses else total

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Update the running mean of every term and return them with the loss."""
        for name, metric in self.loss_terms.items():
            metric.update_state(y_pred[name])
        return {"loss": self._loss_tracker.result(), **{name: m.result() for name, m in self.loss_terms.items()}}

    # Saving -----------------------------------------------------------------------------------------------------

    def export(self, filepath, **kwargs):
        """Write a SavedModel that takes pictures and gives detections, see `keras_maskrcnn.export.saved_model`."""
        from keras_maskrcnn.export import saved_model

        saved_model(self, filepath, **kwargs)

    @classmethod
    def from_preset(cls, name, num_classes=None, weights=None, **overrides):
        """Make a model from a named configuration.

        Args:
            name: a preset, see `keras_maskrcnn.models.presets.names`.
            num_classes: classes without background; None takes those of the preset's published weights.
            weights: path of a file to load, or None for random weights: `.weights.h5` of this library, or what the
                preset's source published, see `keras_maskrcnn.weights.load`.
            **overrides: constructor arguments that replace the preset's; of a group of options given as a dict, the
                named ones alone (of the backbone too: `backbone={"name": "resnet101"}` keeps its norm).

        Raises:
            ValueError: for an unknown name; and what `weights.load` raises.
        """
        preset = presets.read(name)
        classes = preset["weights"]["classes"] if num_classes is None else num_classes
        model = cls(classes, **presets.merged(preset["config"], overrides))
        if weights is not None and str(weights).endswith(".weights.h5"):
            model.load_weights(weights)
        elif weights is not None:
            from keras_maskrcnn.weights import load

            load(model, weights, preset["weights"]["source"])
        return model

    def get_config(self):
        """Constructor arguments that all models share."""
        return {
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "resize": self.resize.asdict(),
            "detection": self.detection.asdict(),
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "dtype": self.layer_dtype,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        config = dict(config)
        if "class_name" in config["backbone"]:
            config["backbone"] = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**config)


def _merged(data):
    """One dict of inputs from (x, y), (x,) or x: ground truth travels to `call` beside the images."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return {**x, **(y or {})}
