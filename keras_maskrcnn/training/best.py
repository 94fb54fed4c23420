"""The best epoch of a run: a file of its model, chosen by the scores of the validation set."""

import json
import math
import pathlib

import keras

from keras_maskrcnn import atomic
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.json_text import loads
from keras_maskrcnn.weights import keras_file

# The mean of those that a model has chooses the epoch. Keypoints stay out: their AP is on another scale.
CHOOSING = ("bbox_AP", "segm_AP", "mean_IoU")


class Best(keras.callbacks.Callback):
    """Writes `FOLDER/best.keras` after each epoch whose figure is the highest so far; comes after the scoring callback.

    The figure is the mean of the scores in `CHOOSING`: (box AP + mask AP) / 2, box AP alone for a model without masks.
    Epochs that are not scored do not count, and of equal figures the first one. The file is complete or not there. Its
    epoch and figure are kept in `FOLDER/backup/best.json` for a run that continues.

    Args:
        folder: folder of the run.
        scores: the callback that scores, a `clock.TimedEval`.
        done: number of complete epochs of the run; 0 forgets an earlier run.
        writes: whether this process writes and deletes the files.
    """

    def __init__(self, folder, scores, done=0, writes=True):
        super().__init__()
        self.path = pathlib.Path(folder) / "best.keras"
        self._scores, self._writes = scores, writes
        self._record = self.path.parent / "backup" / "best.json"
        self._found = self._read() if done else None
        if not done and writes:
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)

    @property
    def found(self):
        """`epoch` (from 1), `score` (its name) and `figure` of the best epoch as a dict; None if none was scored."""
        return self._found and {**self._found, "figure": round(self._found["figure"], 4)}

    def on_epoch_end(self, epoch, logs=None):
        """Saves the model if the scores are new and the best so far."""
        if not self._scores.current:
            return
        name, figure = chosen(self._scores.scores)
        if math.isnan(figure) or (self._found and figure <= self._found["figure"]):
            return
        self._found = {"epoch": epoch + 1, "score": name, "figure": figure}
        if self._writes:
            with atomic.replacing(self.path) as new:
                keras.saving.save_model(self.model, new)
            atomic.write(self._record, json.dumps(self._found))

    def load(self, model):
        """Gives a model the weights and the optimizer state of the best epoch."""
        model.load_weights(self.path)

    def _read(self):
        """The record of the file of the best epoch; None, which is printed, if one of them is damaged."""
        if not (self._record.is_file() and self.path.is_file()):
            return None
        try:
            keras_file.check(self.path)
            found = loads(self._record.read_text())
            return {"epoch": int(found["epoch"]), "score": str(found["score"]), "figure": float(found["figure"])}
        except DataError as error:
            reason = str(error)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{self._record} cannot be read ({error})"
        print(f"{reason}: the best epoch is chosen among the coming ones")
        return None


def chosen(scores):
    """Name and value of the figure that chooses the best epoch; NaN if there is no such score."""
    names = [name for name in CHOOSING if name in scores]
    figure = sum(scores[name] for name in names) / len(names) if names else math.nan
    return ("mean of " if len(names) > 1 else "") + " and ".join(names), float(figure)
