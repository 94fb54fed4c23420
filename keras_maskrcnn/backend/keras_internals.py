"""The private parts of Keras that this package uses, each because Keras has no public equivalent (checked in 3.15)."""


def flatten_layers(layer):
    """List of `layer` and all layers nested in it; `keras.Model.layers` has one level only."""
    return layer._flatten_layers()


def decays(optimizer, variable):
    """Whether `exclude_from_weight_decay` left `variable` in."""
    return optimizer._use_weight_decay(variable)


def variable_index(optimizer, variable):
    """Index of `variable`, as passed to `update_step`, in the list that the optimizer was built with."""
    return optimizer._get_variable_index(variable)


def averages(optimizer):
    """Variables that hold the moving averages of the weights; empty unless the optimizer has `use_ema`."""
    return optimizer._model_variables_moving_average if optimizer.use_ema else []


def rate_source(optimizer):
    """What an optimizer takes its learning rate from: a variable, a schedule or a function."""
    return optimizer._learning_rate


class BuiltModel:
    """Mixin for models whose weights exist when they are made.

    Under `tf.distribute`, Keras averages the first batch over the replicas to build the model with it; bool and uint8
    have no mean.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing."""


class NoDecoupledDecay:
    """Mixin for Keras optimizers that apply `weight_decay` in `update_step`: switches Keras' own decay off."""

    def _apply_weight_decay(self, variables):
        """Nothing."""
