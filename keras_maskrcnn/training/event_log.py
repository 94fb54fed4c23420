"""TensorBoard event files, written with the tensorboard package only, on every Keras backend."""

import io
import time

from PIL import Image


class EventLog:
    """A TensorBoard event file in a folder, created with the first value.

    Values of earlier files in the folder from the step of the first value on, such as those of an epoch that is trained
    again, are no longer shown.

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
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(self.folder)
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
        summary = Summary(value=[Summary.Value(**value)])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
