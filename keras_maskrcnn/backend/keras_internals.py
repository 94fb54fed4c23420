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


class NoDecoupledDecay:
    """Mixin for Keras optimizers that apply `weight_decay` in `update_step`: switches Keras' own decay off."""

    def _apply_weight_decay(self, variables):
        """Nothing."""
