"""Callbacks: COCO scores in the logs, TensorBoard with images, and the images of skipped steps."""

import logging
import math
import os
import pathlib
import shutil
from collections.abc import Sequence

import keras
import numpy as np
from PIL import Image

from keras_maskrcnn import visualize
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.evaluation.any_model import scores as scores_of
from keras_maskrcnn.evaluation.predictions import check_classes
from keras_maskrcnn.training.event_log import EventLog

_log = logging.getLogger(__name__)
# The scores in the lines of epochs.
SHOWN = ("bbox_AP", "segm_AP", "keypoints_AP", "mean_IoU")


class CocoEval(keras.callbacks.Callback):
    """Scores a validation set at the end of epochs, see `evaluation.scores`, and writes to TensorBoard.

    They are those of pycocotools, or for a model without objects, such as `FCN`, those of `evaluation.semantic_scores`.
    They enter the logs as `val_bbox_AP`, `val_segm_AP50`, …, or `val_mean_IoU`, …, for callbacks that come AFTER this
    one in the list. These need `mode="max"`, since Keras does not infer the direction from the name:
    `EarlyStopping("val_segm_AP", mode="max")`, `ModelCheckpoint(path, "val_segm_AP", mode="max", save_best_only=True)`.

    The first and the last epoch of a `fit` are always scored, the others if `every` divides their number. The logs of
    unscored epochs repeat the last scores, so that the columns of a CSVLogger stay the same. A repeated score is no
    improvement: ModelCheckpoint does not save, and EarlyStopping's patience counts epochs, not scorings.

    Args:
        dataset: any reader of samples.
        log_dir: folder for TensorBoard: all numbers in the logs, the learning rate, AP by class (as
            `val_segm_AP/NAME`), and images, also written to `LOG_DIR/pictures/epoch_NNN.png`. None writes nothing.
        every: score each `every`-th epoch.
        kinds: any of "bbox", "segm" and "keypoints"; None for those that the model predicts and the data set has.
        images: number of images to draw, ground truth next to prediction; spread evenly over the data set, the same
            ones each time.
        max_detections: maximum number of detections per image.
        limit: score the first `limit` images only.
        batch_size: images per call of `detect`.
        image_threshold: minimum score of the detections that are drawn.
        group: `backend.processes.Group` of a training by several processes, all of which have this callback: they share
            the images out, and all have the scores in their logs. `log_dir` is for the first one only.
    """

    def __init__(
        self,
        dataset: Dataset,
        log_dir: str | os.PathLike | None = None,
        every: int = 1,
        kinds: Sequence[str] | None = None,
        images: int = 4,
        max_detections: int = 100,
        limit: int | None = None,
        batch_size: int = 8,
        image_threshold: float = 0.5,
        group=None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.dataset = dataset
        self.log_dir = None if log_dir is None else pathlib.Path(log_dir)
        self.every = every
        self.kinds = kinds
        self.images = images
        self.max_detections = max_detections
        self.limit = limit
        self.batch_size = batch_size
        self.image_threshold = image_threshold
        self.group = group
        self.scores = None  # of the last scored epoch, with per_class
        self._events = None if log_dir is None else EventLog(log_dir)
        self._shown = None  # the samples that are drawn, read once

    def on_train_begin(self, logs=None):
        """Resets the scores of an earlier `fit`; raises a ValueError for a data set of other classes."""
        check_classes(self.model, self.dataset)
        self.scores = None

    def on_epoch_end(self, epoch, logs=None):
        """Scores if the epoch is due, adds the scores to `logs`, writes to TensorBoard."""
        logs = {} if logs is None else logs
        due = self._due(epoch)
        if due:
            self.scores = scores_of(
                self.model,
                self.dataset,
                self.kinds,
                max_detections=self.max_detections,
                batch_size=self.batch_size,
                limit=self.limit,
                group=self.group,
            )
        logs.update({f"val_{name}": value for name, value in self.scores.items() if name != "per_class"})
        if self._events:
            self._write_numbers(epoch + 1, logs, due)
            if due and self.images:
                self._write_images(epoch + 1)
            self._events.flush()

    def on_train_end(self, logs=None):
        """Closes the TensorBoard file."""
        if self._events:
            self._events.close()

    def _due(self, epoch):
        return self.scores is None or self._last(epoch) or (epoch + 1) % self.every == 0

    def _last(self, epoch):
        return epoch + 1 == self.params.get("epochs") or self.model.stop_training

    def _write_numbers(self, step, logs, due):
        scores = {f"val_{name}" for name in self.scores}
        for name, value in logs.items():
            # Not the repeated scores of unscored epochs, and not NaN, which means that there are no such objects.
            if name not in scores or (due and not math.isnan(value)):
                self._events.scalar(name, value, step)
        if self.model.optimizer is not None:
            rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            self._events.scalar("learning_rate", rate, step)
        if not due:
            return
        for class_name, class_scores in self.scores["per_class"].items():
            for name, value in class_scores.items():
                if not math.isnan(value):
                    self._events.scalar(f"val_{name}/{class_name}", value, step)

    def _write_images(self, step):
        if self._shown is None:
            self._shown = list(_spread(self.dataset, self.images))
        images = [sample["image"] for sample in self._shown]
        if not images:
            return
        found = self.model.detect(images, score_threshold=self.image_threshold, max_detections=self.max_detections)
        pairs = [
            _at_most(visualize.side_by_side(sample["image"], sample, one, self.dataset.class_names))
            for sample, one in zip(self._shown, found, strict=True)
        ]
        for sample, pair in zip(self._shown, pairs, strict=True):
            self._events.image(f"ground truth and prediction/{sample['image_id']}", pair, step)
        folder = self.log_dir / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(visualize.grid(pairs, columns=1)).save(folder / f"epoch_{step:03d}.png")


class History(keras.callbacks.CSVLogger):
    """A CSVLogger whose rows are on the disk before what follows in the epoch, and so survive a loss of power."""

    def on_epoch_end(self, epoch, logs=None):
        """Writes the row of the epoch."""
        super().on_epoch_end(epoch, logs)
        os.fsync(self.csv_file.fileno())


class EpochLine(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the losses, the validation loss and the APs only; place it after `CocoEval`.

    All other values are in TensorBoard and in the file of a CSVLogger.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Shows the losses so far."""
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        """Ends the line with the scores."""
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        names = ("loss", *self.model.loss_names, "val_loss", *(f"val_{name}" for name in SHOWN))
        return {name: logs[name] for name in names if name in (logs or {})}


class TimeLine(EpochLine):
    """A line per epoch with the time left, the losses and the APs so far; on a terminal it is kept up to date.

    Args:
        budget: the `clock.TimeBudget` of the `fit`, which comes before it in the list of callbacks.
    """

    def __init__(self, budget):
        super().__init__()
        self.budget = budget
        self._scores = {}
        self._shown_at = -math.inf

    def on_epoch_begin(self, epoch, logs=None):
        """Takes the number of the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Replaces the line on a terminal, at most ten times a second."""
        self.seen = batch + 1
        now = self.budget.now()
        if self.verbose != 1 or now - self._shown_at < 0.1:
            return
        self._shown_at = now
        width = shutil.get_terminal_size().columns - 1
        line = self._line({**self._scores, "loss": logs["loss"]})
        print("\r" + line[:width].ljust(width), end="", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the line of the epoch."""
        values = self._shown(logs)
        self._scores = {name: value for name, value in values.items() if name.removeprefix("val_") in SHOWN}
        start = "\r\033[K" if self.verbose == 1 else ""
        print(start + self._line({"steps": self.seen, **values}), flush=True)

    def _line(self, values):
        words = [
            f"epoch {self._epoch + 1}/{self.epochs}",
            f"{self.budget.left / 60:.1f} of {self.budget.minutes:g} min left",
        ]
        for name, value in values.items():
            if not math.isnan(value):  # as before the first scoring
                score = name.removeprefix("val_")
                label = score.replace("_", " ") if score in SHOWN else name
                words.append(f"{label} {value:.4g}")
        return " - ".join(words)


class SkippedSteps(keras.callbacks.Callback):
    """Names the images of training steps that were skipped because their loss or gradient was not finite.

    The model has an int32 variable `skipped_images` of positions in the data set, the latest first, -1 for none, and a
    metric `skipped_steps`, the number of skipped steps of the epoch. For a model without them nothing is printed.

    Args:
        dataset: reader of the training set; names are its `image_ids` if it has them, else those of the samples.
    """

    async_safe = True  # Keras then does not wait for the logs of each step

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset
        self._count = 0
        self._known = None

    def on_epoch_begin(self, epoch, logs=None):
        """Resets the count, as the metric."""
        self._count = 0
        if self._known is None and getattr(self.model, "skipped_images", None) is not None:
            self._known = self._register()

    def on_train_batch_end(self, batch, logs=None):
        """Prints the images of the steps skipped since the last call."""
        self._report((logs or {}).get("skipped_steps", 0))

    def on_epoch_end(self, epoch, logs=None):
        """As `on_train_batch_end`, for steps that the logs of the last batch do not include."""
        self._report((logs or {}).get("skipped_steps", 0))

    def _report(self, count):
        if count <= self._count or self._known is None:
            return
        skipped, self._count = count - self._count, count
        register = self._register()
        indices = _news(register, self._known)
        self._known = register
        if indices:
            names = ", ".join(str(self._name(index)) for index in indices)
            print(f"\nskipped {skipped:.0f} step(s) whose loss or gradient was not finite; images: {names}")

    def _register(self):
        return keras.ops.convert_to_numpy(self.model.skipped_images).tolist()

    def _name(self, index):
        names = getattr(self.dataset, "image_ids", None)
        if names is not None:
            return names[index]
        try:
            return self.dataset[index]["image_id"]  # reads the image; skipped steps are rare
        except (DataError, OSError):
            return f"number {index}"


def _news(register, known):
    """The entries added at the front of `register` since `known` was read: the shortest such front."""
    for count in range(len(register) + 1):
        if register[count:] == known[: len(known) - count]:
            return [index for index in register[:count] if index >= 0]
    return []


def _spread(dataset, count):
    """Yields up to `count` readable samples spread evenly over a data set."""
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)):
        try:
            yield dataset[int(index)]
        except (DataError, OSError) as error:
            _log.warning("sample %d is not drawn: %s", index, error)


def _at_most(image, side=1400):
    """The image, reduced if its longer side exceeds `side` pixels, since TensorBoard stores each one."""
    image = Image.fromarray(image)
    image.thumbnail((side, side))
    return np.asarray(image)
