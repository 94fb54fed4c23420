"""Classes merged into groups, for example COCO's 80 categories into vehicles, people and animals."""

import numpy as np

from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.coco_names import CATEGORIES
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.fields import instances
from keras_maskrcnn.data.sample import Wrapper

VEHICLES_PEOPLE_ANIMALS = {
    "vehicle": tuple(CATEGORIES[number] for number in range(2, 10)),
    "person": (CATEGORIES[1],),
    "animal": tuple(CATEGORIES[number] for number in range(16, 26)),
}


class Grouped(Wrapper):
    """A data set whose classes are groups of the classes of another data set.

    Instances of a class in no group are dropped, and so are images without any other instance; maps of the images stay
    as they are. Labels come from `dataset.labels_at`, so no image is decoded at construction if the reader has the
    labels in memory; an image that cannot be read is noted in `skipped`.

    Args:
        dataset: A Dataset.
        groups: Dict from the name of a group to the names of its classes. The data set may lack some of these, but not
            all of a group: a file that shows no elephant may not list elephants.

    Attributes:
        class_names: Names of the groups, in the order of the dict.
        positions: For each image kept, its position in the data set.

    Raises:
        DataError: The data set has no class of a group, or no image with an instance of a group.
        ValueError: There is no group, or a class is in two groups.
    """

    def __init__(self, dataset, groups):
        super().__init__(dataset)
        self.groups = {name: tuple(members) for name, members in groups.items()}
        self.class_names = list(self.groups)
        self._new_labels = self._table()
        self.positions = [position for position in range(len(dataset)) if self._holds_any(position)]
        if not self.positions:
            raise DataError(self._name(), f"no readable image shows any {', '.join(self.groups)}")

    def _name(self):
        return type(self.dataset).__name__

    def _table(self):
        """Returns the new label of each old label, 0 for none: int32 [K + 1]."""
        members = [member for group in self.groups.values() for member in group]
        twice = next((member for member in members if members.count(member) > 1), None)
        if twice or not members:
            raise ValueError(f"groups name the class {twice!r} twice" if twice else "groups name no class")
        known = self.dataset.class_names
        table = np.zeros(len(known) + 1, np.int32)
        for label, (name, group) in enumerate(self.groups.items(), 1):
            found = [index for index, old in enumerate(known, 1) if old in group]
            if not found:
                reason = f"has none of the classes of the group {name!r} ({', '.join(group)}), only {', '.join(known)}"
                raise DataError(self._name(), reason)
            table[found] = label
        return table

    def _holds_any(self, position):
        try:
            return self._groups_at(position).any()
        except DataError as error:
            skip(self.dataset, error)
            return False

    def _groups_at(self, position):
        """Returns the new labels at a position of the original data set, 0 for an instance in no group."""
        return self._new_labels[self.dataset.labels_at(position)]

    def __len__(self):
        return len(self.positions)

    def labels_at(self, position):
        """Returns the labels of the groups of an image's instances: int32 [n]."""
        labels = self._groups_at(self.positions[position])
        return labels[labels > 0]

    def coco_annotations(self, image_id):
        """Returns the annotations of the data set that are in a group, with the labels of the groups."""
        annotations = self.dataset.coco_annotations(image_id)
        if annotations is None:
            return None
        annotations = [{**a, "category_id": int(self._new_labels[a["category_id"]])} for a in annotations]
        return [annotation for annotation in annotations if annotation["category_id"]]

    def read(self, position):
        """Returns an image with the instances that are in a group."""
        sample = self.dataset[self.positions[position]]
        labels = self._new_labels[sample["labels"]]
        kept = labels > 0
        return {**instances(sample, kept), "labels": labels[kept]}
