"""Public names of a package that are imported on first use (PEP 562)."""

import importlib
import sys


def exports(package, modules):
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: name of the package.
        modules: dict from public names to the names of the modules that define them.

    Returns:
        The two functions.
    """
    namespace = vars(sys.modules[package])

    def getattribute(name):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        return value

    return getattribute, lambda: sorted({*namespace, *modules})
