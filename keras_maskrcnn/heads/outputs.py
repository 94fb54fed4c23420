"""The schema of a model's outputs. Detection, evaluation, drawing and export read it; heads declare it."""

import dataclasses

import numpy as np
from keras import ops

from keras_maskrcnn.data.cropped_masks import Crop, CroppedMasks
from keras_maskrcnn.ops import canvas_masks
from keras_maskrcnn.ops.maps import class_map, class_maps
from keras_maskrcnn.ops.masks import paste, paste_crops

MASKS = ("box_masks", "canvas_masks")
KINDS = ("values", "boxes", "points", *MASKS, "map")
BOX_CELLS = 56  # cells per side of masks of the kind "canvas_masks" where boxes are to hold them


@dataclasses.dataclass(frozen=True)
class Output:
    """One array of the detections, with one row per object, or one of the kind "map" for the whole image.

    Attributes:
        name: key in the results of `predict` and `detect`.
        kind: how a row gets from pixels of the network's input to pixels of the image:
            "values": it has no coordinates, `[...]`, and stays as it is;
            "boxes": x1, y1, x2, y2, `[4]`, scaled;
            "points": `[K, 2 or more]`, x and y first, scaled;
            "box_masks": probabilities inside the row's box, `[m, m]`, pasted to bool `[H, W]`;
            "canvas_masks": probabilities in the cells of the whole canvas, `[h, w]`, 0 outside the row's box, enlarged
            to bool `[H, W]`; exports and test-time augmentation have them as "box_masks" of `BOX_CELLS` per side;
            "map": no row, but logits of the classes in the cells of the whole canvas, `[h, w, C]`, interpolated to the
            highest class of each pixel, uint8 `[H, W]`.
        exported: name in a SavedModel, or None if it is not exported.
        caption: format string that shows the value of a row in a drawing, such as "filled {:.0%}", or None.
        names: names of the K points, or of the values of K points, or None; a drawing connects those in
            `data.coco_keypoints.LIMBS`. Of a map, the names of its classes from label 1 on.
        stride: pixels of the network's input per cell of a map; not used by other kinds.

    Raises:
        ValueError: for an unknown kind.
    """

    name: str
    kind: str = "values"
    exported: str | None = None
    caption: str | None = None
    names: tuple | None = None
    stride: int = 4

    def __post_init__(self):
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of output {self.name!r} is not one of {', '.join(KINDS)}")

    @property
    def is_mask(self):
        """Whether a row is the mask of an object, which `detect` returns as pixels of the image."""
        return self.kind in MASKS


def of_objects(schema):
    """The outputs with one row per object: all but maps."""
    return tuple(output for output in schema if output.kind != "map")


def maps(schema):
    """The outputs of the kind "map"."""
    return tuple(output for output in schema if output.kind == "map")


class Declarations:
    """What a head or a model declares, as class attributes; empty unless a subclass sets them.

    Attributes:
        LOSSES: names of the loss terms.
        HEALTH: names of further scalars that are reported in training.
        FIELDS: names of the ground-truth fields that are needed, in a model of objects besides boxes, labels, crowd and
            valid.
        OUTPUTS: tuple of `Output`, what is predicted.
        PER_CLASS: names of the layers whose width depends on the number of classes.
    """

    LOSSES: tuple[str, ...] = ()
    HEALTH: tuple[str, ...] = ()
    FIELDS: tuple[str, ...] = ()
    OUTPUTS: tuple[Output, ...] = ()
    PER_CLASS: tuple[str, ...] = ()

    def per_class_layers(self):
        """The layers in `PER_CLASS` by name."""
        return {name: getattr(self, name) for name in self.PER_CLASS}

    def check_prepared(self, prepare):
        """Raises a ValueError if `data.prepare.Prepare` makes ground truth of a form that the shapes do not tell."""

    def published(self, source, names):
        """Rows of `weights.rows.Row` for the arrays that a published file has for this head; none by default.

        Args:
            source: one of `weights.SOURCES`.
            names: names of the arrays in the file.
        """
        del source, names
        return ()


class Detections(dict):
    """Detections of one image: a dict of arrays `[n, ...]`, one row per object, and the schema that describes them.

    Maps are the exception: an output of the kind "map" is one array `[H, W]`.

    Args:
        arrays: dict of arrays by output name.
        schema: tuple of `Output`.
    """

    def __init__(self, arrays, schema):
        super().__init__(arrays)
        self.schema = tuple(schema)

    def copy(self):
        """A shallow copy with the schema."""
        return Detections(self, self.schema)

    def rows(self, index):
        """The detections with these rows only, and the maps; `index` is any NumPy index of one axis."""
        whole = {output.name for output in maps(self.schema)}
        rows = {name: values if name in whole else values[index] for name, values in self.items()}
        return Detections(rows, self.schema)

    def full(self):
        """The detections with masks as arrays bool `[n, H, W]` in place of `CroppedMasks`."""
        return Detections({name: np.asarray(values) for name, values in self.items()}, self.schema)


def inside_boxes(schema):
    """The schema with masks inside boxes in place of masks of the canvas."""
    return tuple(
        dataclasses.replace(output, kind="box_masks") if output.kind == "canvas_masks" else output for output in schema
    )


def to_image(schema, rows, scale, image_size, how="continuous", masks="full", canvas=None):
    """Detections of one image, from pixels of the network's input to pixels of the image.

    Args:
        schema: tuple of `Output`.
        rows: dict of arrays `[n, ...]` by output name, "boxes" among them, and maps `[h, w, C]`; or maps alone.
        scale: (x, y), image pixels per input pixel.
        image_size: (height, width) of the image.
        how: how masks are pasted, see `ops.masks.paste`.
        masks: "full" for arrays bool `[n, H, W]`, "cropped" for `CroppedMasks`, "probabilities" for `[n, m, m]` inside
            the boxes.
        canvas: (height, width) of the network's input; only masks of the kind "canvas_masks" need it.

    Returns:
        `Detections`; with "probabilities" their schema is that of `inside_boxes`.
    """
    scale = np.asarray(scale, "float32")
    boxes = rows["boxes"] * np.tile(scale, 2) if of_objects(schema) else None

    def steps(values):  # cells per pixel of the image
        return np.asarray(values.shape[:0:-1], "float32") / (np.asarray(canvas, "float32")[::-1] * scale)

    def cropped(crops):
        return CroppedMasks(crops, image_size)

    pasted = {
        "full": lambda values: paste(values, boxes, image_size, how=how),
        "cropped": lambda values: cropped(paste_crops(values, boxes, image_size, how=how, keep=_packed)),
        "probabilities": lambda values: values,
    }
    enlarged = {
        "full": lambda values: canvas_masks.paste(values, boxes, image_size, steps(values)),
        "cropped": lambda values: cropped(
            canvas_masks.paste_crops(values, boxes, image_size, steps(values), keep=_packed)
        ),
        "probabilities": lambda values: _in_boxes(values[None], rows["boxes"][None], canvas)[0],
    }
    convert = {
        "values": lambda values: values,
        "boxes": lambda values: values * np.tile(scale, 2),
        "points": lambda values: np.concatenate([values[..., :2] * scale, values[..., 2:]], axis=-1),
        "box_masks": pasted[masks],
        "canvas_masks": enlarged[masks],
    }
    found = {output.name: convert[output.kind](rows[output.name]) for output in of_objects(schema)}
    for output in maps(schema):
        found[output.name] = class_map(rows[output.name], 1 / (scale * output.stride), image_size)
    shown = inside_boxes(schema) if masks == "probabilities" else schema
    return Detections({output.name: found[output.name] for output in schema}, shown)


def _in_boxes(masks, boxes, canvas):
    """Masks of the canvas `[B, D, h, w]` inside their boxes `[B, D, 4]`, an array `[B, D, m, m]`."""
    if not masks.shape[1]:
        return np.zeros((*masks.shape[:2], BOX_CELLS, BOX_CELLS), "float32")
    return ops.convert_to_numpy(canvas_masks.inside_boxes(masks, boxes, canvas, BOX_CELLS))


def _packed(left, top, mask):
    return Crop(left, top, mask).packed()


def exported(schema, found, sizes, image_size=None, canvas=None):
    """Detections of a batch under their exported names, for a SavedModel (graph form, `keras.ops`).

    Coordinates become relative to the image, y before x, as in TensorFlow's detection models; integers become int64,
    and maps int64 `[B, height, width]`, the class of each pixel, as in DeepLab's.

    Args:
        schema: tuple of `Output`.
        found: dict of tensors `[B, D, ...]`, with "valid" bool `[B, D]`, and of maps.
        sizes: float32 `[B, 2]`, height and width of each image inside the canvas.
        image_size: (height, width) of the images, int scalars, which have one size; only maps need it.
        canvas: (height, width) of the canvas, int scalars; only "canvas_masks" need it.

    Returns:
        dict of tensors `[B, D, ...]`, masks of both kinds being probabilities inside the boxes, with `num_detections`
        int32 `[B]`, and of maps.
    """
    height_width = sizes[:, None]
    convert = {
        "values": lambda values: ops.cast(values, "int64") if "int" in str(values.dtype) else values,
        "boxes": lambda values: ops.take(values, np.array([1, 0, 3, 2]), axis=-1) / ops.tile(height_width, (1, 1, 2)),
        "points": lambda values: ops.concatenate(
            [ops.flip(values[..., :2], axis=-1) / height_width[:, None], values[..., 2:]], axis=-1
        ),
        "box_masks": lambda values: values,
        "canvas_masks": lambda values: canvas_masks.inside_boxes(values, found["boxes"], canvas, BOX_CELLS),
    }
    outputs = [output for output in schema if output.exported]
    answer = {output.exported: convert[output.kind](found[output.name]) for output in of_objects(outputs)}
    if of_objects(schema):
        answer["num_detections"] = ops.sum(ops.cast(found["valid"], "int32"), axis=1)
    for output in maps(outputs):
        scale = [sizes[0, axis] / (ops.cast(image_size[axis], "float32") * output.stride) for axis in (1, 0)]
        answer[output.exported] = ops.cast(class_maps(found[output.name], scale, image_size), "int64")
    return answer
