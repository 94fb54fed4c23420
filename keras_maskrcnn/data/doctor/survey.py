"""The inspection: every image of every set is read once, checked, and forgotten except for a `facts.Row`."""

import collections
import contextlib
import dataclasses
import pathlib

from keras_maskrcnn.data.doctor import (  # noqa: F401, the modules register their checks
    checks_of_annotations,
    checks_of_formats,
    checks_of_images,
    checks_of_sets,
    comparisons,
)
from keras_maskrcnn.data.doctor.facts import Part, Row
from keras_maskrcnn.data.doctor.findings import (
    COMPARISONS,
    IMAGE_CHECKS,
    KINDS,
    SET_CHECKS,
    Finding,
    Findings,
    Kind,
)
from keras_maskrcnn.data.doctor.opening import sets_in
from keras_maskrcnn.data.doctor.statistics import statistics
from keras_maskrcnn.data.sample import Dataset, logger

WEIGHTS = {"error": 10, "warning": 3, "note": 0}  # of the findings of an image, to choose the worst
KINDS["set"] = Kind(
    "set",
    "error",
    "sets and records that cannot be opened",
    "The reason names the place in the file. Records at fault are left out; a set that cannot be opened is not "
    "inspected.",
)


@dataclasses.dataclass
class Report:
    """What an inspection found.

    Attributes:
        parts: list of `facts.Part`, one per set.
        findings: `findings.Findings`.
        closed: list of the names of the sets that could not be opened.
        weights: Counter from (name of a part, position) to the weight of the findings of the image.
    """

    parts: list
    findings: Findings
    closed: list
    weights: collections.Counter

    @property
    def statistics(self):
        """Dict from the names of the parts to their numbers, see `statistics.statistics`."""
        return {part.name: statistics(part) for part in self.parts}

    @property
    def exit_code(self):
        """2 if a set or an image cannot be read, 1 if there are other errors or warnings, else 0."""
        if self.closed or self.findings.count("unreadable"):
            return 2
        return int(self.findings.worst in ("error", "warning"))

    @property
    def verdict(self):
        """One line."""
        counts = collections.Counter(kind.level for kind in self.findings.kinds())
        if self.closed:
            return f"cannot be opened: {', '.join(self.closed)}"
        if counts["error"]:
            return f"repair first: {_kinds(counts['error'], 'error')}, {_kinds(counts['warning'], 'warning')}"
        return f"look at {_kinds(counts['warning'], 'warning')}" if counts["warning"] else "fine"

    def worst(self, count):
        """The images with the heaviest findings: list of (part, position), at most `count`."""
        parts = {part.name: part for part in self.parts}
        heaviest = [key for key, weight in self.weights.most_common(count) if weight]
        return [(parts[name], position) for name, position in heaviest]


@contextlib.contextmanager
def _without_log_of_dropped():
    """Leaves out the messages of readers about annotations that they leave out, which are findings."""

    def is_other(record):
        return not hasattr(record, "dropped")

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@_without_log_of_dropped()
def inspect(*data, step=None, images=None, channels=None, image_dtype=None):
    """Inspects data sets: every image is read and checked.

    Args:
        *data: paths that `data.open` takes, whose sets are all inspected, or `Dataset`s. Sets are compared with those
            before them, so the training set comes first.
        step: function of the numbers of images done and of all images, for a progress bar.
        images: folder of the images of the paths, which are then COCO JSON files.
        channels: channels that images are read with, 1 to 8, see `Dataset.decoded`; None for 3, or those of a
            `Dataset`.
        image_dtype: "uint8" or "uint16"; None for uint8 likewise.

    Returns:
        A `Report`.

    Raises:
        DataError: no format fits a path.
    """
    report = Report([], Findings(), [], collections.Counter())
    for name, dataset, faults in _opened(data, images):
        for place, reason in faults:
            report.findings.add(Finding("set", name, str(place), reason))
        if dataset is None:
            report.closed.append(name)
        else:
            if channels or image_dtype:
                dataset = dataset.decoded(channels or 3, image_dtype or "uint8")
            report.parts.append(Part(name, dataset))
    total, done = sum(len(part.dataset) for part in report.parts), 0
    for part in report.parts:
        for position in range(len(part.dataset)):
            _inspect_image(report, part, position)
            done += 1
            if step:
                step(done, total)
        for code, check in SET_CHECKS.items():
            for source, detail in check(part):
                report.findings.add(Finding(code, part.name, source, detail))
    for code, check in COMPARISONS.items():
        for name, source, detail in check(report.parts):
            report.findings.add(Finding(code, name, source, detail))
    _weigh_comparisons(report)
    return report


def _opened(data, images):
    """(name, dataset or None, faults) of every set; names have the folder where there are several paths."""
    for index, one in enumerate(data):
        if isinstance(one, Dataset):
            yield f"data {index + 1}" if len(data) > 1 else "data", one, []
            continue
        order = {"train": 0}  # the set that the others are compared with
        for name, dataset, faults in sorted(sets_in(one, images), key=lambda found: order.get(found[0], 1)):
            yield f"{pathlib.Path(one).name}/{name}" if len(data) > 1 else name, dataset, faults


def _inspect_image(report, part, position):
    facts = part.facts(position)
    if facts.sample is None:
        part.unreadable[position] = facts.error.reason
    else:
        part.rows.append(Row.of(position, facts))
    if facts.file:
        part.modes[facts.source] = facts.file.mode
    for code, check in IMAGE_CHECKS.items():
        for detail, instance in check(facts):
            report.findings.add(Finding(code, part.name, facts.source, detail, instance))
            report.weights[part.name, position] += WEIGHTS[KINDS[code].level]


def _weigh_comparisons(report):
    """Adds the findings of comparisons that name an image to its weight."""
    positions = {(part.name, row.source): row.position for part in report.parts for row in part.rows}
    for code in COMPARISONS:
        for finding in report.findings.of(code):
            if (place := (finding.part, finding.source)) in positions:
                report.weights[finding.part, positions[place]] += WEIGHTS[KINDS[code].level]


def _kinds(count, noun):
    return f"{count} kind of {noun}" if count == 1 else f"{count} kinds of {noun}"
