"""What `predict` reads: images, folders, patterns, lists on stdin, videos and cameras, as one stream of pictures."""

import dataclasses
import fractions
import glob
import pathlib
import sys

import numpy as np

from keras_maskrcnn.data.sample import DataError

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
# Endings of pictures that Pillow does not read, or only with programs from elsewhere.
CONVERT = {".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".pdf", ".svg"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file or a camera that pictures come from.

    Attributes:
        path: of the file, or None.
        camera: number of the camera, or None.
    """

    path: pathlib.Path | None
    camera: int | None = None

    @property
    def is_video(self):
        """Whether it has frames."""
        return self.camera is not None or self.path.suffix.lower() in VIDEOS

    def __str__(self):
        return str(self.path) if self.camera is None else f"camera {self.camera}"


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


class Names:
    """Names that do not repeat: the one asked for, with a number where an earlier one is the same."""

    def __init__(self):
        self._last = {}  # name: the last number that was tried for it

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


# From the command line to sources -----------------------------------------------------------------------------------


def sources(words, recursive, tally):
    """Yields the `Source`s of the inputs in their order, sorted within folders; `tally` notes all others.

    Args:
        words: paths of files and folders, patterns such as "photos/*.jpg", "-" for paths on stdin (one a line), and
            "webcam" or the number of a camera.
        recursive: whether folders inside folders are read.
        tally: `progress.Tally`.
    """
    for word in words:
        path = pathlib.Path(word)
        if path.is_dir():
            yield from _in_folder(path, recursive, tally)
        elif path.exists():
            yield from _named(path, tally)
        elif word == "-":
            lines = (line.rstrip("\r\n") for line in sys.stdin)
            yield from sources((f"./{line}" if line == "-" else line for line in lines if line), recursive, tally)
        elif word == "webcam" or word.isdecimal():
            yield Source(None, 0 if word == "webcam" else int(word))
        elif glob.has_magic(word):
            yield from _matching(word, recursive, tally)
        else:
            tally.failed("no such file or folder", word)


def _named(path, tally):
    """A file that the user names is read whatever its ending is, unless no reader can read it."""
    if path.suffix.lower() in CONVERT:
        tally.failed(reason(path), path)
    else:
        yield Source(path)


def _matching(pattern, recursive, tally):
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        tally.failed("no file matches this pattern", pattern)
    yield from _chosen(map(pathlib.Path, paths), recursive, tally)


def _in_folder(folder, recursive, tally):
    found, paths = 0, _content(folder, tally)
    for source in _chosen(paths or (), recursive, tally):
        found += 1
        yield source
    if not found and paths is not None:
        tally.failed(f"no image in it ({', '.join(sorted(IMAGES))} are read)", folder)


def _content(folder, tally):
    """The sorted paths in a folder, or None if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        tally.failed(error, folder)
        return None


def _chosen(paths, recursive, tally):
    for path in paths:
        if path.is_dir() and not recursive:
            tally.skipped("is a folder; --recursive reads it", path)
        elif path.is_dir() and path.parent.resolve().is_relative_to(path.resolve()):
            tally.skipped("is a link to a folder that contains it", path)
        elif path.is_dir():
            yield from _chosen(_content(path, tally) or (), recursive, tally)
        elif path.suffix.lower() in IMAGES | VIDEOS:
            yield Source(path)
        else:
            tally.skipped(reason(path), path)


def reason(path):
    """Why a file is not read, by its ending."""
    ending = path.suffix.lower()
    if ending in CONVERT:
        return f"{ending} is not read; convert it to JPEG or PNG"
    return f"{ending} is no ending of an image or video" if ending else "has no ending of an image or video"


# From sources to pictures -------------------------------------------------------------------------------------------


def pictures(sources, every, ids, image_type, tally):
    """Yields the `Picture`s of sources; `tally` notes the sources that cannot be read.

    Args:
        sources: iterable of `Source`.
        every: of videos, only each frame of this distance.
        ids: `coco_ids.CocoIds`, or None.
        image_type: `ImageType` of the pictures.
        tally: `progress.Tally`.
    """
    names, taken = Names(), {}
    for position, source in enumerate(sources, start=1):
        try:
            yield from (
                _frames(source, position, names, every, image_type)
                if source.is_video
                else [_picture(source, position, names, ids, image_type, taken)]
            )
        except Exception as error:
            tally.failed(error, source)


def _frames(source, position, names, every, image_type):
    from keras_maskrcnn.data.video import frames

    name = names.unique("webcam" if source.path is None else source.path.stem)
    for number, image, rate in frames(source.path or source.camera, every):
        frame = f"{name}/{number:06d}"
        yield Picture(source, position, frame, frame, image_type.convert(image), number, rate / every)


def _picture(source, position, names, ids, image_type, taken):
    from keras_maskrcnn.data.image_file import read_stored

    name = names.unique(source.path.stem)
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
