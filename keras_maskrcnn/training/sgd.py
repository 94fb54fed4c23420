"""Stochastic gradient descent with weight decay as part of the gradient, as in the detection papers."""

from collections.abc import Callable, Mapping

import keras
from keras import ops

from keras_maskrcnn.backend.keras_internals import NoDecoupledDecay, decays, variable_index
from keras_maskrcnn.training.rates import LayerRates


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SGD(LayerRates, NoDecoupledDecay, keras.optimizers.SGD):
    """SGD with coupled weight decay, equal to `torch.optim.SGD`, also with learning-rate schedules.

    For a weight w, its gradient g, velocity v (zero at first), momentum m, decay d and this step's learning rate r:

        g = g + d * w
        v = m * v + g
        w = w - r * v                (nesterov: w - r * (g + m * v))

    `keras.optimizers.SGD` differs in two ways. It subtracts `r * d * w` from the weight outside the momentum, so that
    the decay of a published recipe is too weak by a factor of about 1 / (1 - m). And its velocity includes the learning
    rate of past steps, so that the two agree only while the rate is constant, not during a warm-up or after a drop.

    Gradients are clipped, accumulated and averaged as in any Keras optimizer, before the decay is added. As in torch,
    biases and the scales of normalisations decay too, unless excluded by `exclude_from_weight_decay`.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        momentum: float in 0…1.
        nesterov: whether to use Nesterov momentum.
        weight_decay: factor d of the L2 penalty `d / 2 * |w|²`, or None.
        layer_rates: dict from paths of variables to factors of the learning rate, see `training.layer_rates`; None for
            1 everywhere.
        **kwargs: arguments of `keras.optimizers.Optimizer`, such as `global_clipnorm`, `use_ema`,
            `gradient_accumulation_steps`.

    Raises:
        ValueError: for a momentum outside 0…1.
    """

    def __init__(
        self,
        learning_rate: float | Callable = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        layer_rates: Mapping[str, float] | None = None,
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, nesterov, weight_decay, layer_rates=layer_rates, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        rate, gradient = self.rate_of(variable, learning_rate), ops.cast(gradient, variable.dtype)
        if self.weight_decay is not None and decays(self, variable):
            gradient = ops.add(gradient, ops.multiply(variable, ops.cast(self.weight_decay, variable.dtype)))
        if self.momentum:
            gradient = self._with_velocity(gradient, variable)
        self.assign_sub(variable, ops.multiply(gradient, rate))

    def _with_velocity(self, gradient, variable):
        velocity = self.momentums[variable_index(self, variable)]
        momentum = ops.cast(self.momentum, variable.dtype)
        self.assign(velocity, ops.add(ops.multiply(velocity, momentum), gradient))
        return ops.add(gradient, ops.multiply(velocity, momentum)) if self.nesterov else velocity
