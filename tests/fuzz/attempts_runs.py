"""What the command line and recipes read again: results of shards, folders of runs, histories, saved states."""

import argparse
import contextlib
import io
import json
import os
import pathlib

import changes
import numpy as np
from target import changed_files, check_message, target, written

from keras_maskrcnn.data import DataError


def load():
    """Imports what the targets need, before memory is limited."""
    import attempts_models

    return attempts_models.load()


def lines_changed(_, content, rng):
    """A file of JSON lines with one of them changed, or changed as text."""
    if rng.random() < 0.4:
        return changes.text_changed(content, rng)
    lines = content.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = changes.json_changed(lines[place], rng)
    return b"\n".join(lines) + rng.choice([b"\n", b"\n", b"", b"\n\n"])


class RefusedError(Exception):
    """The command line ended with an error."""


def command(*words):
    """Runs the command line in this process; a `RefusedError` of its error message."""
    from keras_maskrcnn import cli

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main([*map(str, words)])
        except SystemExit as error:
            code = error.code
    if code:
        message = stderr.getvalue().strip()
        assert "Error: " not in message.partition("\n")[0][:60], message  # an exception of another class
        check_message(message)
        raise RefusedError(message)


@target("shards", quick=150, allowed=(RefusedError,))
def shards(folder):
    """`join` of the results of `predict --shard`."""
    result = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    for number in (1, 2):
        lines = [{"shard": f"{number}/2", "settings": {"model": "nuclei", "INPUT": "a"}}]
        lines += [{"file_name": f"{number}.png", "results": [result]}, {"file_name": f"x{number}", "error": "no"}]
        lines += [{"finished": True}]
        written(folder / f"shard-{number}-of-2.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    output = pathlib.Path(f"{folder}.json")
    return changed_files(folder, lambda: command("join", folder, "--output", output), lines_changed)


@target("shard_results", quick=100, allowed=(DataError, ValueError, OSError))
def shard_results(folder):
    """The results that `predict --shard` continues."""
    from keras_maskrcnn.cli.shards import Results, Shard

    settings = {"model": "nuclei", "INPUT": "a"}
    shard = Shard.of("1/1")
    lines = [{"shard": "1/1", "settings": settings}, {"file_name": "a", "results": []}, {"starts": 1}]
    written(folder / shard.file, "".join(json.dumps(line) + "\n" for line in lines))

    def read():
        with contextlib.closing(Results(folder, shard, settings)) as results:
            results.finish() if list(results.remaining(["a", "b"])) is None else None

    return changed_files(folder, read, lines_changed)


def _run(folder):
    """Files of a finished run."""
    summary = {
        "command": "train/shapes.py --seed 0",
        "arguments": {"seed": 0, "steps": 20},
        "fit_seconds": 60.0,
        "steps": 20,
    }
    summary |= {"bbox_AP": 0.5, "segm_AP": 0.4, "epochs": 2, "val_bbox_AP": 0.3}
    written(folder / "summary.json", summary)
    written(folder / "history.csv", "epoch,loss,val_bbox_AP,val_segm_AP\n0,1.5,0.1,0.2\n1,0.5,0.3,0.3\n")


@target("compare", quick=100, allowed=(RefusedError,))
def compare(folder):
    """`compare` of two runs, one of which is changed."""
    for name in "ab":
        _run(folder / name)
    cases = changed_files(
        folder / "a", lambda: command("compare", folder / "a", folder / "b", "--json", f"{folder}.json")
    )
    return cases


@target("run_folder", quick=150, allowed=(ValueError, OSError))
def run_folder(folder):
    """A stopped run that a recipe continues."""
    from keras_maskrcnn.training.backup import _read
    from keras_maskrcnn.training.run_folder import RunFolder

    place = folder / "run"
    _run(place)
    written(place / "backup" / "arguments.json", {"seed": 0, "steps": 20})
    np.savez(place / "backup" / "epoch_0002.npz", np.zeros(1), np.ones((3, 4), np.float32))
    run = RunFolder(place, argparse.Namespace(seed=0, steps=20))
    summary = (place / "summary.json").read_bytes()

    def read():
        run.check()
        (place / "summary.json").rename(folder / "summary")
        try:
            run.check()
            _restored(run.backup())
            run.start(2)
        finally:
            os.replace(folder / "summary", place / "summary.json")

    def _restored(backup):
        for path in backup._files().values():
            with contextlib.suppress(Exception):  # as `Backup.restore` does
                _read(path)

    def change(name, content, rng):
        return changes.zip_changed(content, rng) if name.endswith(".npz") else changes.by_name(name)(content, rng)

    assert summary
    return changed_files(place, read, change, special=0)  # `start` writes to a pipe that is in a file's place
