"""A repaired data set as COCO files, with a list of what was changed and why."""

import csv
import pathlib

import numpy as np

from keras_maskrcnn.data.doctor.checks_of_annotations import MOST_OFF, doubles
from keras_maskrcnn.data.doctor.comparisons import copies
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.fields import instances
from keras_maskrcnn.data.sample import Wrapper
from keras_maskrcnn.data.to_coco import write_coco


class Repaired(Wrapper):
    """A data set without the faults that can be repaired from the files alone.

    Images that cannot be read and copies of other images are left out. Annotations that the reader leaves out stay so,
    a box that disagrees with its mask becomes that of the mask, and an object that is annotated twice is kept once.

    Args:
        part: `facts.Part`, inspected.
        copied: dict from positions of images to the reason why each is left out.

    Attributes:
        changes: dict from (source, place) to what was changed.
    """

    def __init__(self, part, copied):
        super().__init__(part.dataset)
        self.part, self.changes = part, {}
        for position, reason in {**part.unreadable, **copied}.items():
            source = part.files.image(position).path or position
            self.changes[str(source), "image"] = f"left out: {reason}"
        self.positions = [row.position for row in part.rows if row.position not in copied]

    def __len__(self):
        return len(self.positions)

    def read(self, position):
        """Returns a repaired sample."""
        facts = self.part.facts(self.positions[position])
        if facts.error is not None:
            raise facts.error
        again = {second: first for first, second in doubles(facts)}
        sample = {**facts.sample, "boxes": self._boxes(facts)}
        for index, first in again.items():
            self.changes[facts.source, self._place(facts, index)] = f"left out: instance {first} again"
        for instance in facts.stated.instances:
            if instance.key in facts.dropped:
                self.changes[facts.source, instance.place] = f"left out: {facts.dropped[instance.key]}"
            elif isinstance(instance.counts, list):
                self.changes[facts.source, instance.place] = "run lengths compressed"
        kept = [index for index in range(len(sample["labels"])) if index not in again]
        return instances(sample, kept)

    def _boxes(self, facts):
        """The boxes of the sample, or of the masks where these disagree."""
        boxes = facts.sample["boxes"].copy()
        off = np.abs(boxes - facts.boxes).max(axis=1, initial=0)
        for index in np.flatnonzero(off > MOST_OFF):
            boxes[index] = facts.boxes[index]
            self.changes[facts.source, self._place(facts, index)] = f"box of the mask, {off[index]:.1f} pixels off"
        return boxes

    @staticmethod
    def _place(facts, index):
        return facts.kept[index].place if facts.kept else f"instance {index}"


def repair(report, path, step=None):
    """Writes a COCO file for each set of a report, and the changes as `NAME_changes.csv` next to it.

    Args:
        report: `survey.Report`.
        path: str or Path of the JSON file; with several sets, their names are added: `out_train.json`.
        step: function of the numbers of images done and of all images.

    Returns:
        List of (path of the JSON file, path of the list of changes, folder of the images, number of changes).

    Raises:
        DataError: a file exists already, or the images of a set are no files.
    """
    path, written = pathlib.Path(path), []
    several, left_out = len(report.parts) > 1, copies(report.parts)
    outputs = [_output(path, part.name) if several else path for part in report.parts]
    for file in (*outputs, *map(_list_of, outputs)):
        if file.exists():
            raise DataError(file, "exists already; no file is overwritten")
    done, total = 0, sum(len(part.rows) for part in report.parts)
    for part, output in zip(report.parts, outputs, strict=True):
        repaired = Repaired(part, left_out.get(part.name, {}))
        folder = write_coco(repaired, output, step and (lambda count, before=done: step(before + count, total)))
        done += len(part.rows)
        _write_changes(_list_of(output), part.name, repaired.changes)
        written.append((output, _list_of(output), folder, len(repaired.changes)))
    return written


def _output(path, name):
    return path.with_stem(f"{path.stem}_{name.replace('/', '_')}")


def _list_of(output):
    return output.with_name(f"{output.stem}_changes.csv")


def _write_changes(path, name, changes):
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["set", "image", "place", "change"])
        table.writerows([name, source, place, change] for (source, place), change in changes.items())
