"""Base of the option groups: small frozen dataclasses, made from keywords or from the dict that a config stores."""

import dataclasses
from typing import Self


@dataclasses.dataclass(frozen=True)
class Options:
    """A frozen group of options. Lists become tuples, so that every group is hashable."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _as_tuple(getattr(self, field.name)))

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


def _as_tuple(value):
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value
