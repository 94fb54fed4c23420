"""Detections of a model on a data set, with a few images in memory at a time."""

import collections
import itertools
import logging

from keras_maskrcnn.data.sample import DataError

_log = logging.getLogger(__name__)


def predictions(model, dataset, score_threshold=0.0, max_detections=100, batch_size=8, limit=None, progress=False):
    """Yields each readable sample of a data set together with the model's detections in it.

    Only a few samples are in memory at the same time. A sample that cannot be read is skipped and named in a warning in
    the log, so that the others are still evaluated.

    Args:
        model: an object with `detect_each(images, score_threshold=, max_detections=, batch_size=)` for any iterable of
            images, as `MaskRCNN`; or with `detect(images, score_threshold=, max_detections=)` for a list.
        dataset: a reader: `len()`, `[i]` → sample, `class_names`.
        score_threshold: minimum score of a detection, 0..1.
        max_detections: maximum number of detections per image.
        batch_size: images per batch of the network; for a model with `detect` only, images per call.
        limit: number of images from the start of the data set; None for all.
        progress: whether to draw a Keras progress bar, one step per image.

    Yields:
        `(sample, found)`: dict of the sample, and dict of the detections in pixels of its image.

    Raises:
        ValueError: the model and the data set have different numbers of classes, or no image could be read.
    """
    check_classes(model, dataset)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    bar = _progress_bar(total) if progress else None
    done, samples = 0, collections.deque()

    def images():
        for sample in _readable(dataset, total):
            samples.append(sample)
            yield sample["image"]

    options = {"score_threshold": score_threshold, "max_detections": max_detections}
    for found in _detect_each(model, images(), batch_size, options):
        yield samples.popleft(), found
        done += 1
        if bar:
            bar.update(done)
    if samples:
        raise ValueError(f"the model returned {done} results for {done + len(samples)} images")
    if not done:
        raise ValueError(f"nothing to evaluate: none of the {total} images could be read")
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
    """Yields the first `total` samples; logs a warning for each one that cannot be read."""
    for index in range(total):
        try:
            yield dataset[index]
        except (DataError, OSError) as error:
            _log.warning("skipped sample %d of %d: %s", index, total, error)


def check_classes(model, dataset):
    """Raises a ValueError if the model has another number of classes than the data set."""
    known = getattr(model, "num_classes", None)
    if known is not None and known != len(dataset.class_names):
        names = ", ".join(dataset.class_names[:5]) + (", …" if len(dataset.class_names) > 5 else "")
        raise ValueError(f"the model has {known} classes but the data set has {len(dataset.class_names)}: {names}")


def _progress_bar(total):
    import keras

    return keras.utils.Progbar(total, unit_name="image")
