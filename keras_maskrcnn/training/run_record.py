"""The record of a finished run of a recipe: arguments, scores, numbers of each epoch; read without Keras."""

import dataclasses
import math
import pathlib
import re
import shlex

from keras_maskrcnn import history
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.training.event_log import read_scalars

TOTALS = ("steps", "fit_seconds")
# Scores in a summary that a table shows: the mean AP of each kind, and the scores of other tasks.
SCORE = re.compile(r"\w+_AP(50)?|PQ|mean_IoU|\w+_score")
# What the best epoch is chosen by, in this order: the mean of those that the history has.
JUDGED = (("val_bbox_AP", "val_segm_AP"), ("val_mean_IoU",))


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Attributes:
        path: Path of its folder.
        summary: content of `summary.json`.
        history: dict from names to the values of each epoch, as `history.csv` has them; NaN where there is none.
    """

    path: pathlib.Path
    summary: dict
    history: dict

    @classmethod
    def read(cls, path):
        """Reads the folder of a run.

        Where `history.csv` is missing or damaged, the history is that in the TensorBoard files of the run.

        Raises:
            DataError: in one line, if there is no such folder, if the run is not finished or has no scores, or if its
                files cannot be read.
        """
        path = pathlib.Path(path)
        if not path.is_dir():
            raise DataError(path, "is a file, not the folder of a run" if path.exists() else "no such folder")
        return cls(path, _summary(path / "summary.json"), _history(path))

    @property
    def recipe(self):
        """Name of the script that ran, without its folder and ending; None if the summary does not say it."""
        try:
            words = shlex.split(self.summary.get("command") or "")
        except ValueError:  # a quotation has no end
            return None
        return next((pathlib.PurePath(word).stem for word in words if word.endswith(".py")), None)

    @property
    def arguments(self):
        """The arguments of the recipe: dict from names to values."""
        return self.summary.get("arguments") or {}

    @property
    def scores(self):
        """The scores of the last epoch: dict from names to numbers in 0…1."""
        return _scores(self.summary)

    @property
    def epochs(self):
        """Number of epochs."""
        return len(next(iter(self.history.values()), ()))

    def axis(self, by):
        """Steps or minutes at the end of each epoch.

        Where the history does not have them, all epochs have the same share: those of a run by steps have equal numbers
        of steps, those of a run by the clock equal times.

        Args:
            by: "steps" or "minutes".

        Returns:
            list of numbers.
        """
        if by in self.history:
            return self.history[by]
        total = {"steps": self.summary["steps"], "minutes": self.minutes}[by]
        return [total * (epoch + 1) / self.epochs for epoch in range(self.epochs)]

    @property
    def minutes(self):
        """Minutes of `fit`."""
        return self.summary["fit_seconds"] / 60

    @property
    def best_epoch(self):
        """The first epoch, from 1, with the highest score; None if the history has none.

        The score is the mean of box AP and mask AP, or the one that the model has; mean IoU for semantic segmentation.
        """
        names = next((found for names in JUDGED if (found := [name for name in names if name in self.history])), [])
        means = [sum(values) / len(names) for values in zip(*(self.history[name] for name in names), strict=True)]
        scored = [(mean, -epoch) for epoch, mean in enumerate(means, start=1) if not math.isnan(mean)]
        return -max(scored)[1] if scored else None


def _summary(file):
    if not file.is_file():
        begun = (file.parent / "backup").is_dir() or (file.parent / "history.csv").is_file()
        raise DataError(file, "is missing: the run is not finished" if begun else "is missing: no recipe ran here")
    content = read_json(file)
    if not isinstance(content, dict) or not all(_is_number(content.get(name)) for name in TOTALS):
        raise DataError(file, f"is not the summary of a training: it has no numbers {' and '.join(TOTALS)}")
    for name, kind in (("command", str), ("arguments", dict)):
        if not isinstance(content.get(name) or kind(), kind):
            raise DataError(file, f"is damaged: its {name} is {str(content[name])[:80]}")
    if not _scores(content):
        raise DataError(file, "holds no scores")
    return content


def _scores(summary):
    return {name: value for name, value in summary.items() if SCORE.fullmatch(name) and _is_number(value)}


def _is_number(value):
    """Whether a value of a summary is a number that a float has."""
    return isinstance(value, float | int) and not (isinstance(value, int) and value.bit_length() > 64)


def _history(folder):
    file = folder / "history.csv"
    try:
        found = history.read(file)
        if not any(found.values()):
            raise DataError(file, "holds no epoch")
    except DataError as error:
        if not (found := read_scalars(folder / "logs")):
            raise error
    return found
