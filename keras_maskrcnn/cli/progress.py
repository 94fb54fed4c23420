"""What `predict` prints: a line for each image and video, a line for each input that fails or is skipped, and a sum."""

import sys
import threading

from keras_maskrcnn.cli.common import counted, fail


class Tally:
    """Prints and counts; files are read in a thread, so that two threads may call it.

    Args:
        debug: whether an error is raised instead of printed.
        total: number of the inputs, or None if it is not known before the end.
        noun: what is counted in a picture.
    """

    def __init__(self, debug=False, total=None, noun="object"):
        self.debug, self.total, self.noun = debug, total, noun
        self._lock, self._counts = threading.Lock(), dict.fromkeys(("images", "frames", "failed", "skipped"), 0)
        self._video, self._frames, self._objects, self._where = None, 0, 0, None
        self._failed = None  # the video whose last frame failed

    def failed(self, error, path, frame=None):
        """An input that cannot be processed; of the frames of a video that fail one after another only the first."""
        if self.debug and isinstance(error, Exception):
            raise error
        last, self._failed = self._failed, None if frame is None else path
        if frame is not None and last is path:
            return
        self._count("failed")
        fail(error, path)

    def skipped(self, reason, path):
        """A file that was not asked for by name and is not read."""
        self._count("skipped")
        print(f"skipped: {path}: {reason}", flush=True)

    def done(self, picture, objects, where):
        """A picture whose results are written; `where` is the file of the overlay, or None."""
        if picture.source is not self._video:
            self._end_of_video()
        if picture.frame is None:
            self._count("images")
            self._line(picture, counted(objects, self.noun), where)
            return
        self._count("frames")
        self._video, self._where = picture.source, (picture, where)
        self._frames, self._objects = self._frames + 1, self._objects + objects
        if sys.stderr.isatty():
            print(f"\r{picture.source}: frame {picture.frame}", end="", file=sys.stderr, flush=True)

    def finish(self):
        """Prints the sum; returns the exit code."""
        self._end_of_video()
        counts = self._counts
        done = counted(counts["images"], "image")
        done += f" and {counted(counts['frames'], 'frame')}" if counts["frames"] else ""
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        print(f"{done} done, {counts['failed']} failed{skipped}")
        return 2 if counts["failed"] else 0

    def _count(self, what):
        with self._lock:
            self._counts[what] += 1

    def _line(self, picture, content, where):
        position = f"{picture.position}/{self.total}" if self.total else picture.position
        print(f"[{position}] {picture.source}: {content}{f' -> {where}' if where else ''}", flush=True)

    def _end_of_video(self):
        if self._video is None:
            return
        if sys.stderr.isatty():
            print(file=sys.stderr)
        picture, where = self._where
        self._line(picture, f"{counted(self._frames, 'frame')}, {counted(self._objects, self.noun)}", where)
        self._video, self._frames, self._objects, self._where = None, 0, 0, None
