"""Registers the serialisable classes with Keras as soon as both packages are imported, in either order.

`keras.saving.load_model` finds classes by name only if their modules were imported. Importing them together with this
package would load Keras and its backend for every `--help`.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys

# Modules whose classes a saved model may contain.
MODULES = (
    "keras_maskrcnn.models",
    "keras_maskrcnn.heads.keypoint",
    "keras_maskrcnn.heads.semantic",
    "keras_maskrcnn.training.adamw",
    "keras_maskrcnn.training.schedules",
    "keras_maskrcnn.training.sgd",
)


def register():
    """Import the modules; their classes register themselves."""
    for module in MODULES:
        importlib.import_module(module)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Calls `register` once Keras has been imported.

    Keras may be imported by a module of this package that is itself being imported. Then the next import of any module
    registers, for the classes cannot be imported before that module is complete.
    """

    def find_spec(self, name, path=None, target=None):
        """The spec of Keras with a loader that also registers; None for every other module."""
        if name != "keras":
            self._register_if_possible()
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                self._register_if_possible(loaded=True)

            spec.loader.exec_module = exec_module
        return spec

    def _register_if_possible(self, loaded=False):
        keras = sys.modules.get("keras")
        if keras is None or not (loaded or _is_complete(keras)):
            return
        ours = [module for name, module in sys.modules.items() if name.startswith("keras_maskrcnn.")]
        if all(map(_is_complete, ours)) and self in sys.meta_path:
            sys.meta_path.remove(self)
            register()


def _is_complete(module):
    return not getattr(getattr(module, "__spec__", None), "_initializing", False)


def register_with_keras():
    """Register now if Keras is imported already, else when it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())
