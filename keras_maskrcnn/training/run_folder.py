"""The output folder of a recipe: which run it holds, finished or not."""

import json
import os
import pathlib
import shutil

from keras_maskrcnn.training.arguments import canvas, policy
from keras_maskrcnn.training.backup import Backup

_ARGUMENTS = pathlib.PurePath("backup", "arguments.json")  # of an unfinished run; a summary has those of a finished one
_NO_EFFECT = ("output", "overwrite", "workers", "pipeline", "debug", "find_lr", "wait", "distribute")


class RunFolder:
    """The files of one run.

    Args:
        path: path of the folder.
        arguments: `argparse.Namespace`; those that have no effect on the results are not compared.
        **resolved: values that replace those of `arguments` where several arguments mean the same.
    """

    def __init__(self, path, arguments, **resolved):
        self.path = path
        settings = {**vars(arguments), **resolved}
        settings = {name: value for name, value in settings.items() if name not in _NO_EFFECT}
        self.arguments = json.loads(json.dumps(settings, default=lambda path: str(path.resolve())))

    @classmethod
    def of(cls, arguments):
        """The folder of the arguments of a recipe."""
        steps = None if arguments.minutes else arguments.steps
        return cls(arguments.output, arguments, precision=policy(arguments), image_size=canvas(arguments), steps=steps)

    @property
    def finished(self):
        """Whether the folder holds a summary."""
        return (self.path / "summary.json").is_file()

    def backup(self, totals=None):
        """The `Backup` of the run."""
        return Backup(self.path / "backup", totals)

    def check(self):
        """Raises a ValueError that names what differs if the folder holds a run with other arguments."""
        if self.finished:
            before = json.loads((self.path / "summary.json").read_text()).get("arguments", {})
        elif self.backup().epoch():
            before = json.loads((self.path / _ARGUMENTS).read_text())
        else:
            return
        differences = [
            f"--{name.replace('_', '-')} {before[name]} (not {value})"
            for name, value in self.arguments.items()
            if name in before and before[name] != value
        ]
        if differences:
            remedy = "use its arguments, another --output, or --overwrite"
            raise ValueError(f"{self.path} holds a run with {', '.join(differences)}: {remedy}")

    def start(self, epochs):
        """Makes the folder, and keeps the first `epochs` rows of the history: the state of later ones was not saved."""
        (self.path / _ARGUMENTS).parent.mkdir(parents=True, exist_ok=True)
        write(self.path / _ARGUMENTS, _json(self.arguments))
        history = self.path / "history.csv"
        if epochs and history.is_file():
            header, *rows = history.read_bytes().decode().splitlines(keepends=True)
            # The last row may be incomplete.
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) < epochs]
            write(history, "".join([header, *kept]))

    def finish(self, summary):
        """Writes the summary, then deletes the backup."""
        write(self.path / "summary.json", _json(summary))
        self.backup().delete()

    def delete(self):
        """Deletes the files of a run, if the folder holds one, and no others."""
        if not (self.finished or (self.path / _ARGUMENTS).is_file()):
            return
        for name in ("summary.json", "history.csv", "model.keras", "best.keras", "curves.png", "overfit.png"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("backup", "logs", "pictures", "saved_model"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _json(content):
    return json.dumps(content, indent=2) + "\n"


def write(path, text):
    """Writes a file that is complete or not there."""
    temporary = path.with_suffix(".part")
    temporary.write_text(text, newline="")
    os.replace(temporary, path)
