"""Training of models that compute their own losses: `compile`, `fit`, `evaluate`, and the steps between."""

import math

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.backend.network import Network
from keras_maskrcnn.data.coco_names import is_background
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.inference.placement import Resize
from keras_maskrcnn.options import check_number


def refuse_background(class_names):
    """Raises a ValueError if there is a class of background, which gets no label here."""
    if found := [name for name in class_names or () if is_background(name)]:
        raise ValueError(f"class_names has {found[0]!r}: background is not a class here, labels start at 1")


class OwnLosses:
    """Mixin for models whose `call` returns the losses where the ground truth is among its inputs.

    Attributes:
        COMPILED: names of the arguments of `compile` that a saved model keeps.
    """

    # Not jit_compile: whether XLA pays off depends on the machine that loads, not on the one that saved.
    COMPILED: tuple[str, ...] = ("optimizer", "loss_weights", "run_eagerly", "steps_per_execution")

    def compile(self, optimizer="rmsprop", *, loss_weights=None, **kwargs):
        """Configure training. The losses are the model's own, so `loss` is not accepted.

        Args:
            optimizer: Keras optimizer.
            loss_weights: dict from names in `loss_names` to factors, 1 where a name is absent. Where all losses of a
                stage have the factor 0, none is computed, no batch statistic is updated, and they read 0.
            **kwargs: passed on to `keras.Model.compile`, such as `jit_compile` and `run_eagerly`.

        Raises:
            ValueError: for a name that is not a loss of this model, a factor that is not a finite number of at least 0,
                or if `loss`, `metrics` or `weighted_metrics` is passed.
        """
        _check_loss_weights(loss_weights, self.loss_names)
        if any(kwargs.get(name) is not None for name in ("loss", "metrics", "weighted_metrics")):
            raise ValueError(
                f"{type(self).__name__} computes its own losses and metrics: compile with an optimizer only"
            )
        self.loss_weights = dict(loss_weights or {})
        if getattr(self, "_distribute_strategy", None) is not None and kwargs.get("jit_compile", "auto") == "auto":
            kwargs["jit_compile"] = False  # the step of replicas needs the operations that XLA lacks
        super().compile(optimizer=optimizer, loss_weights=loss_weights, **kwargs)
        self._network = Network(self)
        # All weights exist already. Slots made while a step is traced would make TensorFlow trace it twice.
        self.optimizer.build(self.trainable_variables)

    def left_out(self, *names):
        """Whether all these losses have the weight 0."""
        return all(self.loss_weights.get(name, 1.0) == 0 for name in names)

    def compile_from_config(self, config):
        """Compile as the saved model was."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{name: value for name, value in config.items() if name in self.COMPILED})

    def fit(self, x=None, y=None, **kwargs):
        """Train, see `keras.Model.fit`; `x` is a result of `data.batches`.

        The canvas size and the class names of the data become the model's where it has none; the data follows the
        antialiasing of the model's resize rule.

        Raises:
            ValueError: if `x` is a data set instead of batches, or has other or more classes than the model, another
            resize rule, no ground truth that the model needs or another form of it, a class of the name of background,
            or a canvas that the backbone cannot take; for `class_weight` and `sample_weight`.
        """
        if isinstance(x, Dataset):
            raise ValueError("fit takes batches: data.batches(dataset, image_size, batch_size)")
        _check_unweighted(kwargs)
        self.adopt(x)
        if not isinstance(x, keras.utils.PyDataset):
            kwargs.setdefault("shuffle", False)  # Keras would warn that it cannot shuffle data that comes in batches
        if "validation_data" in kwargs:
            self._follow(kwargs["validation_data"])
            kwargs["validation_data"] = self._distributed(kwargs["validation_data"])
        return super().fit(self._distributed(x), y, **kwargs)

    def adopt(self, data):
        """Takes canvas, class names and resize rule of a result of `data.batches`, as `fit` does.

        For `fit` on an iterator over the batches, which does not have them. Errors as for `fit`.
        """
        self._adopt(data)
        self._follow(data)

    def evaluate(self, x=None, y=None, **kwargs):
        """The losses on `x`, a result of `data.batches`, see `keras.Model.evaluate`.

        Raises:
            ValueError: if the images of `x` are resized by another rule than the model's, or its classes are others.
        """
        _check_unweighted(kwargs)
        self._follow(x)
        return super().evaluate(self._distributed(x), y, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Outputs for batches of the network's input, see `keras.Model.predict`; `detect` is for images.

        Raises:
            ValueError: if `x` is an array.
        """
        if hasattr(x, "shape"):
            raise ValueError("predict takes batches of data.batches; model.detect(image) finds the objects in an image")
        return super().predict(x, *args, **kwargs)

    def _distributed(self, data):
        """A process's part of the batches, as the strategy takes it that the model was made under."""
        strategy = getattr(self, "_distribute_strategy", None)
        if strategy is None:
            return data
        from keras_maskrcnn.backend.tensorflow.workers import distributed

        return distributed(strategy, data)

    def _follow(self, data):
        """Have `data.batches` resize images by the model's rule, as `detect` does; check its classes and masks."""
        if not hasattr(data, "rows"):
            return
        self._checked_names(data)
        data.rows.prepare.follow(self.resize.antialias, self.resize.keep_aspect)
        for head in self.all_heads().values():
            head.check_prepared(data.rows.prepare)

    def class_names_of(self, data):
        """Names of the classes in a result of `data.batches`; None if they are not known."""
        return getattr(data, "class_names", None)

    def _checked_names(self, data):
        """`class_names_of` data; raises a ValueError unless its classes are the first ones of the model."""
        names = self.class_names_of(data)
        refuse_background(names)
        if names is not None and len(names) > self.num_classes:
            raise ValueError(f"the data has {len(names)} classes, the model num_classes={self.num_classes}")
        if names and self.class_names and list(names) != self.class_names[: len(names)]:
            raise ValueError(f"the data's classes are {list(names)}, the model's {self.class_names}: they must agree")
        return names

    def _adopt(self, data):
        names = self._checked_names(data)
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
        missing = [name for name in self.fields if name not in batch]
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
            raise ValueError(f"the data has no ground truth: x, y = batch must hold {', '.join(self.fields)}")
        total = sum(self.loss_weights.get(name, 1.0) * terms[name] for name in self.loss_names)
        return total + sum(self.losses) if self.losses else total

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """`total_loss` of the terms in `y_pred`; updates the metric "loss"."""
        loss = self.total_loss(y_pred)
        self.loss_metric.update_state(loss, sample_weight=ops.shape(x["images"])[0])
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Update the running mean of every term over the images, and return them with the loss."""
        for name, metric in self.loss_terms.items():
            metric.update_state(y_pred[name], sample_weight=ops.shape(x["images"])[0])
        return {metric.name: metric.result() for metric in (self.loss_metric, *self.loss_terms.values())}


def _merged(data):
    """One dict of inputs from (x, y), (x,) or x: ground truth reaches `call` together with the images."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    _check_unweighted({"sample_weight": weight})
    return {**x, **(y or {})}


def _check_unweighted(options):
    """Raises a ValueError for weights that the model's own losses do not have."""
    for name in ("class_weight", "sample_weight"):
        if options.get(name) is not None:
            raise ValueError(f"{name} is not supported: compile(class_weights=...) has the factors of the classes")


def _check_loss_weights(given, names):
    """Raises a ValueError unless the argument of `compile` is None or a dict from names of losses to factors."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise ValueError(f"loss_weights={given!r} must be a dict from names of losses: {', '.join(names)}")
    unknown = sorted(str(name) for name in given if name not in names)
    if unknown:
        raise ValueError(f"loss_weights names {', '.join(unknown)}; the losses are {', '.join(names)}")
    for name, factor in given.items():
        check_number(f"the loss weight of {name}", factor, 0, math.inf)
