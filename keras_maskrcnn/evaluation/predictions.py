"""A model's answers over a data set, a few images in memory at a time."""

import collections
import itertools
import logging

from keras_maskrcnn.data.sample import DataError

_log = logging.getLogger(__name__)


def predictions(model, dataset, score_threshold=0.0, max_detections=100, batch_size=8, limit=None, progress=False):
    """Yields each readable sample of a data set together with what the model finds in it.

    Only a few samples are in memory at once. A sample that cannot be read is skipped, and a warning that names
    it goes to the log: one broken file must not cost the evaluation of all others.

    Args:
        model: an object with `detect_each(images, score_threshold=, max_detections=, batch_size=)`, which takes any
            iterable, as `MaskRCNN.detect_each`; or with `detect(images, score_threshold=, max_detections=)`.
        dataset: a reader: `len()`, `[i]` → sample, `class_names`.
        score_threshold: detections scoring less are left out, 0..1.
        max_detections: most detections in an image.
        batch_size: images that go through the network together; of `detect`, images given to it in one call.
        limit: only the first `limit` images; None for all.
        progress: whether to draw a Keras progress bar, one step an image.

    Yields:
        `(sample, found)`: the sample's dict and the detections' dict in the pixels of the sample's image.

    Raises:
        ValueError: the model and the data set differ in their number of classes, or no image could be read.
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
    for found in _answers(model, images(), batch_size, options):
        yield samples.popleft(), found
        done += 1
        if bar:
            bar.update(done)
    if samples:
        raise ValueError(f"the model gave {done} answers to {done + len(samples)} images")
    if not done:
        raise ValueError(f"nothing to evaluate: none of the {total} images could be read")
    if done < total:
        _log.warning("%d of %d images could not be read; the figures are of the others", total - done, total)
    if bar:
        bar.update(done, finalize=True)


def _answers(model, images, batch_size, options):
    """Detections of images, one result at a time, from `detect_each` or, where a model has only that, from `detect`."""
    if hasattr(model, "detect_each"):
        yield from model.detect_each(images, batch_size=batch_size, **options)
        return
    while chunk := list(itertools.islice(images, batch_size)):
        yield from model.detect(chunk, **options)


def _readable(dataset, total):
    """Yields the first `total` samples; names in the log each one that cannot be read, and goes on."""
    for index in range(total):
        try:
            yield dataset[index]
        except (DataError, OSError) as error:
            _log.warning("skipped sample %d of %d: %s", index, total, error)


def check_classes(model, dataset):
    """Raises a ValueError where labels of the model could not mean the classes of the data set."""
    known = getattr(model, "num_classes", None)
    if known is not None and known != len(dataset.class_names):
        names = ", ".join(dataset.class_names[:5]) + (", …" if len(dataset.class_names) > 5 else "")
        raise ValueError(f"the model has {known} classes but the data set has {len(dataset.class_names)}: {names}")


def _progress_bar(total):
    import keras

    return keras.utils.Progbar(total, unit_name="image")
