"""Learning rates of single layers as factors of the optimizer's, such as a tenth for pretrained features."""

from keras import ops

from keras_maskrcnn.backend.keras_internals import variable_index
from keras_maskrcnn.models.freezing import named_layers


def layer_rates(model, factors):
    """Factors of the learning rate by the paths of a model's variables, for `training.SGD` and `training.AdamW`.

    The paths are those of the model as it is now, and those of the models here are the same in a loaded file. Those of
    a `keras.Sequential` are not.

    Args:
        model: a model with `parts()`, such as a `MaskRCNN`.
        factors: dict from starts of layers' names, such as "backbone", "backbone/stage1" or "box_head/fc", to factors
            of at least 0. Where several match, the longest one holds. 0 keeps a layer as it is; `frozen` also leaves
            out its gradients.

    Returns:
        dict from paths to factors, without variables that nothing matches.

    Raises:
        ValueError: for a start that no layer's name has, or a negative factor.
    """
    named = named_layers(model)
    for start, factor in factors.items():
        if not any(name.startswith(start) for name in named):
            raise ValueError(f"no layer's name starts with {start!r}; the parts are {', '.join(model.parts())}")
        if not factor >= 0:
            raise ValueError(f"factor {factor!r} of {start!r} must be at least 0")
    found = {}
    for start in sorted(factors, key=len):
        layers = (layer for name, layer in named.items() if name.startswith(start))
        found.update({weight.path: float(factors[start]) for layer in layers for weight in layer.trainable_variables})
    return found


class LayerRates:
    """Mixin for Keras optimizers: the argument `layer_rates`, which the configuration holds too."""

    def __init__(self, *args, layer_rates=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_rates = dict(layer_rates or {})

    def build(self, variables):
        """Create the optimizer's variables, and look up the factors of the model's."""
        super().build(variables)
        self._factors = tuple(self.layer_rates.get(variable.path, 1.0) for variable in variables)

    def rate_of(self, variable, learning_rate):
        """The learning rate of a variable, in its dtype."""
        factor = self._factors[variable_index(self, variable)] if self.layer_rates else 1.0
        rate = ops.cast(learning_rate, variable.dtype)
        return rate if factor == 1.0 else ops.multiply(rate, ops.cast(factor, variable.dtype))

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "layer_rates": dict(self.layer_rates)}
