"""The pictures in the sources of `predict`, and what a model finds in them."""

import collections
import dataclasses
import fractions
import itertools

import numpy as np

from keras_maskrcnn.cli.inputs import CONVERT, Source, reason
from keras_maskrcnn.data.errors import DataError

# Sources without a picture, one after another, that are read before what is known of them is passed on.
MOST_UNREAD = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """An image to detect objects in.

    Attributes:
        source: `Source`.
        position: of the source among all, from 1.
        name: of its results, without suffix; of a frame, "VIDEO/FRAME".
        image_id: in the COCO results.
        image: uint8 or uint16 [H, W, C].
        frame: position in the video, or None.
        rate: the video's frames per second, or None.
    """

    source: Source
    position: int
    name: str
    image_id: object
    image: np.ndarray
    frame: int | None = None
    rate: fractions.Fraction | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """The end of a video, or of any source that cannot be read further.

    Attributes:
        source: `Source`.
        error: the exception, or None at the end of a video.
    """

    source: Source
    error: Exception | None = None
    frame = None


class Names:
    """Names that do not repeat: the stem of a file, with a number where an earlier file has the same."""

    def __init__(self):
        self._last = {}  # name: the last number that was tried for it

    def of(self, source):
        """The name of a source."""
        return self.unique("webcam" if source.path is None else source.path.stem)

    def unique(self, wanted):
        """The name to use for a wanted one."""
        name = wanted
        while name in self._last:
            self._last[wanted] += 1
            name = f"{wanted}_{self._last[wanted]}"
        self._last[name] = 1
        return name


def unique_names(files):
    """Names of the results of files: their stems, with a number where an earlier file has the same."""
    names = Names()
    return [names.unique(path.stem) for path in files]


def pictures(sources, every, ids, image_type, name_of):
    """Yields the `Picture`s of sources; an `End` for each video, and for each source that cannot be read.

    Args:
        sources: iterable of `Source`.
        every: of videos, only each frame of this distance.
        ids: `coco_ids.CocoIds`, or None.
        image_type: `ImageType` of the pictures.
        name_of: function of a source that returns the name of its results.
    """
    taken = {}
    for position, source in enumerate(sources, start=1):
        try:
            if source.is_video:
                yield from _frames(source, position, name_of(source), every, image_type)
                yield End(source)
            else:
                yield _picture(source, position, name_of(source), ids, image_type, taken)
        except Exception as error:
            yield End(source, error)


def _frames(source, position, name, every, image_type):
    from keras_maskrcnn.data.video import frames

    for number, image, rate in frames(source.path or source.camera, every):
        frame = f"{name}/{number:06d}"
        yield Picture(source, position, frame, frame, image_type.convert(image), number, rate / every)


def _picture(source, position, name, ids, image_type, taken):
    from keras_maskrcnn.data.image_file import read_stored

    if source.path.suffix.lower() in CONVERT:
        raise DataError(source, reason(source.path))
    if ids is None:
        return Picture(source, position, name, name, read_stored(source.path, image_type).turned())
    record = ids.record(source.path)
    first = taken.setdefault(record["id"], source)
    if first is not source:
        raise DataError(source, f"has the file name of {first} in {ids.path}")
    image = _fitted(read_stored(source.path, image_type), (record["height"], record["width"]))
    return Picture(source, position, name, record["id"], image)


def _fitted(stored, size):
    """The image in the orientation that has the size in the COCO file."""
    if size not in stored.sizes:
        (height, width), *_ = stored.sizes
        raise DataError(stored.path, f"is {width} x {height} pixels, but {size[1]} x {size[0]} in the COCO file")
    return stored.fitted(size, stored.path.parent)


# From pictures to detections ----------------------------------------------------------------------------------------


def detections(model, items, options):
    """Yields each item of `pictures` with its `Detections`, the exception that ended them, or None for an `End`.

    A picture that fails does not stop the others. While the model works, a thread reads the next pictures.

    Args:
        model: an object with `detect_each`.
        items: iterator of `pictures`.
        options: dict of keyword arguments of `detect_each`.
    """
    waiting = collections.deque()  # items without detections so far, in order
    again, reading = [], _Reading(items, waiting)
    while again or not reading.ended:
        try:
            for found in model.detect_each(itertools.chain(again, reading.images()), **options):
                yield from _ends(waiting)
                yield waiting.popleft(), found
            again = []
        except Exception as error:
            yield from _ends(waiting)
            if not waiting:
                raise
            # Results come in order: the first picture without one has failed.
            yield waiting.popleft(), error
            again = [item.image for item in waiting if isinstance(item, Picture)]
        yield from _ends(waiting)


class _Reading:
    """Images of the pictures among items; `ended` after the last item. Every item is appended to `waiting`."""

    def __init__(self, items, waiting):
        self.ended, self._items, self._waiting = False, items, waiting

    def images(self):
        """Yields images until `MOST_UNREAD` items without one follow each other, so that these are passed on."""
        unread = 0
        for item in self._items:
            self._waiting.append(item)
            unread += 1
            if isinstance(item, Picture):
                unread = 0
                yield item.image
            elif unread == MOST_UNREAD:
                return
        self.ended = True


def _ends(waiting):
    """Yields the first items up to the first picture."""
    while waiting and isinstance(waiting[0], End):
        yield waiting.popleft(), None
