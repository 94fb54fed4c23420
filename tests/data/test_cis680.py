import concurrent.futures
import logging
import os
import pickle
import re
import zlib

import h5py
import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data.cis680 import FILES

SIZE = (6, 8)
LABELS = ([3], [1, 2], [], [2])
BOXES = ([[1, 1, 4, 3]], [[0, 0, 2, 2], [5, 2, 8, 6]], [], [[2.5, 1.5, 6, 5]])


def rectangle(box):
    x1, y1, x2, y2 = np.rint(box).astype(int)
    mask = np.zeros(SIZE, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def objects(items, kind):
    result = np.empty(len(items), object)
    for index, item in enumerate(items):
        result[index] = np.array(item, kind)
    return result


@pytest.fixture
def course(tmp_path):
    """Writes the four files, with some of their contents changed, and returns the folder."""

    def write(folder=tmp_path, labels=LABELS, boxes=BOXES, images=None, masks=None, keys=("data", "data"), chunks=1):
        folder.mkdir(exist_ok=True)
        boxes = [np.array(of_one, np.float32).reshape(-1, 4) for of_one in boxes]
        if images is None:
            images = np.arange(len(labels) * 3 * 48).reshape(-1, 3, *SIZE) % 256
        if masks is None:
            masks = np.array([rectangle(np.clip(box, 0, 8)) for box in np.concatenate(boxes)], np.uint8)
        for kind, values, key in (("images", images, keys[0]), ("masks", masks, keys[1])):
            values = np.asarray(values)
            with h5py.File(folder / FILES[kind], "w") as file:
                packed = {"compression": "gzip", "chunks": (chunks, *values.shape[1:])} if chunks else {}
                file.create_dataset(key, data=values, **packed)
        np.save(folder / FILES["labels"], objects(labels, np.int64))
        np.save(folder / FILES["boxes"], objects(boxes, np.float32))
        return folder

    return write


def refusal(kind, folder, **options):
    """The error of a folder, after a check that it is one line that names the file."""
    with pytest.raises(data.DataError) as caught:
        data.Cis680(folder, **options)
    path = folder / FILES[kind] if kind else folder
    assert str(caught.value) == f"{path}: {caught.value.reason}" and "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("chunks", [None, 1, 3, 4])
@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_worked_by_hand(course, as_path, chunks):
    folder = course(chunks=chunks)
    reader = data.Cis680(as_path(folder))
    assert len(reader) == 4 and reader.class_names == ["vehicle", "person", "animal"]
    with h5py.File(folder / FILES["images"]) as file:
        stored = file["data"][()]
    for number, found in enumerate(reader):
        np.testing.assert_array_equal(found["image"], stored[number].transpose(1, 2, 0))
        assert found["labels"].tolist() == LABELS[number] and found["image_id"] == number
        np.testing.assert_array_equal(found["boxes"], np.array(BOXES[number]).reshape(-1, 4))
        assert [mask.sum() for mask in found["masks"]] == [rectangle(box).sum() for box in BOXES[number]]
    assert np.argwhere(reader[1]["masks"][1]).min(0).tolist() == [2, 5]
    assert reader[1]["source"] == f"{folder / FILES['images']}[1]"
    assert reader[2]["masks"].shape == (0, *SIZE)
    assert [reader.labels_at(number).tolist() for number in range(4)] == list(LABELS)


@pytest.mark.parametrize("kind", ["u1", "<u4", ">u4", "i2", "i8", "f4", ">f8"])
def test_kinds_of_number(course, kind):
    values = np.arange(4 * 3 * 48).reshape(4, 3, *SIZE) % 256
    found = data.Cis680(course(images=values.astype(kind)))
    np.testing.assert_array_equal(found[3]["image"], values[3].transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["bool", "u4", "f4"])
@pytest.mark.parametrize("value", [1, 255])
def test_kinds_of_mask(course, kind, value):
    masks = np.array([rectangle(box) for of_one in BOXES for box in of_one]) * value
    found = data.Cis680(course(masks=masks.astype(kind)))
    assert found[1]["masks"].dtype == bool and found[1]["masks"].sum((1, 2)).tolist() == [4, 12]


def test_arrays_that_numpy_joined(course):
    folder = course(labels=[[1], [2]], boxes=BOXES[:1] * 2)
    np.save(folder / FILES["labels"], np.array([[1], [2]], object))
    for kind in (object, np.float64):
        np.save(folder / FILES["boxes"], np.array(BOXES[:1] * 2, kind))
        assert data.Cis680(folder)[1]["boxes"].tolist() == BOXES[0]
    np.save(folder / FILES["labels"], np.array([1, 2]))
    assert data.Cis680(folder)[1]["labels"].tolist() == [2]


def test_boxes_over_the_border_are_clipped(course):
    found = data.Cis680(course(boxes=([[-0.5, 1, 4, 3]], [[0, 0, 2, 2], [5, 2, 30, 9]], [], BOXES[3])))
    assert found[0]["boxes"].tolist() == [[0, 1, 4, 3]]
    assert found[1]["boxes"].tolist() == [[0, 0, 2, 2], [5, 2, 8, 6]] and not found.dropped


def test_unusable_annotations_are_dropped_and_counted(course, caplog):
    boxes = ([[np.nan, 1, 4, 3]], [[0, 0, 0, 2], [5, 2, 8, 6]], [], [[9, 1, 12, 5]])
    masks = [rectangle([0, 0, 2, 2])] * 2 + [np.zeros(SIZE)] + [rectangle([0, 0, 2, 2])]
    with caplog.at_level(logging.WARNING):
        found = data.Cis680(course(boxes=boxes, masks=masks))
    assert f"{found.folder}: 3 annotations left out (0: its box is not finite)" in caplog.text
    assert (
        found.dropped[1] == "its box has no width"
        and found.dropped[3] == "its box lies outside the image of 8 x 6 pixels"
    )
    assert found.labels_at(1).tolist() == [2]
    assert [len(sample["labels"]) for sample in found] == [0] * 4
    assert found.dropped[2] == "its mask is empty" and found.labels_at(1).tolist() == []


def test_kept_instances_keep_their_masks(course):
    masks = [rectangle(BOXES[0][0]), np.zeros(SIZE), rectangle(BOXES[1][1]), rectangle(BOXES[3][0])]
    found = data.Cis680(course(masks=masks))
    assert found[1]["labels"].tolist() == [2] and found[1]["boxes"].tolist() == [BOXES[1][1]]
    np.testing.assert_array_equal(found[1]["masks"], [masks[2]])


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_file(course, kind):
    folder = course()
    (folder / FILES[kind]).unlink()
    assert refusal(kind, folder) == "no such file"


def test_a_missing_folder(tmp_path):
    assert refusal(None, tmp_path / "none") == "no such folder"


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_files_that_are_not_hdf5(course, kind):
    folder = course()
    (folder / FILES[kind]).write_bytes(b"<html>")
    assert "is no HDF5 file" in refusal(kind, folder)


@pytest.mark.parametrize("kind", ["labels", "boxes"])
def test_files_that_are_not_npy(course, kind):
    folder = course()
    (folder / FILES[kind]).write_bytes(b"<html>")
    assert refusal(kind, folder) == "is not a .npy file"


def test_hdf5_files_of_something_else(course, tmp_path):
    assert refusal("images", course(keys=("photos", "data"))) == "has no dataset 'data' but 'photos'"
    assert refusal("masks", course(keys=("data", "data/more"))) == "has no dataset 'data' but 'data'"
    assert "not numbers with 4 axes" in refusal("images", course(images=np.zeros((4, 3, 48))))
    assert "not numbers with 3 axes" in refusal("masks", course(masks=np.zeros((4, *SIZE), "S1")))
    assert "not [N, 3, H, W]" in refusal("images", course(images=np.zeros((4, *SIZE, 3))))


def test_no_images(course):
    folder = course()
    with h5py.File(folder / FILES["images"], "w") as file:
        file["data"] = np.zeros((0, 3, *SIZE))
    assert refusal("images", folder) == "holds no image"
    with h5py.File(folder / FILES["images"], "w") as file:
        file["data"] = np.zeros((4, 3, 0, 8))
    assert refusal("images", folder) == "holds images without pixels"


def test_counts_that_disagree(course):
    masks = np.zeros((5, *SIZE))
    assert refusal("masks", course(masks=masks)) == "holds 5 masks, but there are 4 labels in all"
    images = np.zeros((3, 3, *SIZE))
    assert refusal("labels", course(images=images)) == "has labels of 4 images, but there are 3"
    assert refusal("boxes", course(boxes=BOXES[:3])) == "has boxes of 3 images, but there are 4"
    assert refusal("boxes", course(boxes=(*BOXES[:3], BOXES[1]))) == "image 3 has 2 boxes, but 1 labels"


def test_masks_of_another_size(course):
    reason = refusal("masks", course(masks=np.zeros((4, 6, 7))))
    assert reason == "the masks are 7 x 6 pixels, the images 8 x 6"


@pytest.mark.parametrize("label", [7, 0, -1])
def test_labels_of_no_class(course, label):
    reason = refusal("labels", course(labels=([3], [1, label], [], [2])))
    assert reason == f"image 1 has the label {label}, which is none of 1 vehicle, 2 person, 3 animal"


def test_labels_and_boxes_of_wrong_type(course):
    folder = course()
    np.save(folder / FILES["labels"], objects([[1.5], [1, 2], [], [2]], np.float64))
    assert "labels of image 0 are float64 of shape [1], not whole" in refusal("labels", folder)
    np.save(folder / FILES["labels"], objects(LABELS, np.float64))
    assert len(data.Cis680(folder)) == 4
    np.save(folder / FILES["boxes"], objects([[[1, 2, 3]], *BOXES[1:]], np.float64))
    assert refusal("boxes", folder) == "the boxes of image 0 have shape [1, 3], not [n, 4]"


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_hostile_pickle_is_not_run(course, tmp_path):
    folder = course()
    content = objects(LABELS, np.int64)
    content[2] = Attack(tmp_path / "canary")
    np.save(folder / FILES["labels"], content)
    assert "system'" in refusal("labels", folder)
    assert not (tmp_path / "canary").exists()
    np.load(folder / FILES["labels"], allow_pickle=True)
    assert (tmp_path / "canary").exists()  # the payload works if it is unpickled


@pytest.mark.parametrize(
    ("value", "found"), [(256, "uint32 from 32 to 256"), (-1, "float64 from -1"), (0.5, "from 0.5"), (np.nan, "nan")]
)
def test_pixels_beyond_eight_bits(course, value, found):
    images = np.arange(4 * 3 * 48).reshape(4, 3, *SIZE) % 256 * 1.0
    images[2, 1, 2, 3] = value
    reader = data.Cis680(course(images=images if value != 256 else images.astype("u4")))
    assert reader[1]["image"].max() == 255
    with pytest.raises(data.DataError, match=rf"the values of image 2 are .*{found}.*, not whole numbers"):
        reader[2]


def test_a_damaged_image_is_named(course):
    folder = course()
    with h5py.File(folder / FILES["images"]) as file:
        offset, size = file["data"].id.get_chunk_info(0).byte_offset, file["data"].id.get_chunk_info(0).size
    with (folder / FILES["images"]).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    with pytest.raises(data.DataError, match=re.escape(FILES["images"]) + r": image 0 cannot be read \("):
        data.Cis680(folder)[0]


def test_a_chunk_that_unpacks_to_fewer_bytes_than_it_should_have(course):
    """HDF5 would read what lies behind them in memory."""
    folder = course(chunks=1, images=np.random.default_rng(0).integers(0, 256, (4, 3, *SIZE)))
    with h5py.File(folder / FILES["images"]) as file:
        chunk = file["data"].id.get_chunk_info(0)
    with (folder / FILES["images"]).open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(zlib.compress(bytes(40)).ljust(chunk.size, b"\0"))
    with pytest.raises(data.DataError, match=r"image 0 cannot be read \(a chunk has 40 bytes, not 1152\)"):
        data.Cis680(folder)[0]


def test_a_small_file_that_declares_millions_of_chunks(course):
    folder = course()
    with h5py.File(folder / FILES["images"], "a") as file:
        del file["data"]
        file.create_dataset("data", shape=(4, 3, 1000, 1000), dtype="u1", chunks=(1, 1, 1, 1))
    with h5py.File(folder / FILES["masks"], "a") as file:
        count = len(file["data"])
        del file["data"]
        file.create_dataset("data", shape=(count, 1000, 1000), dtype="u1", chunks=(1, 1000, 1000))
    with pytest.raises(data.DataError, match=r"divided into 3000000 chunks, more than .*MAX_CHUNKS = 65536"):
        data.Cis680(folder)[0]


@pytest.mark.parametrize("packed", [{"compression": "lzf"}, {"compression": "gzip", "shuffle": True}, {}])
def test_chunks_of_any_shape(course, packed, tmp_path):
    folder = course(images=np.random.default_rng(0).integers(0, 256, (4, 3, *SIZE)).astype(">u2"))
    expected = [sample["image"] for sample in data.Cis680(folder)]
    with h5py.File(folder / FILES["images"], "a") as file:
        values = file["data"][()]
        del file["data"]
        file.create_dataset("data", data=values, chunks=(3, 2, 5, 7), **packed)
    reader = data.Cis680(folder)
    if packed.get("compression") == "lzf":
        with pytest.raises(data.DataError, match="it is packed by lzf, not by gzip"):
            reader[0]
    else:
        np.testing.assert_array_equal([sample["image"] for sample in reader], expected)


@pytest.mark.parametrize(("chunks", "times"), [(None, 4), (1, 4), (2, 2), (4, 1)])
def test_a_chunk_is_decoded_once_where_images_are_read_in_order(course, monkeypatch, chunks, times):
    reader = data.Cis680(course(chunks=chunks))
    opened, open_file = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, mode: opened.append(path) or open_file(path, mode))
    assert len([reader.read(position) for position in range(4)]) == 4
    assert opened.count(reader.paths["images"]) == times


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_from_several_threads_and_pickled(course, chunks):
    reader = data.Cis680(course(chunks=chunks))
    assert reader[3]["image"].any()
    reader = pickle.loads(pickle.dumps(reader))
    expected = [sample["image"].sum() for sample in reader]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: reader[index % 4]["image"].sum(), range(200)))
    assert found == expected * 50


def many(count, labels):
    return {"labels": [labels[number % len(labels)] for number in range(count)], "images": np.zeros((count, 3, *SIZE))}


def test_the_parts_are_three_to_one_in_every_set_of_classes(course):
    sets = [[1], [2], [1, 2], [3]]
    contents = many(40, sets)
    boxes = [[[1, 1, 4, 3]] * len(labels) for labels in contents["labels"]]
    folder = course(boxes=boxes, **contents)
    everything, train, test = (data.Cis680(folder, split=split) for split in ("all", "train", "test"))
    assert sorted([*train.positions, *test.positions]) == everything.positions.tolist() == list(range(40))
    for part, low, high in ((train, 7, 8), (test, 2, 3)):
        counts = [sum(part.labels_at(index).tolist() == labels for index in range(len(part))) for labels in sets]
        assert sum(counts) == len(part) == {7: 30, 2: 10}[low] and low <= min(counts) and max(counts) <= high
    assert test.positions.tolist() == data.Cis680(folder, split="test").positions.tolist()
    assert np.unique(np.diff(test.positions)).size > 1  # not every fourth
    assert test[0]["image_id"] == test.positions[0]


def test_too_few_images_for_two_parts(course):
    folder = course(labels=LABELS[:3], boxes=BOXES[:3])
    for split in ("train", "test"):
        assert refusal(None, folder, split=split) == "holds 3 images, too few to set one in 4 aside for testing"
    assert len(data.Cis680(folder)) == 3


def test_another_split_is_rejected(course):
    with pytest.raises(ValueError, match="split must be train, test or all, not 'val'"):
        data.Cis680(course(), split="val")


def test_the_sample_of_the_course(kmr_data):
    folder = kmr_data / "cis680_hw3_sample"
    everything, train, test = (data.Cis680(folder, split=split) for split in ("all", "train", "test"))
    assert (len(everything), len(train), len(test)) == (48, 36, 12)
    labels = np.concatenate([sample["labels"] for sample in everything])  # each sample is validated as it is read
    assert np.bincount(labels).tolist() == [0, 29, 63, 28]
    assert sum(len(sample["masks"]) for sample in everything) == 120 and not everything.dropped
    parts = [np.concatenate([part.labels_at(index) for index in range(len(part))]) for part in (train, test)]
    assert [len(part) for part in parts] == [93, 27] and np.bincount(parts[1])[1:].min() >= 6
    assert everything[0]["image"].shape == (300, 400, 3)
    for sample in everything:
        assert np.abs(data.mask_boxes(sample["masks"]) - sample["boxes"]).max() <= 2.1
