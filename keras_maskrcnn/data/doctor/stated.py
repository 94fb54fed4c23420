"""What annotation files state of an image, before a reader checks, clips or leaves out anything.

A reader returns what can be trained on; the checks compare it with the file. Each format has a class here with the
method `image`; checks of sets also use its attributes.
"""

import pathlib
import re
from typing import NamedTuple

from keras_maskrcnn.data import via
from keras_maskrcnn.data.cis680 import Cis680
from keras_maskrcnn.data.coco import Coco
from keras_maskrcnn.data.doctor.coco_records import without_bad_records
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import opened
from keras_maskrcnn.data.json_text import read_json
from keras_maskrcnn.data.nuclei import Nuclei
from keras_maskrcnn.data.outlines import Outlines
from keras_maskrcnn.data.penn_fudan import PennFudan
from keras_maskrcnn.data.run_lengths import is_box
from keras_maskrcnn.data.voc import Voc
from keras_maskrcnn.data.yolo import Yolo, labels_of


class Instance(NamedTuple):
    """What a file states of an instance.

    Attributes:
        key: of the instance in the reader's `dropped`.
        place: where it is, for messages.
        box: (x1, y1, x2, y2) in pixels, or None.
        polygons: list of flat lists x1, y1, x2, y2, …, or None.
        counts: run lengths: a list of numbers (uncompressed), a str, or None.
        area: as written, or None.
    """

    key: object
    place: str
    box: tuple | None = None
    polygons: list | None = None
    counts: object = None
    area: object = None


class Stated(NamedTuple):
    """What the files state of an image.

    Attributes:
        path: Path of the image file, or None for images in memory or in an archive.
        size: (H, W) of the annotations, or None.
        instances: list of `Instance`, in the order of the sample, with those that the reader leaves out.
        relative: whether polygons are in shares of the image's width and height.
    """

    path: pathlib.Path | None = None
    size: tuple | None = None
    instances: tuple = ()
    relative: bool = False


class Nothing:
    """A reader without annotation files, or of an unknown class.

    Attributes:
        boxes_of_masks: whether the boxes of its samples are those of the masks.
    """

    boxes_of_masks = False

    def __init__(self, reader):
        self.reader = reader

    def image(self, position):
        """Returns the `Stated` of the image at a position; raises no error for damaged records."""
        return Stated()


class CocoFile(Nothing):
    """`content` is that of the JSON file."""

    def __init__(self, reader):
        super().__init__(reader)
        self.content, _ = without_bad_records(read_json(reader.path))
        self._of_image = {image["id"]: [] for image in self.content["images"]}
        for annotation in self.content["annotations"]:
            self._of_image[annotation["image_id"]].append(annotation)

    def image(self, position):
        """Path, size, and instances with boxes and masks as written."""
        record = self.reader.images[position]
        instances = [self._instance(annotation) for annotation in self._of_image[record["id"]]]
        path = self.reader.folder / record["file_name"]
        return Stated(path, (int(record["height"]), int(record["width"])), instances)

    def _instance(self, annotation):
        box, mask = annotation.get("bbox"), annotation.get("segmentation")
        if is_box(box):
            x, y, w, h = box
            box = x, y, x + w, y + h
        return Instance(
            annotation["id"],
            f"annotation {annotation['id']}",
            box if isinstance(box, tuple) else None,
            polygons=mask if isinstance(mask, list) else None,
            counts=mask.get("counts") if isinstance(mask, dict) else None,
            area=annotation.get("area"),
        )


class OutlineFiles(Nothing):
    """VIA, LabelMe, YOLO."""

    boxes_of_masks = True

    def image(self, position):
        """Path, size, and polygons."""
        record = self.reader.records[position]
        instances = [Instance(i.place, i.place, polygons=i.polygons) for i in record.instances]
        return Stated(record.path, record.size, instances, self.reader.relative)


class ViaFile(OutlineFiles):
    """`entries` are those of the JSON file."""

    def __init__(self, reader):
        super().__init__(reader)
        self.entries = via.entries_of(reader.source)


class YoloFiles(OutlineFiles):
    """Label files are compared with images."""

    def __init__(self, reader):
        super().__init__(reader)
        self.labels = labels_of(reader.source)
        names = {record.image_id for record in reader.records}
        files = {path.relative_to(self.labels).with_suffix("").as_posix() for path in self.labels.rglob("*.txt")}
        self.without_image, self.without_labels = sorted(files - names), sorted(names - files)


class IdMaskFiles(Nothing):
    """Penn-Fudan, nuclei, Pascal VOC: the size is that of the mask file, its folder is chosen by `places`."""

    boxes_of_masks = True

    def image(self, position):
        """Path and size."""
        name = self.reader.names[position]
        path, mask = self.places(name)
        return Stated(path, _size_of(mask), self.instances(name))

    def places(self, name):
        """Paths of the image and of its mask."""
        return (
            self.reader.folder / "JPEGImages" / f"{name}.jpg",
            self.reader.folder / "SegmentationObject" / f"{name}.png",
        )

    def instances(self, name):
        """Instances that text files state next to the mask."""
        return ()


class NucleiFiles(IdMaskFiles):
    """One folder per image."""

    def places(self, name):
        """Paths of the image and of its mask, or of one of its masks."""
        folder = self.reader.folder / self.reader.part / name
        masks = folder / "mask_ids" / f"{name}.png"
        return folder / "images" / f"{name}.png", masks if masks.is_file() else next(folder.glob("masks/*.png"), masks)


class PennFudanFiles(IdMaskFiles):
    """Text files state boxes with pixels counted from 1, and both corners inside."""

    def places(self, name):
        """Paths of the photo and of its mask."""
        return self.reader.folder / "PNGImages" / f"{name}.png", self.reader.folder / "PedMasks" / f"{name}_mask.png"

    def instances(self, name):
        """Boxes of the text file, if there is one."""
        path = self.reader.folder / "Annotation" / f"{name}.txt"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        found = re.findall(r"Bounding box for object (\d+).*: \((\d+), (\d+)\) - \((\d+), (\d+)\)", text)
        boxes = [(int(number), tuple(map(int, corners))) for number, *corners in found]
        return [Instance(n, f"person {n}", (x1 - 1, y1 - 1, x2, y2)) for n, (x1, y1, x2, y2) in sorted(boxes)]


class Cis680Arrays(Nothing):
    """Boxes of the `.npy` file, clipped to the image by the reader."""

    def image(self, position):
        """Size and boxes."""
        number = int(self.reader.positions[position])
        boxes, start = self.reader.boxes_of(number)
        instances = [Instance(start + i, f"mask {start + i}", tuple(box)) for i, box in enumerate(boxes.tolist())]
        return Stated(size=tuple(self.reader.image_size), instances=instances)


FORMATS = {
    Coco: CocoFile,
    via.Via: ViaFile,
    Yolo: YoloFiles,
    PennFudan: PennFudanFiles,
    Nuclei: NucleiFiles,
    Voc: IdMaskFiles,
    Cis680: Cis680Arrays,
    Outlines: OutlineFiles,
}


def stated_by(reader):
    """Returns the object of `FORMATS` for a reader, or `Nothing`."""
    return next((files for kind, files in FORMATS.items() if isinstance(reader, kind)), Nothing)(reader)


def _size_of(path):
    try:
        with opened(path, "a mask") as mask:
            return mask.height, mask.width
    except DataError:  # the reader says so
        return None
