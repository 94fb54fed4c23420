"""Files that replace others: complete, or as they were before."""

import os
import stat

import pytest

from keras_maskrcnn import atomic


def test_a_block_that_ends_replaces_the_file_and_one_that_raises_does_not(tmp_path):
    path = tmp_path / "model.keras"
    atomic.write(path, "one\r\n")
    assert path.read_bytes() == b"one\r\n"
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as new:
        assert new == tmp_path / "model.part.keras"
        new.write_text("half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one\r\n" and list(tmp_path.iterdir()) == [path]
    atomic.write(path, "two")
    assert path.read_text() == "two" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_has_left_is_replaced(tmp_path):
    (tmp_path / "model.part.keras").write_text("half of a file")
    atomic.write(tmp_path / "model.keras", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_the_file_behind_a_link_is_replaced(tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "large_disk" / "file.txt")
    atomic.write(tmp_path / "link.txt", "text")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "large_disk" / "file.txt").read_text() == "text"


def test_a_device_is_written_itself(tmp_path):
    atomic.write(os.devnull, "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_file_that_may_not_be_written_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match=r"^\[Errno 13\] Permission denied: '.*file\.txt'$"):
        atomic.write(path, "new")
    assert path.read_text() == "old"
