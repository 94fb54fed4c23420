"""Tools around `model.fit`: optimizer, schedules, callbacks, alternating training; each imported on first use."""

import importlib

_MODULES = {
    "SGD": "sgd",
    "CocoEval": "callbacks",
    "Cosine": "schedules",
    "EventLog": "event_log",
    "SkippedSteps": "callbacks",
    "Steps": "schedules",
    "WarmUp": "schedules",
    "alternate": "alternating",
    "warmup_cosine": "schedules",
    "warmup_steps": "schedules",
}
__all__ = list(_MODULES)


def __getattr__(name):
    """Imports a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
