"""AdamW with learning rates of single layers."""

from collections.abc import Callable, Mapping

import keras
from keras import ops

from keras_maskrcnn.backend.keras_internals import NoDecoupledDecay, decays
from keras_maskrcnn.training.rates import LayerRates


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class AdamW(LayerRates, NoDecoupledDecay, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, and factors of the learning rate for single variables; equal to it without them.

    A factor scales a variable's step and its weight decay, like the learning rate of a parameter group in torch.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        weight_decay: factor of the decoupled decay, which is multiplied by the learning rate.
        layer_rates: dict from paths of variables to factors, see `training.layer_rates`; None for 1 everywhere.
        **kwargs: further arguments of `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        weight_decay: float = 0.004,
        layer_rates: Mapping[str, float] | None = None,
        **kwargs,
    ):
        super().__init__(learning_rate, weight_decay, layer_rates=layer_rates, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        rate = self.rate_of(variable, learning_rate)
        if self.weight_decay is not None and decays(self, variable):
            self.assign_sub(variable, variable * ops.cast(self.weight_decay, variable.dtype) * rate)
        super().update_step(gradient, variable, rate)
