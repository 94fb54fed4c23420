"""Class weights from the frequencies of the classes in a data set."""

import numpy as np

from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.errors import DataError


def class_weights(dataset, power=1.0):
    """Factors of the classes for `compile(class_weights=…)`, by inverse frequency.

    A class of n instances gets a factor proportional to `n ** -power`, scaled so that the mean factor of the instances
    is 1. With `power=1` this is N / (K · n) for N instances of K classes: all classes weigh the same in total. Classes
    without instances are not counted, and get 1.

    Args:
        dataset: reader of the training samples; images are decoded only if it does not know the labels otherwise.
            Samples that cannot be read are skipped. A crowd region counts as one instance.
        power: 0 gives equal factors; 0.5 is milder, for a few rare classes among thousands of instances.

    Returns:
        dict from class names to factors.

    Raises:
        ValueError: the data set has no instance.
    """
    counts = np.zeros(dataset.num_classes + 1)
    for position in range(len(dataset)):
        try:
            counts += np.bincount(dataset.labels_at(position), minlength=len(counts))
        except DataError as error:
            skip(dataset, error)
    counts = counts[1:]
    if not counts.any():
        raise ValueError("the training set has no instance to derive class weights from")
    share = np.where(counts > 0, np.maximum(counts, 1) ** -float(power), 0.0)
    scaled = share * counts.sum() / (share @ counts)
    return {
        name: float(weight) if count else 1.0
        for name, weight, count in zip(dataset.class_names, scaled, counts, strict=True)
    }
