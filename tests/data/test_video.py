"""Videos that are written and read again."""

import fractions
import sys

import numpy as np
import pytest

from keras_maskrcnn.data import DataError
from keras_maskrcnn.data.video import VideoWriter, frames

pytest.importorskip("av", reason="the extra video is not installed")


def written(path, count=7, size=(40, 64), rate=10):
    """A video of frames of one grey level each, brighter by 20 from frame to frame."""
    writer = VideoWriter(path, rate)
    for number in range(count):
        writer.add(np.full((*size, 3), 40 + 20 * number, np.uint8))
    writer.close()
    return path


def test_frames_come_back_in_order(tmp_path):
    read = list(frames(written(tmp_path / "a.mp4")))
    assert [number for number, _, _ in read] == list(range(7)) and {rate for _, _, rate in read} == {10}
    for number, image, _ in read:
        assert image.shape == (40, 64, 3) and image.dtype == np.uint8
        assert abs(image.mean() - (40 + 20 * number)) < 4


def test_every_third_frame(tmp_path):
    read = [(number, round(image.mean() / 20) * 20) for number, image, _ in frames(written(tmp_path / "a.mp4"), 3)]
    assert read == [(0, 40), (3, 100), (6, 160)]


def test_odd_sides_and_a_fraction_as_rate(tmp_path):
    path = written(tmp_path / "a.mp4", size=(41, 63), rate=fractions.Fraction(30000, 1001))
    _, image, rate = next(frames(path))
    assert image.shape == (42, 64, 3) and rate == fractions.Fraction(30000, 1001)


def test_a_video_that_is_not_closed_plays_to_its_last_second(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 2)
    for number in range(200):
        writer.add(np.random.default_rng(number).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())  # as after a power cut
    writer.close()
    assert len(list(frames(tmp_path / "copy.mp4"))) > 50
    assert len(list(frames(tmp_path / "a.mp4"))) == 200


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4: cannot be read as a video"):
        next(frames(path))


def test_a_camera_that_is_absent_is_named():
    with pytest.raises(DataError, match="camera 87"):
        next(frames(87))


def test_pyav_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"a\.mp4: videos need PyAV: pip install av"):
        next(frames(tmp_path / "a.mp4"))
