"""Weight files of Keras 2 (.h5), as matterport's Mask R-CNN publishes them.

The attribute `layer_names` lists the layers; each layer is a group whose attribute `weight_names` lists its datasets.
A file of a whole model has the same below the group `model_weights`. Read with h5py (extra `convert`): datasets of
numbers only, never the model's configuration, in which Keras may keep Python code. What the bytes of a damaged file do
to HDF5's own C library is beyond this module.
"""

import itertools

import numpy as np

from keras_maskrcnn.pickles.safe_pickle import UnreadableError


def read(path):
    """Reads the weights of all layers.

    A weight is named by the last two parts of its entry in `weight_names`, "layer/weight". For a plain layer that is
    its own name; for the layers of a nested model, such as matterport's `rpn_model`, the inner layer's, whatever the
    group around it is called. An entry of one part alone takes the group's name in front.

    Args:
        path: str or Path.

    Returns:
        Dict from name, for example "res2a_branch2a/kernel:0", to array, in the order of the file.

    Raises:
        UnreadableError: No weight file of Keras 2, two weights of one name, or something other than plain numbers.
        ImportError: h5py is missing.
        OSError: The file is damaged.
    """
    import h5py

    arrays = {}
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for layer in _names(root, "layer_names"):
            for weight in _names(root[layer], "weight_names"):
                name = "/".join([layer, *weight.split("/")][-2:])
                if name in arrays:
                    raise UnreadableError(f"it has two weights called {name}")
                arrays[name] = _numbers(root[layer][weight], name)
    return arrays


def _names(group, attribute):
    """A list of names, which Keras cuts into `attribute`0, `attribute`1, … where HDF5's 64 KB do not hold it."""
    parts = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{part}" for part in itertools.count()))
    parts = [attribute] if attribute in group.attrs else list(parts)
    if not parts:
        raise UnreadableError(f"its group {group.name} has no {attribute}: no weight file of Keras 2")
    names = [name for part in parts for name in np.atleast_1d(group.attrs[part])]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _numbers(dataset, name):
    if getattr(dataset, "dtype", np.dtype("O")).kind not in "fiub":
        raise UnreadableError(f"{name} is no array of plain numbers")
    if dataset.external or dataset.is_virtual:
        raise UnreadableError(f"{name} lies in another file")
    if dataset.id.get_storage_size() != dataset.nbytes:
        raise UnreadableError(f"{name} has the shape {list(dataset.shape)} but {dataset.id.get_storage_size()} bytes")
    return dataset[()].astype(dataset.dtype.newbyteorder("="), copy=False)
