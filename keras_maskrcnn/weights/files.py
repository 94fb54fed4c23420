"""Reads published weight files as dicts of arrays, without executing code from them.

`read` detects the format from the first bytes:

    torch        torch.save, the zip format and the format before torch 1.6; torch is not required
    pickle       NumPy arrays in a Python pickle, as in detectron2's model zoo
    safetensors  requires the extra `convert`
    h5           Keras 2, as published by matterport; requires the extra `convert`

Files of the first three formats are memory-mapped: pages are read when their values are first used.
"""

import mmap
import pathlib
import re

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.pickles import numpy_pickle
from keras_maskrcnn.pickles.safe_pickle import UnreadableError
from keras_maskrcnn.weights import keras_h5, safetensors_file, torch_file

FORMATS = {
    "torchvision": ("torch", "safetensors"),
    "detectron2": ("pickle", "torch", "safetensors"),
    "matterport": ("h5",),
    "yolact": ("torch", "safetensors"),
    "efficientnet_lite": ("torch", "safetensors"),
}
WRAPPERS = ("model", "state_dict", "model_state_dict")
PICKLE = rb"\x80[\x02-\x05](\x95.{8})?"  # protocol and, since protocol 4, a frame
TORCH_LEGACY = PICKLE + rb"\x8a\x0a" + re.escape(torch_file.MAGIC.to_bytes(10, "little"))
SIGNATURES = {
    "h5": rb"\x89HDF\r\n\x1a\n",
    "safetensors": rb".{5}\0\0\0\{",  # length of the header as uint64, then the JSON header
    "torch zip": rb"PK\x03\x04",
    "torch legacy": TORCH_LEGACY,
    "pickle": PICKLE,
}
MISTAKEN = {
    "a web page: the download failed": rb"\s*<",
    "a Git LFS pointer, not the file itself": rb"version https://git-lfs",
}


def read(path, source=None):
    """Reads the arrays of a weight file.

    From torch and detectron2 checkpoints ({"model": …} or {"state_dict": …} with optimizer state and other entries)
    only the weights are returned. Names of .h5 files are "layer/weight", see `keras_h5.read`.

    Args:
        path: str or Path.
        source: key of FORMATS; files in formats that this source does not use are rejected. None accepts all formats.

    Returns:
        Dict from the names in the file to arrays in native byte order, in the order of the file. bfloat16 is converted
        to float32; other dtypes are kept. Arrays may be read-only views of the file, which must not be changed while
        they are in use.

    Raises:
        DataError: The file cannot be read; the message is one line with the file's name. No code from the file is
            executed.
        ValueError: The source is unknown.
    """
    if source is not None and source not in FORMATS:
        raise ValueError(f"source {source!r} is not one of {', '.join(FORMATS)}")
    try:
        data = _mapped(pathlib.Path(path))
        kind = _format(data[:64])
        if source and kind.split()[0] not in FORMATS[source]:
            raise UnreadableError(f"is a {kind} file; weights of {source} are {' or '.join(FORMATS[source])} files")
        return _arrays(path, data, kind)
    except DataError:
        raise
    except UnreadableError as error:
        raise DataError(path, error) from error.__cause__
    except ImportError as error:
        raise DataError(path, f'requires the package {error.name}: pip install "keras3-maskrcnn[convert]"') from error
    except Exception as error:  # parsers raise exceptions of any class for arbitrary bytes
        raise DataError(path, f"is damaged or incomplete ({type(error).__name__}: {str(error)[:200]})") from error


def _mapped(path):
    if not regular(path).is_file():
        raise UnreadableError("is a folder, not a file" if path.is_dir() else "no such file")
    if not path.stat().st_size:
        raise UnreadableError("is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _format(head):
    """The key of SIGNATURES that matches the first bytes of a file."""
    for kind, pattern in SIGNATURES.items():
        if re.match(pattern, head, re.DOTALL):
            return kind
    for mistake, pattern in MISTAKEN.items():
        if re.match(pattern, head):
            raise UnreadableError(f"is {mistake}")
    raise UnreadableError(f"starts with {head[:8]!r}: not a weight file of torch, safetensors, detectron2 or Keras 2")


def _arrays(path, data, kind):
    if kind == "h5":
        return keras_h5.read(path)
    if kind == "safetensors":
        return safetensors_file.read(path, data)
    if kind == "torch zip":
        return _state_dict(torch_file.read_zip(path, data))
    return _state_dict(torch_file.read_legacy(data) if kind == "torch legacy" else numpy_pickle.read(data))


def _state_dict(content):
    """The arrays of a pickled object: those of the weights in a checkpoint, or of the dict itself."""
    if not isinstance(content, dict):
        raise UnreadableError(f"contains a {type(content).__name__}, not a dict of weights")
    wrapped = (content[key] for key in WRAPPERS if key in content)
    tensors = next(filter(None, map(_tensors, wrapped)), None) or _tensors(content)
    if not tensors:
        entries = ", ".join(repr(key)[:40] for key in list(content)[:8])
        raise UnreadableError(f"contains no named weights, at the top or under {', '.join(WRAPPERS)}: {entries}")
    return {name: _named(name, tensor) for name, tensor in tensors.items()}


def _tensors(content):
    """The named tensors and arrays of a dict; empty for other objects."""
    kinds = torch_file.Tensor, numpy_pickle.Array
    items = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in items if isinstance(value, kinds) and isinstance(name, str)}


def _named(name, tensor):
    try:
        return tensor.array()
    except UnreadableError as error:
        raise UnreadableError(f"{name}: {error}") from error
