"""The data of the assignment "Instance Segmentation with Mask R-CNN" (CIS 680): four files, two HDF5 and two `.npy`."""

import contextlib
import itertools
import math
import os
import pathlib
import threading
import zlib

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular
from keras_maskrcnn.data.sample import Dataset, box_fault, log_dropped
from keras_maskrcnn.pickles.npy import UnreadableFileError, read_objects

FILES = {
    "images": "hw3_mycocodata_img_comp_zlib.h5",
    "masks": "hw3_mycocodata_mask_comp_zlib.h5",
    "labels": "hw3_mycocodata_labels_comp_zlib.npy",
    "boxes": "hw3_mycocodata_bboxes_comp_zlib.npy",
}
KEY = "data"  # the one dataset in each of the HDF5 files
CLASSES = ("vehicle", "person", "animal")
MAX_READ_BYTES = 2**30  # of the part of an HDF5 dataset that is decoded at once; assign another number to change it
MAX_CHUNKS = 2**16  # in such a part, which a file of any size may declare; likewise
PARTS = 4  # one in four images is for testing


class Cis680(Dataset):
    """Reads the course's files: images [N, 3, H, W], masks [M, H, W], and for each image its labels and its boxes.

    Masks are stored in the order of the images: the next len(labels[i]) masks belong to image i. Images of any numeric
    dtype are read if their values are integers in 0..255. Boxes that extend over the border are clipped. An instance
    whose box is not finite, has no extent or lies outside the image, or whose mask is empty, is left out and noted in
    `dropped`; an image without instances stays as a negative.

    The split is fixed: the images are shuffled by `numpy.random.default_rng(0)` and then sorted by the set of their
    classes. Every fourth image is for testing, the others for training, so that each set of classes is divided three
    to one as nearly as its number of images allows, and a set with four images or more occurs in both parts.

    Images and masks are read with each sample, and a file is open only while it is read: several threads or processes
    may read, and the reader can be pickled. Random access is slow where a file is compressed in chunks of many images;
    `data.batches(cache=True)` reads each chunk once, in order.

    Args:
        folder: The folder that holds the four files.
        split: "train", "test" or "all".

    Attributes:
        positions: int64 [n], the number of each sample's image in the files.
        dropped: Dict from the number of a mask in the files to the reason why its instance is left out.

    Raises:
        DataError: A file is missing or is not in this format, or the files are inconsistent. Sizes, counts, labels
            and boxes are checked at construction, pixels when a sample is read.
        ValueError: `split` has another value.
    """

    labels_known = True

    def __init__(self, folder, split="all"):
        self.folder, self.split = pathlib.Path(folder), split
        self.class_names = list(CLASSES)
        if split not in ("train", "test", "all"):
            raise ValueError(f"split must be train, test or all, not {split!r}")
        self.paths = {kind: self.folder / name for kind, name in FILES.items()}
        self._check_files()
        self._labels, self._boxes = self._read_labels(), self._read_boxes()
        self._starts = np.cumsum([0, *map(len, self._labels)])
        self._check_arrays()
        self.positions = self._positions()
        self.dropped = {}
        self._drop_boxes()

    def _check_files(self):
        if not self.folder.is_dir():
            raise DataError(self.folder, "no such folder")
        for path in self.paths.values():
            if not path.is_file():
                raise DataError(path, "no such file")

    def _read_labels(self):
        path = self.paths["labels"]
        result = []
        for number, labels in enumerate(_read_objects(path)):
            if labels.ndim > 1 or not _are_whole(labels):
                what = f"{labels.dtype} of shape {list(labels.shape)}"
                raise DataError(path, f"the labels of image {number} are {what}, not whole numbers of shape [n]")
            wrong = labels[(labels < 1) | (labels > len(CLASSES))]
            if wrong.size:
                known = ", ".join(f"{label} {name}" for label, name in enumerate(CLASSES, 1))
                raise DataError(path, f"image {number} has the label {wrong.flat[0]:g}, which is none of {known}")
            result.append(labels.astype(np.int32).reshape(-1))
        return result

    def _read_boxes(self):
        path = self.paths["boxes"]
        result = []
        for number, boxes in enumerate(_read_objects(path)):
            if boxes.size and boxes.shape != (4,) and boxes.shape[1:] != (4,):
                raise DataError(path, f"the boxes of image {number} have shape {list(boxes.shape)}, not [n, 4]")
            result.append(boxes.astype(np.float32).reshape(-1, 4))
        return result

    def _check_arrays(self):
        """Checks that the four files describe the same images and instances, without reading images and masks."""
        self._images, self._masks = _Array(self.paths["images"], 4), _Array(self.paths["masks"], 3)
        images, masks = self._images.shape, self._masks.shape
        if images[1] != 3:
            raise DataError(self.paths["images"], f"the images have shape {list(images)}, not [N, 3, H, W]")
        if 0 in images:
            raise DataError(self.paths["images"], "holds no image" if not images[0] else "holds images without pixels")
        for kind, values in (("labels", self._labels), ("boxes", self._boxes)):
            if len(values) != images[0]:
                raise DataError(self.paths[kind], f"has {kind} of {len(values)} images, but there are {images[0]}")
        for number, (labels, boxes) in enumerate(zip(self._labels, self._boxes, strict=True)):
            if len(labels) != len(boxes):
                raise DataError(self.paths["boxes"], f"image {number} has {len(boxes)} boxes, but {len(labels)} labels")
        if masks[0] != self._starts[-1]:
            reason = f"holds {masks[0]} masks, but there are {self._starts[-1]} labels in all"
            raise DataError(self.paths["masks"], reason)
        if masks[0] and masks[1:] != images[2:]:
            size = " x ".join(map(str, images[:1:-1]))
            raise DataError(self.paths["masks"], f"the masks are {masks[2]} x {masks[1]} pixels, the images {size}")
        self.image_size = images[2:]

    def _positions(self):
        count = len(self._labels)
        if self.split == "all":
            return np.arange(count)
        if count < PARTS:
            raise DataError(self.folder, f"holds {count} images, too few to set one in {PARTS} aside for testing")
        order = np.random.default_rng(0).permutation(count)
        order = np.array(sorted(order, key=lambda number: sorted(set(self._labels[number].tolist()))))
        for_testing = np.arange(count) % PARTS == PARTS - 1
        return np.sort(order[for_testing if self.split == "test" else ~for_testing])

    def _drop_boxes(self):
        for number in self.positions:
            boxes = self._boxes[number]
            for index, box in enumerate(boxes):
                if fault := box_fault(box, self.image_size):
                    self.dropped[int(self._starts[number]) + index] = f"its box {fault}"
            boxes[:] = np.clip(boxes, 0, np.array([*self.image_size[::-1]] * 2, np.float32))
        log_dropped(self.folder, self.dropped)

    def _kept(self, number):
        """Returns the indices of the instances of an image that are not dropped."""
        start = int(self._starts[number])
        return [index for index in range(len(self._labels[number])) if start + index not in self.dropped]

    def boxes_of(self, number):
        """Returns the boxes of an image in the files, clipped to it, and the number of its first mask."""
        return self._boxes[number], int(self._starts[number])

    def __len__(self):
        return len(self.positions)

    def labels_at(self, position):
        """Returns the labels of a sample without reading its pixels: int32 [n]."""
        number = self.positions[position]
        return self._labels[number][self._kept(number)]

    def read(self, position):
        """Returns one image with its instances."""
        number = int(self.positions[position])
        start, stop = map(int, self._starts[number : number + 2])
        masks = self._masks.read(start, stop, f"a mask of image {number}") > 0
        for index in self._kept(number):
            if not masks[index].any():
                self.dropped[start + index] = "its mask is empty"
        kept = self._kept(number)
        return {
            "image": self._image(number),
            "boxes": self._boxes[number][kept],
            "labels": self._labels[number][kept],
            "masks": masks[kept],
            "image_id": number,
            "source": f"{self.paths['images']}[{number}]",
        }

    def _image(self, number):
        values = self._images.read(number, number + 1, f"image {number}")[0]
        if not _are_whole(values) or values.min() < 0 or values.max() > 255:
            what = f"the values of image {number} are {values.dtype} from {values.min():g} to {values.max():g}"
            raise DataError(self.paths["images"], f"{what}, not whole numbers from 0 to 255")
        return self.image_type.convert(np.ascontiguousarray(values.astype(np.uint8).transpose(1, 2, 0)))


def _are_whole(values):
    return values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.rint(values)).all()))


def _read_objects(path):
    try:
        return read_objects(path)
    except UnreadableFileError as error:
        raise DataError(path, error.reason) from error


# h5py reads packed chunks without its own lock.
_ONE_READER = threading.Lock()


@contextlib.contextmanager
def _dataset(path):
    """Opens an HDF5 file and yields its dataset; an error inside the block becomes a DataError."""
    import h5py

    try:
        with _ONE_READER, h5py.File(regular(path), "r") as file:
            yield _checked_dataset(file, path)
    except DataError:
        raise
    except Exception as error:  # h5py raises exceptions of any class for damaged files
        raise DataError(path, f"is no HDF5 file, or a damaged one ({error})") from error


def _checked_dataset(file, path):
    import h5py

    if KEY in file and not isinstance(file.get(KEY, getlink=True), h5py.HardLink):
        raise DataError(path, f"its dataset {KEY!r} is stored elsewhere")
    dataset = file.get(KEY)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(path, f"has no dataset {KEY!r} but {', '.join(map(repr, file)) or 'nothing'}")
    if dataset.external or dataset.is_virtual:
        raise DataError(path, f"its dataset {KEY!r} is stored elsewhere")
    return dataset


class _Array:
    """The array in an HDF5 file, which is open only during `read`.

    A chunk of several images is decoded as a whole, so the last decoded range is cached.

    Args:
        path: The file.
        rank: Required number of axes.

    Attributes:
        shape: Of the array.
    """

    def __init__(self, path, rank):
        with _dataset(path) as dataset:
            self.path, self.shape = path, dataset.shape or ()
            if len(self.shape) != rank or dataset.dtype.kind not in "biuf":
                what = f"{dataset.dtype} of shape {list(self.shape)}"
                raise DataError(path, f"its dataset {KEY!r} is {what}, not numbers with {rank} axes")
            self._rows = dataset.chunks[0] if dataset.chunks else 1
            self._row_bytes = math.prod(self.shape[1:]) * dataset.dtype.itemsize
            self._check_size(max(self._row_bytes, math.prod(dataset.chunks or ()) * dataset.dtype.itemsize))
        self._last = range(0), None

    def _check_size(self, size):
        if size > MAX_READ_BYTES:
            limit = f"{__name__}.MAX_READ_BYTES = {MAX_READ_BYTES}"
            raise DataError(self.path, f"its parts of {size} bytes are larger than {limit}")

    def __getstate__(self):
        return {**self.__dict__, "_last": (range(0), None)}

    def read(self, start, stop, what):
        """Returns the entries from `start` to `stop`; `what` is their name in an error message."""
        held, values = self._last  # one attribute, so that threads replace both values at once
        if values is None or not held.start <= start <= stop <= held.stop:
            held = range(start - start % self._rows, min(-(-stop // self._rows) * self._rows, self.shape[0]))
            if len(held) * self._row_bytes > MAX_READ_BYTES:
                held = range(start, stop)
                self._check_size(len(held) * self._row_bytes)
            values = self._decode(held, what)
            if self._rows > 1:
                self._last = held, values
        return values[start - held.start : stop - held.start]

    def _decode(self, held, what):
        with _dataset(self.path) as dataset:
            try:
                return _unpacked(dataset, held) if dataset.chunks else dataset[held.start : held.stop]
            except Exception as error:
                raise DataError(self.path, f"{what} cannot be read ({error})") from error


def _unpacked(dataset, rows):
    """The rows in a range of a dataset that is stored in chunks.

    Chunks are unpacked here: HDF5 1.14 reads beyond the end of one that unpacks to fewer bytes than it should have.
    """
    sides = [(rows.start, rows.stop), *((0, length) for length in dataset.shape[1:])]
    grid = [range(start - start % step, stop, step) for (start, stop), step in zip(sides, dataset.chunks, strict=True)]
    if (count := math.prod(map(len, grid))) > MAX_CHUNKS:
        raise ValueError(f"it is divided into {count} chunks, more than {__name__}.MAX_CHUNKS = {MAX_CHUNKS}")
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for corner in itertools.product(*grid):
        ends = zip(corner, dataset.chunks, sides, strict=True)
        spans = [(place, max(place, low), min(place + step, high)) for place, step, (low, high) in ends]
        inside = tuple(slice(first - place, last - place) for place, first, last in spans)
        target = tuple(slice(first - low, last - low) for (_, first, last), (low, _) in zip(spans, sides, strict=True))
        values[target] = _chunk(dataset, corner)[inside]
    return values


def _chunk(dataset, corner):
    """The chunk of a dataset whose first value is at the corner."""
    from h5py import h5z

    properties, size = dataset.id.get_create_plist(), math.prod(dataset.chunks) * dataset.dtype.itemsize
    stored = dataset.id.get_chunk_info_by_coord(corner)
    if not stored.size:  # never written
        return np.full(dataset.chunks, dataset.fillvalue, dataset.dtype)
    if stored.byte_offset + stored.size > os.path.getsize(dataset.file.filename):
        raise ValueError(f"a chunk of {stored.size} bytes does not fit in the file")
    skipped, content = dataset.id.read_direct_chunk(corner)
    for number in reversed(range(properties.get_nfilters())):
        kind, *_, name = properties.get_filter(number)
        if skipped >> number & 1:
            continue
        if kind == h5z.FILTER_DEFLATE:
            content = zlib.decompressobj().decompress(content, size + 1)
        elif kind == h5z.FILTER_SHUFFLE:
            content = np.frombuffer(content, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        else:
            raise ValueError(f"it is packed by {name.decode()}, not by gzip")
    if len(content) != size:
        raise ValueError(f"a chunk has {len(content)} bytes, not {size}")
    if dataset.dtype.kind == "b":
        return (np.frombuffer(content, np.uint8) != 0).reshape(dataset.chunks)
    return np.frombuffer(content, dataset.dtype).reshape(dataset.chunks)
