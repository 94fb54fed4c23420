"""Opens every set in a path for inspection, also COCO files with records that `data.Coco` refuses."""

import functools
import json
import pathlib
import tempfile
import weakref

from keras_maskrcnn.data import formats
from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.doctor.coco_records import without_bad_records
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.labelme import LabelMe
from keras_maskrcnn.data.yolo import Yolo


def sets_in(path, images=None):
    """Opens the sets in a file or folder.

    Args:
        path: str or Path.
        images: folder of the images of `path`, which is then a COCO JSON file; None for where formats have them.

    Yields:
        (name, dataset, faults): `dataset` is None where the set cannot be opened; `faults` are pairs of a place and
        what is wrong there: of that set, or of records that a COCO file is read without.

    Raises:
        DataError: no format fits.
    """
    parts = {"all": functools.partial(Coco, path, images)} if images else formats.parts(path)
    for name, opener in parts.items():
        try:
            yield name, opener(), []
        except DataError as error:
            dataset, faults = _leniently(opener)
            yield name, dataset, faults if dataset is not None else [(error.source, error.reason)]


def _leniently(opener):
    """(dataset, faults) of a set that is read without the files or records at fault; (None, []) where that fails."""
    reader, broken = getattr(opener, "func", None), {}
    if reader is Coco:
        return _coco(opener)
    if reader not in (LabelMe, Yolo):
        return None, []
    try:
        return opener(broken=broken), list(broken.items())
    except DataError:
        return None, []


class _Sound(Coco):
    """Reads a COCO file without the records at fault, from a copy that is deleted with the reader."""

    keeps_index = False

    def __init__(self, path, images, content, **options):
        temporary = tempfile.TemporaryDirectory()
        weakref.finalize(self, temporary.cleanup)
        copy = pathlib.Path(temporary.name) / path.name
        copy.write_text(json.dumps(content))
        super().__init__(copy, images, **options)
        self.path = path


def _coco(opener):
    path, folder = map(pathlib.Path, opener.args[:2])
    try:
        content, faults = without_bad_records(read_json(path))
        return _Sound(path, folder, content, **opener.keywords), faults
    except (OSError, ValueError, RecursionError):  # DataError is a ValueError
        return None, []
