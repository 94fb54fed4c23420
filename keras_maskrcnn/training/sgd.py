"""Stochastic gradient descent as the detection papers ran it: weight decay is part of the gradient."""

import keras
from keras import ops

from keras_maskrcnn.backend.keras_internals import NoDecoupledDecay, decays, variable_index


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class SGD(NoDecoupledDecay, keras.optimizers.SGD):
    """SGD with coupled weight decay, the same numbers as `torch.optim.SGD`, learning-rate schedules included.

    For a weight w, its gradient g, velocity v (zero at first), momentum m, decay d and this step's learning rate r:

        g = g + d * w
        v = m * v + g
        w = w - r * v                (nesterov: w - r * (g + m * v))

    `keras.optimizers.SGD` differs in two ways. It takes `r * d * w` from the weight beside the momentum, so that a
    decay from a published recipe acts about 1 / (1 - m) times too weakly. And its velocity holds the learning rate of
    the steps that filled it, so that the two agree only while the rate is constant: not in a warm-up, nor after a drop.

    Gradients are clipped, accumulated and averaged as in any Keras optimizer, before the decay is added. Biases and
    the scales of normalisation decay too, as in torch, unless `exclude_from_weight_decay` names them.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        momentum: float in 0…1.
        nesterov: whether to look ahead along the velocity.
        weight_decay: factor d of the L2 penalty `d / 2 * |w|²`, or None.
        **kwargs: of `keras.optimizers.Optimizer`, such as `global_clipnorm`, `use_ema`, `gradient_accumulation_steps`.

    Raises:
        ValueError: for a momentum outside 0…1.
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=None, **kwargs):
        super().__init__(learning_rate, momentum, nesterov, weight_decay, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        """Move one variable."""
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
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
