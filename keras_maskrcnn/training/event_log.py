"""Writes what TensorBoard reads, with the tensorboard package alone: the same on every Keras backend."""

import io
import time

from PIL import Image


class EventLog:
    """A TensorBoard event file in a folder; the file is made at the first value.

    Args:
        folder: path of the folder, made if it is missing.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        self._writer = None

    def scalar(self, tag, value, step):
        """Adds one number to the curve `tag`."""
        self._add(step, tag=tag, simple_value=float(value))

    def image(self, tag, picture, step):
        """Adds a uint8 [H, W, 3] picture to the series `tag`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        height, width = picture.shape[:2]
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file.getvalue())
        self._add(step, tag=tag, image=encoded)

    def flush(self):
        """Brings everything to disk, so that a run that is killed keeps its curves."""
        if self._writer:
            self._writer.flush()

    def close(self):
        """Flushes and closes the file; a later value starts another file in the same folder."""
        if self._writer:
            self._writer.close()
        self._writer = None

    def _add(self, step, **value):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = self._writer or EventFileWriter(self.folder)
        summary = Summary(value=[Summary.Value(**value)])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
