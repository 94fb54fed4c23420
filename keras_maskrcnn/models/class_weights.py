"""Factors of the classes in the classification loss."""

import numpy as np

BACKGROUND = "background"  # no class has this name


def plain(given):
    """Class weights with Python numbers, as a file can hold them: a dict, a list, or None."""
    if given is None:
        return None
    return {name: float(v) for name, v in given.items()} if isinstance(given, dict) else [float(v) for v in given]


def factors(given, class_names, num_classes):
    """Factor of background and of each class.

    Args:
        given: dict from class names, and "background", to factors, 1 where a name is absent; a sequence of a factor for
            each class, background having 1; or None.
        class_names: names of the K classes, or None.
        num_classes: K.

    Returns:
        float32 array `[K + 1]`, or None if `given` is None.

    Raises:
        ValueError: in one line, for unknown names, a wrong number of factors, or factors that are not finite and at
            least 0.
    """
    if given is None:
        return None
    values = [1.0, *given] if not isinstance(given, dict) else _by_name(given, class_names)
    if len(values) != num_classes + 1:
        raise ValueError(f"class_weights has {len(values) - 1} factors for {num_classes} classes")
    values = np.asarray(values, "float32")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"class_weights={given!r} must be finite numbers of at least 0")
    return values


def _by_name(given, class_names):
    if class_names is None:
        raise ValueError("class_weights has names of classes, and the model has none: give it class_names, or a list")
    unknown = sorted(set(given) - {BACKGROUND, *class_names})
    if unknown:
        raise ValueError(f"class_weights names {', '.join(unknown)}; the classes are {', '.join(class_names)}")
    return [given.get(name, 1.0) for name in (BACKGROUND, *class_names)]
