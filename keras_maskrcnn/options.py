"""Base of the option groups: small frozen dataclasses, made from keywords or from the dict that a config stores."""

import dataclasses
import math
import numbers
import typing
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True)
class Options:
    """A frozen group of options. Lists and arrays become tuples, so that every group is hashable.

    Attributes:
        RANGES: least and greatest values of fields by their names. Fields with the annotation int hold whole numbers.

    Raises:
        ValueError: in one line, for a value outside its range.
    """

    RANGES: typing.ClassVar[dict[str, tuple[float, float]]] = {}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _as_tuple(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            kinds = typing.get_args(field.type) or (field.type,)
            if field.name in self.RANGES and not (value is None and type(None) in kinds):
                check_number(field.name, value, *self.RANGES[field.name], whole=float not in kinds)

    @classmethod
    def of(cls, value) -> Self:
        """An instance from an instance, a dict of fields, or None for the defaults.

        Raises:
            ValueError: naming the fields that do not exist.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} must be a dict or {cls.__name__}")
        unknown = set(value) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}")
        return cls(**value)

    def asdict(self):
        """Fields as a dict, for `get_config`."""
        return dataclasses.asdict(self)


def check_choice(name, value, choices):
    """Raises a ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_number(name, value, least, most, whole=False):
    """Raises a ValueError unless `value` is a finite number, or a whole one, from `least` to `most`."""
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not (least <= value <= most and math.isfinite(value)):
        limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r} must be a {'whole ' if whole else ''}number {limits}")


def check_positive(name, values, count=None):
    """Raises a ValueError unless `values` is a tuple of finite numbers above 0: `count` of them, or at least one."""
    fits = isinstance(values, tuple) and len(values) > 0 and count in (None, len(values))
    if not fits or not all(isinstance(v, numbers.Real) and 0 < v < math.inf for v in values):
        raise ValueError(f"{name}={values!r} must hold {count or 'one or more'} numbers greater than 0")


def _as_tuple(value):
    if isinstance(value, np.ndarray | np.generic):  # JSON holds Python's numbers only
        value = value.tolist()
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value
