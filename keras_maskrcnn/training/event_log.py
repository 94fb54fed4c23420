"""TensorBoard event files, written and read with the tensorboard package only, on every Keras backend."""

import io
import math
import os
import pathlib
import socket
import struct
import time

from PIL import Image

from keras_maskrcnn.data.errors import DataError

LONGEST = 2**16  # bytes of an event that `read_scalars` reads: those of images are longer


class EventLog:
    """A TensorBoard event file in a folder, created with the first value.

    Values of earlier files in the folder from the step of the first value on, such as those of an epoch that is trained
    again, are no longer shown. Files are read in the order of their names, which begin with the time: where the clock
    has been set back, the name has a later time than the files before it.

    tensorboard's own `EventFileWriter` writes in a thread, which prints a traceback of its own on a full disk.

    Args:
        folder: path of the folder, created if missing.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        self._writer = None

    def scalar(self, tag, value, step):
        """Adds a value to the curve `tag`."""
        self._add(step, tag=tag, simple_value=float(value))

    def image(self, tag, image, step):
        """Adds an image, uint8 `[H, W, 3]`, to the series `tag`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        height, width = image.shape[:2]
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
        self._add(step, tag=tag, image=encoded)

    def flush(self):
        """Writes all values to disk, so that they survive if the process is killed."""
        if self._writer:
            self._writer.flush()

    def close(self):
        """Flushes and closes the file; the next value creates another file in the same folder."""
        if self._writer:
            self._writer.close()
        self._writer = None

    def _add(self, step, **value):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        def write(**content):
            self._writer.write(Event(wall_time=time.time(), **content).SerializeToString())

        if self._writer is None:
            self._writer = RecordWriter(open(_new_file(self.folder), "xb"))  # noqa: SIM115, `close` closes it
            write(file_version="brain.Event:2")
            write(step=step, session_log=SessionLog(status=SessionLog.START))
        write(step=step, summary=Summary(value=[Summary.Value(**value)]))


def _new_file(folder):
    """The path of a new event file, whose name comes after those of the files in the folder, which is created."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    latest = max((int(stamp) for stamp in before if stamp.isdecimal()), default=0)
    stamp = max(int(time.time()), latest + 1)
    return folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"


def read_scalars(folder):
    """The curves in the event files of a folder, which `EventLog` or another program wrote. Images are skipped.

    A file whose writer was killed, or found the disk full, may end within an event; that event is left out.

    Args:
        folder: path of the folder; one without event files has no curves.

    Returns:
        dict from tags to lists of floats, one value for each step that any curve has; NaN where a curve has none.

    Raises:
        DataError: in one line, if a file is damaged.
    """
    curves = {}
    for path in filter(pathlib.Path.is_file, sorted(pathlib.Path(folder).glob("events.out.tfevents.*"))):
        for event in _events(path):
            if event.session_log.status == event.session_log.START:
                for curve in curves.values():  # what this file repeats
                    for step in [step for step in curve if step >= event.step]:
                        del curve[step]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    curves.setdefault(value.tag, {})[event.step] = value.simple_value
    steps = sorted({step for curve in curves.values() for step in curve})
    return {tag: [curve.get(step, math.nan) for step in steps] for tag, curve in curves.items()}


def _events(path):
    """The events of a file that are shorter than `LONGEST`; see `data.tf_record_file` for the format."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    content, at = memoryview(path.read_bytes()), 0
    try:
        while at < len(content):
            if len(content) < at + 12:
                return
            (length,) = struct.unpack_from("<Q", content, at)
            at += 12 + length + 4
            if len(content) < at:
                return
            if length < LONGEST:
                yield Event.FromString(bytes(content[at - 4 - length : at - 4]))
    except (struct.error, DecodeError) as error:
        raise DataError(path, f"is damaged ({error})") from error
