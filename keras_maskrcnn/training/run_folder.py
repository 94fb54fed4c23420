"""The output folder of a recipe: which run it holds, finished or not."""

import json
import pathlib
import shutil

from keras_maskrcnn import atomic
from keras_maskrcnn.data.errors import one_line
from keras_maskrcnn.data.json_text import loads
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.training.arguments import canvas, policy
from keras_maskrcnn.training.backup import Backup

_ARGUMENTS = pathlib.PurePath("backup", "arguments.json")  # of an unfinished run; a summary has those of a finished one
_FILES = ("summary.json", "history.csv", "model.keras", "best.keras", "curves.png", "overfit.png")
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
        """Raises a ValueError that names what differs if the folder holds a run with other arguments.

        Those of an unfinished run are not compared if their file is missing or damaged, which is printed.
        """
        if self.finished:
            before = self._arguments_of_summary()
        elif self.backup().epoch():
            before = self._arguments_before()
        else:
            return
        differences = [
            f"--{name.replace('_', '-')} {before[name]} (not {value})"
            for name, value in self.arguments.items()
            if name in before and before[name] != value
        ]
        if differences:
            remedy = "use its arguments, another --output, or --overwrite"
            raise ValueError(f"{self.path} holds a run with {one_line(', '.join(differences))}: {remedy}")

    def _arguments_of_summary(self):
        file = self.path / "summary.json"
        try:
            return dict(loads(file.read_text()).get("arguments") or {})
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}): --overwrite starts the run again") from None

    def _arguments_before(self):
        file = self.path / _ARGUMENTS
        try:
            return dict(loads(regular(file).read_text()))
        except (OSError, ValueError, TypeError) as error:
            print(f"{file} cannot be read ({error}): the arguments are not compared with those of the run")
            return {}

    def start(self, epochs):
        """Makes the folder, and keeps the first `epochs` rows of the history: the state of later ones was not saved.

        Rows of a damaged file that cannot be read are lost, which is printed.
        """
        (self.path / _ARGUMENTS).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(self.path / _ARGUMENTS, _json(self.arguments))
        history = self.path / "history.csv"
        if not epochs:
            return
        header, rows = _rows(history)
        kept = [rows[epoch] for epoch in range(epochs) if epoch in rows]
        if len(kept) < epochs:
            print(f"{history} is damaged or missing: it has {len(kept)} rows of {epochs} epochs")
        atomic.write(history, "".join([header, *kept]))

    def finish(self, summary):
        """Writes the summary, then deletes the backup, and what killed processes have left of other files."""
        atomic.write(self.path / "summary.json", _json(summary))
        for name in _FILES:
            atomic.part(self.path / name).unlink(missing_ok=True)
        self.backup().delete()

    def delete(self):
        """Deletes the files of a run, if the folder holds one, and no others."""
        if not (self.finished or (self.path / _ARGUMENTS).is_file()):
            return
        for path in (self.path / name for name in _FILES):
            path.unlink(missing_ok=True)
            atomic.part(path).unlink(missing_ok=True)
        for name in ("backup", "logs", "pictures", "saved_model"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _json(content):
    return json.dumps(content, indent=2) + "\n"


def _rows(history):
    """The header of a history, "" if it cannot be read, and a dict from the numbers of epochs to their rows."""
    lines = history.read_bytes().decode(errors="replace").splitlines(keepends=True) if history.is_file() else []
    header = lines[0] if lines and lines[0].startswith("epoch,") and lines[0].endswith("\n") else ""
    rows = {}
    for line in lines[1:] if header else ():
        number, *cells = line.split(",")
        # The last row may be incomplete.
        if number.isdecimal() and line.endswith("\n") and len(cells) == header.count(","):
            rows[int(number)] = line
    return header, rows
