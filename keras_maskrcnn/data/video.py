"""Frames of video files and cameras, and video files of frames.

PyAV does the work (`pip install av`, the extra `video`): its wheels contain FFmpeg, so that nothing else is installed,
it decodes one frame at a time in this process, and it reads files and cameras alike.
"""

import fractions
import sys

import numpy as np
from PIL import Image

from keras_maskrcnn.data.array_file import check_size
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

RATE = fractions.Fraction(25)  # frames per second of a source that states none
CODECS = ("libx264", "h264", "mpeg4")  # of written files, the first that PyAV was built with
# Each second is complete in the file when it has been written, so that a stopped run leaves a video that plays.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
CAMERAS = {"linux": ("/dev/video{}", "v4l2"), "darwin": ("{}", "avfoundation")}


def frames(source, every=1):
    """Yields the frames of a video upright, one at a time.

    Args:
        source: str or Path of a file, or the number of a camera (int), which yields frames until it is closed.
        every: only the frames 0, `every`, 2 · `every`, …

    Yields:
        (number, image, rate): position of the frame in the video, uint8 [H, W, 3], and the video's frames per second
        (Fraction).

    Raises:
        DataError: PyAV is not installed, the source cannot be read as a video, or frames have more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`. The frames before a damage are yielded first.
    """
    av = _pyav(source)
    try:
        with _opened(av, source) as container:
            if not container.streams.video:
                raise DataError(source, "has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(source, "has a video stream of an unknown codec")
            stream.thread_type = "AUTO"
            _check_pixels(stream, source)
            _limit(stream.codec_context)
            rate = stream.average_rate or stream.guessed_rate or RATE
            for number, frame in enumerate(container.decode(stream)):
                _check_pixels(frame, source)  # the size can change within a video
                if number % every == 0:
                    image = frame.to_ndarray(format="rgb24")
                    yield number, np.ascontiguousarray(np.rot90(image, frame.rotation // 90)), rate
    except av.error.FFmpegError as error:
        kind = "a camera" if isinstance(source, int) else "a video"
        raise DataError(_name(source), f"cannot be read as {kind} ({error.strerror})") from error


class VideoWriter:
    """Writes an MP4 file (H.264) of frames of one size.

    Args:
        path: str or Path of the file; its folder exists.
        rate: frames per second, Fraction or int.

    Raises:
        DataError: PyAV is not installed.
    """

    def __init__(self, path, rate):
        av = _pyav(path)
        self._new_frame, self._rate = av.VideoFrame.from_ndarray, fractions.Fraction(rate).limit_denominator(1001)
        self._codec = next(codec for codec in CODECS if codec in av.codecs_available)
        self._container, self._stream, self._count = av.open(str(path), "w", format="mp4", options=FRAGMENTS), None, 0

    def add(self, image):
        """Appends a frame, uint8 [H, W, 3]; a side of odd length is extended by a pixel, as the codec needs."""
        image = np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)], mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream(self._codec, rate=self._rate)
            self._stream.height, self._stream.width = image.shape[:2]
            self._stream.pix_fmt, self._stream.gop_size = "yuv420p", max(1, round(self._rate))
        frame = self._new_frame(image, format="rgb24")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self):
        """Completes the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def _pyav(source):
    try:
        import av
    except ModuleNotFoundError:
        raise DataError(_name(source), "videos need PyAV: pip install av") from None
    return av


def _opened(av, source):
    if not isinstance(source, int):
        return av.open(str(regular(source)), metadata_errors="replace")
    if sys.platform not in CAMERAS:
        raise DataError(_name(source), f"cameras are read on {' and '.join(CAMERAS)}, not on {sys.platform}")
    device, kind = CAMERAS[sys.platform]
    return av.open(device.format(source), format=kind)


def _check_pixels(sized, source):
    """Checks the size of a stream, which is 0 where the file states none, or of a frame."""
    try:
        check_size(sized.width or 1, sized.height or 1)
    except ValueError as error:
        raise DataError(_name(source), str(error)) from None


def _limit(codec):
    """Lets FFmpeg take no memory for frames of far more pixels; it counts those with its padding."""
    if Image.MAX_IMAGE_PIXELS is not None:
        codec.options = {**codec.options, "max_pixels": str(2 * Image.MAX_IMAGE_PIXELS + 2**16)}


def _name(source):
    return f"camera {source}" if isinstance(source, int) else source
