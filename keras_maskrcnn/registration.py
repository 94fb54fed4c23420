"""Registers the serialisable classes with Keras as soon as both packages are imported, in either order.

`keras.saving.load_model` finds classes by name only if their modules were imported. Importing them together with this
package would load Keras and its backend for every `--help`.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys

# Modules whose classes a saved model may contain.
MODULES = ("keras_maskrcnn.models", "keras_maskrcnn.training.schedules", "keras_maskrcnn.training.sgd")


def register():
    """Import the modules; their classes register themselves."""
    for module in MODULES:
        importlib.import_module(module)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Calls `register` when Keras has been imported."""

    def find_spec(self, name, path=None, target=None):
        """The spec of Keras with a loader that also registers; None for every other module."""
        if name != "keras":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                sys.meta_path.remove(self)
                load(module)
                register()

            spec.loader.exec_module = exec_module
        return spec


def register_with_keras():
    """Register now if Keras is imported already, else when it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())
