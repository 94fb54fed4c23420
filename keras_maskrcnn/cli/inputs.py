"""The files that `predict` reads: those in folders, patterns, lists on stdin and COCO files; videos and cameras."""

import contextlib
import dataclasses
import glob
import operator
import os
import pathlib
import sys

from keras_maskrcnn.data.errors import DataError

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
# Endings of pictures that Pillow does not read, or only with programs from elsewhere.
CONVERT = {".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".pdf", ".svg"}
ANNOTATIONS = ".json"
RECORDS = 1000  # of a COCO file, read at a time


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


class Listing:
    """The `Source`s of the inputs on a command line.

    Args:
        recursive: whether folders inside folders are read.
        tally: `progress.Tally`, which notes everything that is not read.
        shard: `shards.Shard`, or None for all files. With one, a folder is read in the order of the file system, so
            that its names are not in memory, and the images of a list are not looked up.

    Attributes:
        failures: number of inputs that could not be listed.
    """

    def __init__(self, recursive, tally, shard=None):
        self._recursive, self._tally, self._shard, self.failures = recursive, tally, shard, 0

    def sources(self, words):
        """Returns an iterator over the sources in the order of the words, without a shard sorted within folders.

        Args:
            words: paths of files and folders, patterns such as "photos/*.jpg", COCO files, "-" for paths on stdin (one
                a line), and "webcam" or the number of a camera.
        """
        return filter(self._shard.holds if self._shard else None, self._of(words))

    def _fail(self, error, path):
        self.failures += 1
        self._tally.failed(error, path)

    def _of(self, words):
        for word in words:
            path = pathlib.Path(word)
            if path.is_dir():
                yield from self._in_folder(path)
            elif path.exists():
                yield from self._named(path)
            elif word == "-":
                yield from self._listed(line.rstrip("\r\n") for line in sys.stdin)
            elif word == "webcam" or word.isdecimal():
                yield Source(None, 0 if word == "webcam" else int(word))
            elif glob.has_magic(word):
                yield from self._matching(word)
            else:
                self._fail("no such file or folder", word)

    def _listed(self, lines):
        for line in lines:
            path = pathlib.Path(line)
            if self._shard and path.suffix.lower() in IMAGES | VIDEOS | CONVERT:
                yield Source(path)
            elif line:
                yield from self._of([f"./{line}" if line == "-" else line])

    def _named(self, path):
        """A file that the user names is read whatever its ending is, unless no reader can read it."""
        if path.suffix.lower() in CONVERT:
            self._fail(reason(path), path)
        elif path.suffix.lower() == ANNOTATIONS:
            yield from self._annotated(path)
        else:
            yield Source(path)

    def _annotated(self, path):
        """The images that a COCO file lists."""
        from keras_maskrcnn import data

        try:
            coco = data.open(path)
            if not isinstance(coco, data.Coco):
                raise DataError(path, "is no COCO file; give the folder of its images")
            for start in range(0, len(coco), RECORDS):
                for record in coco.images[start : start + RECORDS]:
                    yield Source(coco.folder / record["file_name"])
        except (DataError, OSError) as error:
            self._fail(error, path)

    def _matching(self, pattern):
        found, paths = False, glob.iglob(pattern, recursive=True)
        for path in paths if self._shard else sorted(paths):
            found = True
            yield from self._chosen([pathlib.Path(path)])
        if not found:
            self._fail("no file matches this pattern", pattern)

    def _in_folder(self, folder):
        found, failed = False, self.failures
        for source in self._chosen(self._content(folder)):
            found = True
            yield source
        if not found and self.failures == failed:
            self._fail(f"no image in it ({', '.join(sorted(IMAGES))} are read)", folder)

    def _content(self, folder):
        """Yields the entries of a folder."""
        try:
            with os.scandir(folder) as entries:
                yield from entries if self._shard else sorted(entries, key=operator.attrgetter("name"))
        except OSError as error:
            self._fail(error, folder)

    def _chosen(self, entries):
        """Yields the sources among paths, or among entries of `os.scandir`, which know whether they are folders."""
        for entry in entries:
            path, is_folder = pathlib.Path(entry), False
            with contextlib.suppress(OSError):  # such as a link to itself
                is_folder = entry.is_dir()
            if is_folder and not self._recursive:
                self._tally.skipped("is a folder; --recursive reads it", path)
            elif is_folder and path.parent.resolve().is_relative_to(path.resolve()):
                self._tally.skipped("is a link to a folder that contains it", path)
            elif is_folder:
                yield from self._chosen(self._content(path))
            elif path.suffix.lower() in IMAGES | VIDEOS:
                yield Source(path)
            else:
                self._tally.skipped(reason(path), path)


def reason(path):
    """Why a file is not read, by its ending."""
    ending = path.suffix.lower()
    if ending in CONVERT:
        return f"{ending} is not read; convert it to JPEG or PNG"
    return f"{ending} is no ending of an image or video" if ending else "has no ending of an image or video"
