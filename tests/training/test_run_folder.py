"""The folder of a run: rows of its history, and files that are damaged."""

import argparse
import json
import os

import numpy as np
import pytest

from keras_maskrcnn import atomic
from keras_maskrcnn.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("content", "kept", "printed"),
    [
        # The last row may be incomplete, and rows of epochs whose state was not saved are removed.
        (b"epoch,loss\r\n0,3.5\r\n1,2.5\r\n2,1.5\r\n1", b"epoch,loss\r\n0,3.5\r\n1,2.5\r\n", None),
        (b"epoch,loss\r\n0,3.5\r\n1,2.5", b"epoch,loss\r\n0,3.5\r\n", 1),
        (b"epoch,loss\r\n\0\0\0\0\xff\r\n1,2.5\r\n", b"epoch,loss\r\n1,2.5\r\n", 1),
        (b"\0" * 30, b"", 0),
        (b"", b"", 0),
        (None, b"", 0),
    ],
)
def test_rows_of_the_history_are_those_of_complete_epochs(tmp_path, capsys, content, kept, printed):
    history = tmp_path / "history.csv"
    if content is not None:
        history.write_bytes(content)
    RunFolder(tmp_path, argparse.Namespace()).start(2)
    assert history.read_bytes() == kept
    line = "" if printed is None else f"{history} is damaged or missing: it has {printed} rows of 2 epochs\n"
    assert capsys.readouterr().out == line


def unfinished(folder):
    """The folder of a run with two complete epochs and the seed 1."""
    run = RunFolder(folder, argparse.Namespace(seed=1))
    run.start(0)
    np.savez(folder / "backup" / "epoch_0002.npz", 1.0)
    return folder / "backup" / "arguments.json"


def test_arguments_that_cannot_be_read_are_not_compared(tmp_path, capsys):
    file, other = unfinished(tmp_path), RunFolder(tmp_path, argparse.Namespace(seed=2))
    with pytest.raises(ValueError, match=r"holds a run with --seed 1 \(not 2\)"):
        other.check()
    file.write_bytes(b"")
    other.check()
    file.unlink()
    other.check()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{file} cannot be read (") for line in lines)
    assert all(line.endswith("): the arguments are not compared with those of the run") for line in lines)


@pytest.mark.parametrize("content", ['{"steps": 6', "[]", ""])
def test_a_damaged_summary_is_one_line(tmp_path, content):
    file = tmp_path / "summary.json"
    file.write_text(content)
    with pytest.raises(ValueError) as caught:
        RunFolder(tmp_path, argparse.Namespace(seed=1)).check()
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{file} is damaged (") and line.endswith("): --overwrite starts the run again")


def test_overwrite_deletes_nothing_where_there_is_no_run(tmp_path):
    (tmp_path / "pictures").mkdir()
    RunFolder(tmp_path, argparse.Namespace()).delete()
    assert (tmp_path / "pictures").exists()


@pytest.mark.parametrize("end", [lambda folder: folder.finish({}), RunFolder.delete])
def test_what_killed_processes_left_is_deleted_with_the_run(tmp_path, end):
    unfinished(tmp_path)
    for name in ("best.keras", "model.keras", "summary.json"):
        atomic.part(tmp_path / name).write_bytes(b"half")
    (tmp_path / "mine.part.txt").write_bytes(b"not of the run")
    end(RunFolder(tmp_path, argparse.Namespace(seed=1)))
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.part.txt", "summary.json"}


@pytest.mark.parametrize("value", ["a\nb\r", "x" * 10**5, "\ud800", [[1] * 10**4]])
def test_arguments_of_any_text_are_one_line(tmp_path, value):
    unfinished(tmp_path).write_text(json.dumps({"seed": value}))
    with pytest.raises(ValueError, match="holds a run with --seed") as caught:
        RunFolder(tmp_path, argparse.Namespace(seed=1)).check()
    str(caught.value).encode()
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 2500


@pytest.mark.parametrize("content", ['{"arguments": 3}', '{"arguments": ["ab", 1]}', "[" * 10**5])
def test_a_hostile_summary_is_one_line(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        RunFolder(tmp_path, argparse.Namespace(seed=1)).check()


def test_a_pipe_as_list_of_arguments_is_not_waited_for(tmp_path, capsys):
    file = unfinished(tmp_path)
    file.unlink()
    os.mkfifo(file)
    RunFolder(tmp_path, argparse.Namespace(seed=1)).check()
    assert "cannot be read" in capsys.readouterr().out
