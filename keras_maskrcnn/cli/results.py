"""The files that `predict` writes. Each is written image by image, so that a stopped run keeps what it has."""

import abc
import csv
import json
import os

import numpy as np
from PIL import Image

from keras_maskrcnn.data.cropped_masks import Crop, crops_of
from keras_maskrcnn.ops.measures import measures

COLUMNS = ("file", "frame", "id", "class", "score", "x1", "y1", "x2", "y2")
MEASURES = ("area", "circumference", "centroid_x", "centroid_y", "equivalent_diameter")
MOST_IDS = 2**16 - 1


def created(path):
    """The path, after its folder has been created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def mask_crops(found):
    """The `Crop` of each detection's mask, from the first output of this kind; None in a model without masks."""
    name = next((output.name for output in found.schema if output.is_mask), None)
    return None if name is None else crops_of(found[name])


class Writer(abc.ABC):
    """What `predict` writes results with."""

    @abc.abstractmethod
    def add(self, picture, found):
        """Writes the `Detections` in a `pictures.Picture`."""

    def close(self):  # noqa: B027, most writers have nothing to complete
        """Completes open files."""


class Overlays(Writer):
    """Images with what was found drawn on them: PNG files, and an MP4 file for each video.

    Args:
        folder: Path of the files.
        draw: function of an image, `Detections` and the integer factor by which the drawing is enlarged.
        frames: whether frames of videos are PNG files too, instead of an MP4 file.

    Attributes:
        where: the file that the last picture is in.
    """

    def __init__(self, folder, draw, frames):
        self._folder, self._draw, self._frames = folder, draw, frames
        self._source = self._video = self.where = None

    def add(self, picture, found):
        """Draws what was found in an image."""
        from keras_maskrcnn.visualize import fitting_scale

        if picture.source is not self._source:
            self.close()
        drawn = self._draw(picture.image, found, fitting_scale(picture.image))
        if picture.frame is None or self._frames:
            self.where = self._file(f"{picture.name}.png", picture.source)
            Image.fromarray(drawn).save(self.where)
            return
        if self._video is None:
            from keras_maskrcnn.data.video import VideoWriter

            self.where = self._file(f"{picture.name.rpartition('/')[0]}.mp4", picture.source)
            self._source, self._video = picture.source, VideoWriter(self.where, picture.rate)
        self._video.add(drawn)

    def close(self):
        """Completes the video that is being written."""
        if self._video is not None:
            self._video.close()
        self._source = self._video = None

    def _file(self, name, source):
        path = self._folder / name
        if source.path and path.resolve() == source.path.resolve():
            raise ValueError("its overlay would replace it; give another folder as --output")
        return created(path)


def coco_rows(picture, found, class_names, ids):
    """The `Detections` in a picture as COCO results, see `evaluation.coco_results`, in the types of JSON.

    Args:
        picture: `pictures.Picture`.
        found: `Detections`.
        class_names: K names, or None.
        ids: `coco_ids.CocoIds` or None; detections of classes that its file lacks are left out.
    """
    from keras_maskrcnn.evaluation import coco_results, for_json

    categories = ids and ids.category_ids
    if categories:
        found = found.rows([categories[label - 1] is not None for label in found["labels"]])
    rows = coco_results([found], [picture.image_id], categories)
    for row, label in zip(rows, found["labels"], strict=True):
        row["file_name"] = str(picture.source)
        if picture.frame is not None:
            row["frame"] = picture.frame
        if class_names:
            row["category_name"] = class_names[label - 1]
    return for_json(rows)


class JsonList:
    """A list in a JSON file, which is valid after each addition.

    Args:
        path: Path of the file.
        start: what precedes the items.
        end: what follows them.
    """

    def __init__(self, path, start="[", end="\n]\n"):
        self._file, self._empty, self._end = open(created(path), "wb"), True, end.encode()  # noqa: SIM115, see `close`
        self._append(start)

    def extend(self, items):
        """Appends items of the types of JSON."""
        lines = ["\n" + json.dumps(item, allow_nan=False) for item in items]
        if lines:
            self._file.seek(-len(self._end), os.SEEK_END)
            self._append(("" if self._empty else ",") + ",".join(lines))
            self._empty = False

    def close(self):
        """Closes the file."""
        self._file.close()

    def _append(self, text):
        self._file.write(text.encode() + self._end)
        self._file.flush()


class JsonResults(JsonList, Writer):
    """COCO results, see `coco_rows`.

    Args:
        path: Path of the file.
        class_names: as for `coco_rows`.
        ids: as for `coco_rows`.
    """

    def __init__(self, path, class_names=None, ids=None):
        super().__init__(path)
        self._class_names, self._ids = class_names, ids

    def add(self, picture, found):
        """Appends the objects."""
        self.extend(coco_rows(picture, found, self._class_names, self._ids))


class CsvRows(Writer):
    """One row for each object: where it is and, in models with masks, its `ops.measures.measures` in pixels.

    Args:
        path: Path of the file.
        class_names: K names, or None for the numbers of the classes.
    """

    def __init__(self, path, class_names):
        self._class_names = class_names
        self._file = open(created(path), "w", newline="", encoding="utf-8")  # noqa: SIM115, as above
        self._rows = csv.DictWriter(self._file, (*COLUMNS, *MEASURES))
        self._rows.writeheader()

    def add(self, picture, found):
        """Appends the objects."""
        crops = mask_crops(found) or [None] * len(found["labels"])
        objects = zip(found["labels"], found["scores"], found["boxes"], crops, strict=True)
        for number, (label, score, box, crop) in enumerate(objects, start=1):
            self._rows.writerow({
                "file": picture.source,
                "frame": picture.frame,
                "id": number,
                "class": self._class_names[label - 1] if self._class_names else int(label),
                "score": f"{score:.4f}",
                **{name: f"{edge:.2f}" for name, edge in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
                **(_in_image(crop) if crop else {}),
            })  # fmt: skip
        self._file.flush()

    def close(self):
        """Closes the file."""
        self._file.close()


def _in_image(crop):
    found = measures(crop.mask)
    found["centroid_x"] += crop.left
    found["centroid_y"] += crop.top
    return {name: f"{found[name]:.0f}" if name == "area" else f"{found[name]:.2f}" for name in MEASURES}


class IdImages(Writer):
    """16-bit grey PNG files: each pixel holds the number of the object, by descending score from 1; 0 is background.

    Where objects overlap, the one with the higher score is visible. Of a model without objects, pixels hold the number
    of their class.

    Args:
        folder: Path of the files.
    """

    def __init__(self, folder):
        self._folder = folder

    def add(self, picture, found):
        """Writes the file of the image; a ValueError without masks or with more objects than 16 bits can number."""
        from keras_maskrcnn.heads.outputs import of_objects

        ids = self._numbered(picture, found) if of_objects(found.schema) else found["semantic"].astype(np.uint16)
        Image.fromarray(ids).save(created(self._folder / f"{picture.name}.png"))

    def _numbered(self, picture, found):
        crops = mask_crops(found)
        if crops is None:
            raise ValueError("--ids needs masks, and the model predicts none")
        ids = np.zeros(picture.image.shape[:2], np.uint16)
        for number, crop in enumerate(crops, start=1):
            if number > MOST_IDS:
                raise ValueError(f"--ids holds {MOST_IDS} objects, and more were found")
            x1, y1, x2, y2 = crop.box
            part = ids[y1:y2, x1:x2]
            part[crop.mask & (part == 0)] = number
        return ids


class CutOuts(Writer):
    """Each object as a PNG file of its own, transparent outside its mask: NAME_001.png, NAME_002.png and so on.

    Args:
        folder: Path of the files.
    """

    def __init__(self, folder):
        self._folder = folder

    def add(self, picture, found):
        """Writes a file for each object."""
        from keras_maskrcnn.drawing.sheets import as_rgb

        image = as_rgb(picture.image)
        for number, crop in enumerate(mask_crops(found) or _boxes(picture.image, found["boxes"]), start=1):
            crop = Crop.around(crop.mask).moved(crop.left, crop.top)
            x1, y1, x2, y2 = crop.box
            if crop.mask.size:
                pixels = np.dstack([image[y1:y2, x1:x2], crop.mask * np.uint8(255)])
                Image.fromarray(pixels).save(created(self._folder / f"{picture.name}_{number:03d}.png"))


def _boxes(image, boxes):
    """Boxes as masks, for models without masks."""
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in np.clip(np.round(boxes), 0, [width, height, width, height]).astype(int).tolist():
        yield Crop(x1, y1, np.ones((max(y2 - y1, 0), max(x2 - x1, 0)), bool))
