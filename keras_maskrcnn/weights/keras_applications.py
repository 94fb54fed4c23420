"""What the name maps of the classifiers in `keras.applications` have in common; `assign` calls these functions."""

from keras_maskrcnn.weights import rows


def plain(name):
    """The name."""
    return name


def spare(name):
    """Whether an array belongs to the classifier."""
    return name.startswith("predictions/")


def num_classes(arrays):
    """None: there are no heads for objects."""
    return


def conflict_with(conventions):
    """The function `conflict` of a map whose weights need these options of the backbone.

    It takes the model and the names of the arrays, and returns why the weights cannot be used with this backbone
    although names and shapes fit, or None if they can.
    """

    def conflict(model, names):
        del names
        return rows.other_options(model.backbone, conventions)

    return conflict
