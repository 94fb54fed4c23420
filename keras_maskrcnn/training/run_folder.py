"""The output folder of a recipe: which run it holds, finished or not."""

import json
import os
import pathlib

from keras_maskrcnn.training.backup import Backup

_ARGUMENTS = pathlib.PurePath("backup", "arguments.json")  # of an unfinished run
_NO_EFFECT = ("output", "overwrite", "workers", "debug")


class RunFolder:
    """The files of one run.

    Args:
        path: path of the folder.
        arguments: `argparse.Namespace`; those that have no effect on the results are left out.
        **resolved: values that replace those of `arguments` where several arguments mean the same.
    """

    def __init__(self, path, arguments, **resolved):
        self.path = path
        settings = {**vars(arguments), **resolved}
        settings = {name: value for name, value in settings.items() if name not in _NO_EFFECT}
        self.arguments = json.loads(json.dumps(settings, default=lambda path: str(path.resolve())))

    def backup(self, totals=None):
        """The `Backup` of the run."""
        return Backup(self.path / "backup", totals)

    def start(self, epochs):
        """Makes the folder, and keeps the first `epochs` rows of the history: the state of later ones was not saved."""
        (self.path / _ARGUMENTS).parent.mkdir(parents=True, exist_ok=True)
        _write(self.path / _ARGUMENTS, _json(self.arguments))
        history = self.path / "history.csv"
        if epochs and history.is_file():
            header, *rows = history.read_text().splitlines(keepends=True)
            _write(history, "".join([header, *(row for row in rows if int(row.split(",")[0]) < epochs)]))

    def finish(self, summary):
        """Writes the summary, then deletes the backup."""
        _write(self.path / "summary.json", _json(summary))
        self.backup().delete()


def _json(content):
    return json.dumps(content, indent=2) + "\n"


def _write(path, text):
    """Writes a file that is complete or not there."""
    temporary = path.with_suffix(".part")
    temporary.write_text(text, newline="")
    os.replace(temporary, path)
