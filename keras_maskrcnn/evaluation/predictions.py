"""Detections of a model on a data set, with a few images in memory at a time."""

import collections
import itertools
import logging

import numpy as np

from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.semantic import label_map
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, maps, of_objects

_log = logging.getLogger(__name__)


def predictions(model, dataset, score_threshold=0.0, max_detections=100, batch_size=8, limit=None, progress=False):
    """Yields each readable sample of a data set together with the model's detections in it.

    Only a few samples are in memory at the same time. A sample that cannot be read is skipped, noted in
    `dataset.skipped` and named in a warning in the log, so that the others are still evaluated. If the model has the
    class names of the data set in another order, or further ones, its detections get the labels of the data set.

    Args:
        model: an object with `detect_each(images, score_threshold=, max_detections=, batch_size=)` for any iterable of
            images, as `MaskRCNN`; or with `detect(images, score_threshold=, max_detections=)` for a list.
        dataset: a reader: `len()`, `[i]` → sample, `class_names`.
        score_threshold: detections score higher than this, 0..1.
        max_detections: maximum number of detections per image.
        batch_size: images per batch of the network; for a model with `detect` only, images per call.
        limit: number of images from the start of the data set; None for all.
        progress: whether to draw a Keras progress bar, one step per image.

    Yields:
        `(sample, found)`: dict of the sample, and dict of the detections in pixels of its image.

    Raises:
        ValueError: the classes of the model and the data set do not match (see `check_classes`), or no image could be
            read.
        DataError: a sample of a strict data set cannot be read.
    """
    pairs = numbered_predictions(model, dataset, score_threshold, max_detections, batch_size, limit, progress)
    return ((sample, found) for _, sample, found in pairs)


def numbered_predictions(model, dataset, score_threshold, max_detections, batch_size, limit, progress):
    """`predictions` with the position of each sample in the data set: yields `(position, sample, found)`."""
    labels = check_classes(model, dataset)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    bar = _progress_bar(total) if progress else None
    done, samples = 0, collections.deque()

    def images():
        for position, sample in _readable(dataset, total):
            samples.append((position, sample))
            yield sample["image"]

    options = {"score_threshold": score_threshold, "max_detections": max_detections}
    for found in _detect_each(model, images(), batch_size, options):
        yield *samples.popleft(), found if labels is None else _relabelled(found, labels)
        done += 1
        if bar:
            bar.update(done)
    if samples:
        raise ValueError(f"the model returned {done} results for {done + len(samples)} images")
    if not done:
        raise NothingReadError(f"nothing to evaluate: none of the {total} images could be read")
    if done < total:
        _log.warning("%d of %d images could not be read; the scores are computed on the others", total - done, total)
    if bar:
        bar.update(done, finalize=True)


def _detect_each(model, images, batch_size, options):
    """Yields the detections per image, from `detect_each`, or from `detect` if the model has no `detect_each`."""
    if hasattr(model, "detect_each"):
        yield from model.detect_each(images, batch_size=batch_size, **options)
        return
    while chunk := list(itertools.islice(images, batch_size)):
        yield from model.detect(chunk, **options)


def _readable(dataset, total):
    """Yields those of the first `total` samples that can be read, with their positions, see `data.cache.skip`."""
    for index in range(total):
        try:
            yield index, dataset[index]
        except (DataError, OSError) as error:
            skip(dataset, error if isinstance(error, DataError) else DataError(f"sample {index}", error))


def finds_objects(model):
    """Whether a model has outputs of objects by its `schema`; one without a schema has."""
    return bool(of_objects(getattr(model, "schema", OUTPUTS)))


def check_classes(model, dataset):
    """The data set's label of each label of the model, matched by class name.

    The classes of a model without outputs of objects are those of the data set's `LabelMap` named "semantic".

    Returns:
        int32 `[K + 1]`, 0 for background and for classes that the data set does not have; None where the labels are the
        same, also if one side has no names.

    Raises:
        ValueError: the data set has classes that the model does not have, or their numbers differ and one side has no
            names.
    """
    ours, theirs = getattr(model, "class_names", None), _class_names(model, dataset)
    if theirs is None:
        return None
    count = len(ours) if ours else getattr(model, "num_classes", None)
    if ours and theirs and list(ours) != theirs:
        missing = [name for name in theirs if name not in ours]
        if missing:
            reason = f"the data set has the classes {_some(missing)}, which the model does not have"
            raise ValueError(f"{reason}; its classes are {_some(ours)}")
        labels = {name: label for label, name in enumerate(theirs, start=1)}
        return np.array([0, *(labels.get(name, 0) for name in ours)], np.int32)
    if count is not None and count != len(theirs):
        raise ValueError(f"the model has {count} classes but the data set has {len(theirs)}: {_some(theirs)}")
    return None


def _class_names(model, dataset):
    """Names of the classes that a model can be scored on; None if those of a label map are not known."""
    field = None if finds_objects(model) else label_map(dataset)
    if field is None:
        return list(dataset.class_names)
    return list(field.class_names[1:]) if field.class_names else None


def _some(names):
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _relabelled(found, labels):
    """Detections with the labels of the data set, without those of other classes, whose pixels are background."""
    if "labels" not in found:
        table = np.append(labels, np.zeros(256 - len(labels))).astype(np.uint8)
        return Detections({output.name: table[found[output.name]] for output in maps(found.schema)}, found.schema)
    found = Detections({**found, "labels": labels[found["labels"]]}, getattr(found, "schema", OUTPUTS))
    return found.rows(found["labels"] > 0)


class NothingReadError(ValueError):
    """No image of a data set could be read."""


def _progress_bar(total):
    import keras

    return keras.utils.Progbar(total, unit_name="image")
