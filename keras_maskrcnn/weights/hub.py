"""Presets in repositories of the Hugging Face hub, through the package `huggingface_hub` (extra `hub`)."""

import pathlib
import re

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.weights.preset_folder import CONFIG, FILES, METADATA

SCHEME = "hf://"


def folder(address):
    """The local folder of a repository: downloaded, or from the hub's cache if that is complete or there is no network.

    Only the files of a preset are fetched. `HF_HOME`, `HF_HUB_OFFLINE` and the other variables of `huggingface_hub`
    apply.

    Args:
        address: "hf://user/name" or "hf://user/name@revision" (a branch, a tag or a commit).

    Returns:
        Path.

    Raises:
        ValueError: another form of address.
        DataError: the package is not installed, or the repository cannot be fetched; the message is one line.
    """
    match = re.fullmatch(re.escape(SCHEME) + r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise ValueError(f"{address}: write hf://user/name or hf://user/name@revision")
    try:
        import huggingface_hub
    except ImportError as error:
        raise DataError(address, "requires the package huggingface_hub: pip install huggingface_hub") from error
    repository, revision = match.groups()
    try:
        files = [CONFIG, METADATA, *FILES.values()]
        return pathlib.Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=files))
    except Exception as error:  # the package and its HTTP client raise exceptions of many classes
        raise DataError(address, f"cannot be fetched ({type(error).__name__}: {str(error)[:300]})") from error
