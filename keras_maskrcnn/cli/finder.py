"""A model with the options of a run of `predict`: from sources to detections."""

import dataclasses

import numpy as np

from keras_maskrcnn.cli.pictures import detections, pictures

# Options about objects, which models without them do not have.
OF_OBJECTS = ("score_threshold", "nms_iou", "max_detections", "classes")


@dataclasses.dataclass(frozen=True)
class Options:
    """What changes the results of a run.

    Attributes:
        score_threshold: minimum score; None for the model's option, or 0.5.
        nms_iou: maximum overlap of two boxes of a class; None for the model's.
        max_detections: maximum number of objects per image, and per tile; None for the model's.
        classes: names of the classes to keep; None for all.
        tiles: (height, width) of the tiles of larger images; None for the model's.
        overlap: pixels that neighbouring tiles share; None for the model's.
        tta: views of test-time augmentation, such as "flip,0.75,1.25"; None for none.
        every: of videos, each frame of this distance is read.
    """

    score_threshold: float | None = None
    nms_iou: float | None = None
    max_detections: int | None = None
    classes: tuple[str, ...] | None = None
    tiles: tuple[int, int] | None = None
    overlap: int | None = None
    tta: str | None = None
    every: int = 1

    def __post_init__(self):
        for name in ("classes", "tiles"):
            values = getattr(self, name)
            object.__setattr__(self, name, None if values is None else tuple(values))
        if self.every < 1:
            raise ValueError(f"--every {self.every}: must be at least 1")

    @classmethod
    def of(cls, args):
        """Those among the arguments of the command line."""
        return cls(**{field.name: getattr(args, field.name) for field in dataclasses.fields(cls)})


class Finder:
    """Finds objects in sources.

    Args:
        model: what `common.load` returns.
        name: its path, for messages.
        options: `Options`.
        annotations: Path of a COCO file with the image and category ids of the results, or None.

    Attributes:
        class_names: the model's, or None.
        schema: the model's outputs.
        stuff_names: names of the classes of its map from label 1 on; empty without a map.
        ids: `coco_ids.CocoIds`, or None.
        finds_objects: whether the model finds objects; regions otherwise.

    Raises:
        ValueError: in one line, for options that the model does not have.
    """

    def __init__(self, model, name, options, annotations=None):
        from keras_maskrcnn.heads.outputs import maps, of_objects

        self.class_names, self.schema = model.class_names, model.schema
        self.finds_objects = bool(of_objects(model.schema))
        self.stuff_names = next((output.names for output in maps(model.schema)), None) or ()
        self._model, self._name, self._options = model, name, options
        self.check_objects({key: getattr(options, key) for key in OF_OBJECTS})
        self._labels = _labels(options.classes, model.class_names)
        self.ids = _coco_ids(annotations, model.class_names and [*model.class_names, *self.stuff_names])
        self._detector = model if options.tta is None else _augmented(model, options.tta)

    @property
    def num_classes(self):
        """Number of the classes of objects."""
        return self._model.num_classes

    def check_objects(self, options):
        """Raises a ValueError for an option about objects that is set, if the model finds none."""
        for name, value in options.items():
            if not self.finds_objects and value not in (None, False):
                raise ValueError(f"--{name.replace('_', '-')} is about objects, and {self._name} finds none")

    def found_in(self, sources, name_of, is_wanted=None):
        """Yields each `Picture` of sources with its `Detections` or an exception, and each `End`, see `detections`.

        Args:
            sources: iterable of `inputs.Source`.
            name_of: as for `pictures`.
            is_wanted: function of a `Picture` that returns whether to detect in it; None for all.
        """
        items = pictures(sources, self._options.every, self.ids, self._model.image_type, name_of)
        if is_wanted is not None:
            items = filter(is_wanted, items)
        names = ("score_threshold", "nms_iou", "max_detections", "overlap", "tiles")
        options = {"batch_size": 1, "masks": "cropped", **{name: getattr(self._options, name) for name in names}}
        for item, found in detections(self._detector, items, options):
            if self._labels is not None and found is not None and not isinstance(found, Exception):
                found = found.rows(np.isin(found["labels"], self._labels))
            yield item, found


def _labels(names, class_names):
    """Labels of the classes of these names, or None for all."""
    if names is None:
        return None
    unknown = [name for name in names if name not in (class_names or ())]
    if unknown:
        known = ", ".join(class_names or ["no class names"])
        raise ValueError(f"--classes {', '.join(unknown)}: the model has {known}")
    return [class_names.index(name) + 1 for name in names]


def _coco_ids(path, class_names):
    """`CocoIds` of the file, or None without one; prints the classes that it lacks."""
    if path is None:
        return None
    from keras_maskrcnn.cli.coco_ids import CocoIds

    ids = CocoIds(path, class_names)
    absent = [name for name, number in zip(class_names, ids.category_ids, strict=True) if number is None]
    if absent:
        print(f"not in the COCO results, because {path.name} has no such category: {', '.join(absent)}")
    return ids


def _augmented(model, text):
    """The model with its detections merged over views."""
    from keras_maskrcnn.inference.augmented import TestTimeAugmentation

    return TestTimeAugmentation(model, **_views(text))


def _views(text):
    words = [word.strip() for word in text.split(",")]
    try:
        return {"flip": "flip" in words, "scales": tuple(float(word) for word in words if word != "flip")}
    except ValueError:
        raise ValueError(f"--tta {text}: must be flip, factors of the size, or both, such as flip,0.75,1.25") from None
