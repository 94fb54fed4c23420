"""Base of the models that find objects."""

from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.ground_truth import DTYPES
from keras_maskrcnn.models import class_weights as weights_of_classes
from keras_maskrcnn.models.image_model import ImageModel


class InstanceModel(ImageModel):
    """Base of the models of object detection and instance segmentation.

    A subclass implements what `ImageModel` lists; of its `call`, without ground truth,
        tensors of objects are `[B, D, ...]`, and `valid` bool `[B, D]` marks the rows that hold an object;
        the thresholds are `self.limits(inputs)`.

    Args:
        num_classes: classes without background.
        detection: `heads.detection.Detection`, a dict of its fields, or None.
        **common: further arguments of `ImageModel`.

    Raises:
        ValueError: as `ImageModel`, and for options of `detection` outside their ranges.
    """

    OBJECT_FIELDS = tuple(DTYPES)
    COMPILED = (*ImageModel.COMPILED, "class_weights")

    def __init__(self, num_classes, *, detection=None, **common):
        super().__init__(num_classes, **common)
        self._detection = Detection.of(detection)
        self.class_weights = None

    @property
    def detection(self):
        """`heads.detection.Detection`, fixed when the model is made; calls of `detect` take their own thresholds."""
        return self._detection

    def limits(self, inputs):
        """`heads.detection.Limits` of a call: those among the inputs, else the model's own."""
        limits = self.detection.limits()
        return limits._replace(**{name: inputs[name] for name in limits._fields if name in inputs})

    # Class weights ----------------------------------------------------------------------------------------------

    def compile(self, optimizer="rmsprop", *, loss_weights=None, class_weights=None, **kwargs):
        """Configure training, see `OwnLosses.compile`.

        Args:
            optimizer: Keras optimizer.
            loss_weights: dict from names in `loss_names` to factors.
            class_weights: factors of the errors of regions in the classification loss, by their true class: dict from
                class names, and "background", to factors, 1 where a name is absent; or a sequence of a factor for each
                class. See `training.class_weights`.
            **kwargs: passed on to `keras.Model.compile`.

        Raises:
            ValueError: also for class weights that do not fit the model's classes.
        """
        self.class_weights = weights_of_classes.plain(class_weights)
        if self.class_names or not isinstance(class_weights, dict):  # otherwise `fit` takes the names from the data
            self.class_factors  # noqa: B018 raises for weights that do not fit the classes
        super().compile(optimizer, loss_weights=loss_weights, **kwargs)

    @property
    def class_factors(self):
        """Factors of background and of the classes in the classification loss, float32 `[K + 1]`; None without."""
        return weights_of_classes.factors(self.class_weights, self.class_names, self.num_classes)

    def adopt(self, data):
        """Takes canvas, class names and resize rule of a result of `data.batches`, see `OwnLosses.adopt`.

        Raises:
            ValueError: also if the class weights name other classes.
        """
        super().adopt(data)
        self.class_factors  # noqa: B018 raises before the step is traced

    def get_compile_config(self):
        """What `compile_from_config` needs."""
        config = super().get_compile_config()
        return config and {**config, "class_weights": self.class_weights}

    def get_config(self):
        """Constructor arguments that all models of objects share."""
        return {**super().get_config(), "detection": self.detection.asdict()}
