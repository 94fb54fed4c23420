"""Prediction under an engine that maps batches of rows, such as Ray Data, with the results of `predict --shard`.

The engine distributes the files and starts workers again; `Detector` is what a worker runs, and `write_coco` makes one
file of COCO results. `docs/predict.md` has an example. This module does not import the engine.
"""

import json
import pathlib

import numpy as np

from keras_maskrcnn.cli.inputs import Listing, Source
from keras_maskrcnn.cli.join import write_coco
from keras_maskrcnn.cli.progress import Tally
from keras_maskrcnn.data.errors import DataError

__all__ = ["Detector", "file_names", "write_coco"]


class Detector:
    """A function of a batch of files, which `ray.data.Dataset.map_batches` takes as a class; loads the model once.

    Args:
        model: str, as `--model` of `predict`.
        annotations: COCO file with the image and category ids of the results, or None.
        **options: `cli.finder.Options`, the options of `predict` of these names.

    Raises:
        ValueError: in one line, if the model cannot be opened, or does not have the options.
    """

    def __init__(self, model, annotations=None, **options):
        import keras_maskrcnn.quiet  # noqa: F401, before anything imports Keras
        from keras_maskrcnn.cli.common import load
        from keras_maskrcnn.cli.finder import Finder, Options

        path = None if annotations is None else pathlib.Path(annotations)
        self._finder = Finder(load(model), model, Options(**options), path)
        if not self._finder.finds_objects:
            raise DataError(model, "finds no objects")

    def __call__(self, batch):
        """The results of a batch of files.

        Args:
            batch: dict with `file_name`, a sequence of n paths of images or videos. Other columns are left out.

        Returns:
            dict of columns: `file_name`, array of str, and `record`, array of str, the line of JSON that
            `predict --shard` writes: of an image one, with its results or the reason why it cannot be read; of a video
            one for each frame and one at its end.
        """
        from keras_maskrcnn.cli.records import records

        sources = (Source(pathlib.Path(str(name))) for name in batch["file_name"])
        found = [(record["file_name"], json.dumps(record)) for _, record, _ in records(self._finder, sources)]
        names, lines = zip(*found, strict=True) if found else ((), ())
        return {"file_name": np.array(names, object), "record": np.array(lines, object)}


def file_names(*inputs, recursive=False):
    """Yields the paths of the files that `predict` reads of its inputs, as they are found.

    Args:
        *inputs: paths of files and folders, patterns, and COCO files.
        recursive: whether folders inside folders are read.
    """
    for source in Listing(recursive, Tally()).sources(inputs):
        yield str(source)
