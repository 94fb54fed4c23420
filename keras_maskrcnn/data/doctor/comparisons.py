"""Checks across sets: the same image twice, classes that only one set has, files that no set lists."""

import collections
import pathlib

from keras_maskrcnn.data.doctor.checks_of_sets import class_counts
from keras_maskrcnn.data.doctor.duplicates import Groups, equal_groups, near_pairs
from keras_maskrcnn.data.doctor.findings import comparison
from keras_maskrcnn.data.doctor.stated import CocoFile
from keras_maskrcnn.data.outlines import IMAGE_ENDINGS


def _owned_rows(parts):
    return [(part.name, row) for part in parts for row in part.rows]


@comparison(
    "duplicate",
    "warning",
    "images that a set contains twice",
    "They count twice in training and in scores, perhaps with different annotations. --fix keeps the first.",
)
def duplicate(parts):
    """Equal pixels within a set."""
    for part in parts:
        for first, *others in equal_groups([row.digest for row in part.rows]):
            for other in others:
                yield part.name, part.rows[other].source, f"the same pixels as {part.rows[first].source}"


@comparison(
    "leak",
    "error",
    "images that are in two sets",
    "Scores on them say nothing about new images. Remove them from one of the sets; --fix removes them from the later.",
)
def leak(parts):
    """Equal pixels in different sets; the finding is that of the later set."""
    rows = _owned_rows(parts)
    for group in equal_groups([row.digest for _, row in rows]):
        owner, first = rows[group[0]]
        for name, row in (rows[index] for index in group[1:]):
            if name != owner:
                yield name, row.source, f"the same pixels as {first.source} in {owner}"


def copies(parts):
    """Images that have the pixels of an earlier one: dict from names of parts to dicts from positions to reasons."""
    rows, found = _owned_rows(parts), collections.defaultdict(dict)
    for group in equal_groups([row.digest for _, row in rows]):
        owner, first = rows[group[0]]
        for name, row in (rows[index] for index in group[1:]):
            found[name][row.position] = f"the same pixels as {first.source} in {owner}"
    return found


@comparison(
    "near-leak",
    "warning",
    "images that look like one in another set",
    "Frames of a video, crops or resized copies: scores on them are too good. Split by scene, not by image.",
)
def near_leak(parts):
    """Near-duplicates in different sets that have not the same pixels."""
    rows, seen = _owned_rows(parts), set()
    for first, second in near_pairs([row.thumbnail for _, row in rows]):
        (owner, one), (name, other) = rows[first], rows[second]
        if owner != name and second not in seen and one.digest != other.digest:
            seen.add(second)
            yield name, other.source, f"looks like {one.source} in {owner}"


@comparison(
    "near-duplicate",
    "note",
    "groups of images that look the same within a set",
    "Frames of a video or a series: the set holds less than its number of images suggests, and a random split leaks.",
)
def near_duplicate(parts):
    """Groups that near-duplicates form."""
    for part in parts:
        groups = Groups(len(part.rows))
        for first, second in near_pairs([row.thumbnail for row in part.rows]):
            groups.join(first, second)
        for members in equal_groups(groups.roots()):
            others = ", ".join(pathlib.Path(part.rows[index].source).name for index in members[1:4])
            yield (
                part.name,
                part.rows[members[0]].source,
                f"{len(members)} images: also {others}{', …' * (len(members) > 4)}",
            )


@comparison(
    "class-unseen",
    "warning",
    "classes with objects in a later set and none in the first",
    "The model never sees them in training, and the score of the class is zero.",
)
def class_unseen(parts):
    """Compared with the first set, where the names of the classes are the same."""
    for part in parts[1:]:
        if list(part.dataset.class_names) != list(parts[0].dataset.class_names):
            continue
        first = class_counts(parts[0])
        for name, count in class_counts(part).items():
            if count and not first[name]:
                yield part.name, name, f"{count} objects, none in {parts[0].name}"


@comparison(
    "unlisted",
    "warning",
    "image files that no COCO file lists",
    "They are not read at all: not even as images without objects.",
)
def unlisted(parts):
    """Files in the folders of images."""
    listed = collections.defaultdict(set)
    for part in parts:
        if isinstance(part.files, CocoFile):
            listed[part.dataset.folder, part.name] |= {image["file_name"] for image in part.dataset.images}
    for (folder, name), _ in listed.items():
        known = set().union(*(names for (other, _), names in listed.items() if other == folder))
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS):
            if path.relative_to(folder).as_posix() not in known:
                yield name, str(path), "is in no list"
