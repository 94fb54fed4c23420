"""TFRecord files: what is written is read bit for bit, by this library and by TensorFlow, and the other way round."""

import hashlib
import io
import pathlib
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data import kept, tf_record_file
from keras_maskrcnn.data.image_file import read_stored

KEYS = ("image", "boxes", "labels", "masks", "crowd", "image_id")


def same(one, other):
    for key in KEYS:
        np.testing.assert_array_equal(one[key], other[key], key)
        assert np.asarray(one[key]).dtype == np.asarray(other[key]).dtype, key


def parsed(content):
    """Features of a record, by TensorFlow: a dict from names to lists."""
    import tensorflow as tf

    features = tf.train.Example.FromString(content).features.feature
    return {
        name: list(getattr(value, value.WhichOneof("kind") or "bytes_list").value) for name, value in features.items()
    }


@pytest.fixture
def three(in_memory, sample):
    """Two images with objects and one without; boxes that are no whole pixels, nor shares of the sides."""
    boxes = [[1, 2, 9, 8], [4, 4, 40, 30]]
    first = sample(boxes, labels=[3, 1], seed=1, image_id=7, crowd=np.array([False, True]))
    first["boxes"] = np.array([[1.1, 2.3, 8.9, 7.77], [3.999, 4.001, 40.013, 30.7]], np.float32)
    return in_memory([first, sample([], seed=2, image_id="b c"), sample([[0, 0, 48, 32]], seed=3, image_id="007")])


def test_round_trip_bit_for_bit(three, tmp_path):
    files = data.write_tfrecord(three, tmp_path / "records" / "train.tfrecord", shards=2)
    assert [file.name for file in files] == ["train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002"]
    found = data.TfRecord(tmp_path / "records" / "train.tfrecord")
    assert len(found) == 3 and found.class_names == ["a", "b", "c"] and not found.dropped
    for one, other in zip(three, found, strict=True):
        same(one, other)
    assert [found.labels_at(position).tolist() for position in range(3)] == [[3, 1], [], [1]]
    assert "train.tfrecord-00000-of-00002, record 0 (rectangles 1)" in found[0]["source"]
    again = data.write_tfrecord(found, tmp_path / "again", shards=2)
    assert [len(data.TfRecord(file)) for file in again] == [1, 2]


@pytest.mark.parametrize("path", ["train.tfrecord", "train.tfrecord-*", "train.tfrecord-?????-of-00002"])
def test_paths_and_patterns(three, tmp_path, path):
    data.write_tfrecord(three, tmp_path / "train.tfrecord", shards=2)
    assert len(data.TfRecord(tmp_path / path)) == 3
    assert len(data.open(tmp_path)) == 3 and len(data.open(tmp_path / "train.tfrecord-00001-of-00002")) == 2


def test_splits_are_in_the_names(three, tmp_path):
    for name in ("coco_train.record", "coco_val.record"):
        data.write_tfrecord(three, tmp_path / name)
    assert [len(part) for part in data.splits(tmp_path)] == [3, 3]
    data.write_tfrecord(three, tmp_path / "more" / "pear.tfrecord")
    shutil.copytree(tmp_path / "more", tmp_path / "folders" / "train")
    shutil.copytree(tmp_path / "more", tmp_path / "folders" / "valid")
    assert [len(part) for part in data.splits(tmp_path / "folders")] == [3, 3]


def test_tensorflow_reads_what_is_written(three, tmp_path):
    import tensorflow as tf

    (file,) = data.write_tfrecord(three, tmp_path / "train")
    records = [parsed(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    first, wanted = records[0], three[0]
    assert len(records) == 3
    assert first["image/height"] == [32] and first["image/width"] == [48] and first["image/source_id"] == [b"7"]
    assert first["image/format"] == [b"png"] and first["image/filename"] == [b"rectangles 1"]
    assert first["image/key/sha256"] == [hashlib.sha256(first["image/encoded"][0]).hexdigest().encode()]
    np.testing.assert_array_equal(tf.io.decode_image(first["image/encoded"][0]), wanted["image"])
    for index, (side, length) in enumerate((("xmin", 48), ("ymin", 32), ("xmax", 48), ("ymax", 32))):
        np.testing.assert_allclose(
            np.multiply(first[f"image/object/bbox/{side}"], length), wanted["boxes"][:, index], 1e-6
        )
    assert first["image/object/class/label"] == [3, 1] and first["image/object/class/text"] == [b"c", b"a"]
    assert first["image/object/is_crowd"] == [0, 1] and first["image/object/area"] == [48, 36 * 26]
    masks = [tf.io.decode_png(mask, channels=1)[..., 0] for mask in first["image/object/mask"]]
    np.testing.assert_array_equal(masks, wanted["masks"].astype(np.uint8))


def written_by_tensorflow(path, features, options=None):
    """A file of one record in the schema, as TensorFlow's own classes write it."""
    import tensorflow as tf

    lists = {bytes: ("bytes_list", tf.train.BytesList), float: ("float_list", tf.train.FloatList)}
    lists[int] = ("int64_list", tf.train.Int64List)
    feature = {}
    for name, values in features.items():
        kind, make = lists[type(values[0])]
        feature[name] = tf.train.Feature(**{kind: make(value=values)})
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    with tf.io.TFRecordWriter(str(path), options) as writer:
        writer.write(example.SerializeToString())


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


MASKS = np.zeros((2, 8, 10), np.uint8)
MASKS[0, 1:4, 2:6] = 1
MASKS[1, 4:8, 5:10] = 255
PICTURE = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8)
SCHEMA = {
    "image/encoded": [png(PICTURE)],
    "image/source_id": [b"12"],
    "image/object/bbox/xmin": [0.2, 0.5],
    "image/object/bbox/xmax": [0.6, 1.0],
    "image/object/bbox/ymin": [0.125, 0.5],
    "image/object/bbox/ymax": [0.5, 1.0],
    "image/object/class/label": [3, 90],
    "image/object/mask": [png(mask) for mask in MASKS],
}


@pytest.fixture
def foreign(tmp_path):
    """Writes a record by TensorFlow, with changes, and a label map with gaps; returns the path of the records."""

    def write(options=None, **changes):
        (tmp_path / "mscoco_label_map.pbtxt").write_text(
            "item {\n  name: '/m/04'\n  id: 90\n  display_name: 'tooth\\nbrush'\n}\n"
            'item { id: 3 name: "car" keypoints {} } item { id: 0 name: "background" }'
        )
        features = {**SCHEMA, **{f"image/{name}": values for name, values in changes.items()}}
        written_by_tensorflow(tmp_path / "x.record", {k: v for k, v in features.items() if v is not None}, options)
        return tmp_path / "x.record"

    return write


def test_what_tensorflow_writes_is_read(foreign):
    found = data.TfRecord(foreign())
    assert found.class_names == ["car", "tooth\nbrush"] and found.category_ids == [3, 90]
    first = found[0]
    np.testing.assert_array_equal(first["image"], PICTURE)
    np.testing.assert_allclose(first["boxes"], [[2, 1, 6, 4], [5, 4, 10, 8]], 1e-6)
    np.testing.assert_array_equal(first["masks"], MASKS > 0)
    assert first["labels"].tolist() == [1, 2] and first["image_id"] == 12 and not first["crowd"].any()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoded": None}, "has no image/encoded"),
        ({"encoded": [b"\xff\xd8\xff"]}, "cannot be read as an image"),
        ({"object/bbox/xmin": [0.2]}, "has 2 labels and 1 of xmin"),
        ({"object/mask": None}, "has 2 labels and 0 of mask"),
        ({"object/mask": [0.0, 1.0]}, "only PNG masks can be read"),
        ({"object/mask": [png(MASKS[0]), png(MASKS[0][:4])]}, "object 1: the mask has shape"),
        ({"object/is_crowd": [0]}, "has 2 labels and 1 of is_crowd"),
    ],
)
def test_records_that_cannot_be_used(foreign, changes, reason):
    found = data.TfRecord(foreign(**changes))
    with pytest.raises(data.DataError, match=reason) as caught:
        found[0]
    assert "x.record, record 0" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"object/class/label": [3, 5]}, "its label 5 is not in the label map"),
        ({"object/bbox/xmax": [0.6, 0.5]}, "its box has no width"),
        ({"object/mask": [png(MASKS[0]), png(0 * MASKS[0])]}, "its mask is empty"),
    ],
)
def test_objects_that_cannot_be_used_are_left_out(foreign, changes, reason):
    found = data.TfRecord(foreign(**changes))
    assert found[0]["labels"].tolist() == [1] and found.labels_at(0).tolist() == [1]
    assert [(key[-8:], value) for key, value in found.dropped.items()] == [("object 1", reason)]


def test_bytes_of_upright_files_are_kept(tmp_path, in_memory, sample):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (16, 24, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(colours).save(tmp_path / "a.jpg", quality=60)
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(colours).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(colours).save(tmp_path / "b.bmp")
    Image.fromarray(np.dstack([colours, colours[..., :1]])).save(tmp_path / "clear.png")
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "cmyk.jpg")
    names = ["a.jpg", "grey.png", "turned.jpg", "b.bmp", "clear.png", "cmyk.jpg"]
    images = [data.read_image(tmp_path / name) for name in names]
    samples = [
        {**sample([], image.shape[:2]), "image": image, "source": str(tmp_path / n)}
        for n, image in zip(names, images, strict=True)
    ]
    changed = {**samples[0], "image": samples[0]["image"] // 2}  # by a wrapper
    data.write_tfrecord(in_memory([*samples, changed]), tmp_path / "x")
    found = data.TfRecord(tmp_path / "x")
    for position, wanted in enumerate([*samples, changed]):
        np.testing.assert_array_equal(found[position]["image"], wanted["image"])
    stored = [found._record(position)[0]["image/encoded"][0] for position in range(7)]
    kept_bytes = [
        name for name, content in zip(names, stored, strict=False) if content == (tmp_path / name).read_bytes()
    ]
    assert kept_bytes == ["a.jpg", "grey.png"]
    assert all(content.startswith(b"\x89PNG") for content in stored[2:])


def test_damage_is_one_line(three, tmp_path):
    (file,) = data.write_tfrecord(three, tmp_path / "x")
    content = bytearray(file.read_bytes())
    lengths = tf_record_file.lengths(file)
    starts = (12 + np.cumsum([0, *lengths[:-1] + 16])).tolist()  # of the contents
    (tmp_path / "x.index").unlink()

    def rejected(changed):
        file.write_bytes(changed)
        with pytest.raises(data.DataError) as caught:
            [data.TfRecord(file)[position] for position in range(3)]
        assert "\n" not in str(caught.value) and file.name in str(caught.value)
        return caught.value.reason

    assert "is truncated in record 2" in rejected(content[:-1])
    assert "is truncated after 2 records" in rejected(content[: starts[2] - 3])
    assert rejected(b"") == "is empty"
    assert rejected(b"words " * 9) == "is no TFRecord file"
    flipped = content.copy()
    flipped[starts[1] + 5] ^= 1
    assert "its bytes do not fit their checksum" in rejected(flipped)
    flipped = content.copy()
    flipped[starts[1] - 12] ^= 1
    assert "is damaged after 1 records" in rejected(flipped)
    file.write_bytes(content)
    assert len(data.TfRecord(file)) == 3


def test_compressed_files_and_other_records(foreign):
    with pytest.raises(data.DataError, match="is compressed"):
        data.TfRecord(foreign(options="GZIP"))
    path = foreign()
    with tf_record_file.writer(path) as append:
        append(b"\xff\xff")
    with pytest.raises(data.DataError, match=r"is no tf\.train\.Example"):
        data.TfRecord(path)[0]


def test_missing_files(three, tmp_path):
    with pytest.raises(data.DataError, match="no such TFRecord file"):
        data.TfRecord(tmp_path / "none")
    files = data.write_tfrecord(three, tmp_path / "x", shards=3)
    with pytest.raises(data.DataError, match="shard of another number than 2: delete it"):
        data.write_tfrecord(three, tmp_path / "x", shards=2)
    files[1].unlink()
    with pytest.raises(data.DataError, match="shard 1 of 3 is missing"):
        data.TfRecord(tmp_path / "x")
    (tmp_path / "label_map.pbtxt").unlink()
    with pytest.raises(data.DataError, match="has no label maps"):
        data.TfRecord(files[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("item {", "cannot be read as a label map"),
        ("", "names no class"),
        ("item {id: 1 name: 'a'} item {id: 1}", "an id twice"),
    ],
)
def test_label_maps_that_cannot_be_used(three, tmp_path, text, reason):
    data.write_tfrecord(three, tmp_path / "x")
    (tmp_path / "label_map.pbtxt").write_text(text)
    with pytest.raises(data.DataError, match=reason):
        data.TfRecord(tmp_path / "x")


def test_writing_to_a_folder_of_other_classes(three, tmp_path, in_memory):
    data.write_tfrecord(three, tmp_path / "x")
    with pytest.raises(data.DataError, match="has other classes than cat"):
        data.write_tfrecord(in_memory(list(three), class_names=["cat"]), tmp_path / "y")


def test_what_cannot_be_read_is_left_out(three, tmp_path, in_memory):
    broken = in_memory([data.DataError("b.jpg", "truncated"), three[0]])
    data.write_tfrecord(broken, tmp_path / "x")
    assert len(data.TfRecord(tmp_path / "x")) == 1 and broken.skipped == {"b.jpg": "truncated"}
    with pytest.raises(data.DataError, match="is not written"):
        data.write_tfrecord(in_memory([data.DataError("b.jpg", "truncated")]), tmp_path / "y")
    with pytest.raises(ValueError, match="0 shards"):
        data.write_tfrecord(three, tmp_path / "z", shards=0)
    assert not list(tmp_path.glob("[yz]*")) and not list(tmp_path.glob("*.part"))


def test_the_places_of_a_large_file_are_kept(three, tmp_path, monkeypatch):
    monkeypatch.setenv("KMR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(kept, "MIN_BYTES", 0)
    data.write_tfrecord(three, tmp_path / "x", shards=2)
    (tmp_path / "x.index").unlink()
    first = data.TfRecord(tmp_path / "x")
    with mock.patch.object(tf_record_file, "lengths", side_effect=AssertionError("walked again")):
        second = data.TfRecord(tmp_path / "x")
    for one, other in zip(first, second, strict=True):
        same(one, other)


def test_without_the_checksums_package_it_says_what_to_install(three, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(data.DataError, match=r'pip install "keras3-maskrcnn\[tfrecord\]"'):
        data.write_tfrecord(three, tmp_path / "x")


@pytest.mark.parametrize("path", ["coco_tiny", pytest.param("nuclei", marks=pytest.mark.slow), "PennFudanPed"])
def test_real_sets_bit_for_bit(kmr_data, tmp_path, path):
    dataset = data.splits(kmr_data / path)[1][:6]
    data.write_tfrecord(dataset, tmp_path / "val")
    found = data.TfRecord(tmp_path / "val")
    assert found.class_names == dataset.class_names
    for position, wanted in enumerate(dataset):
        same(wanted, found[position])
        features, _ = found._record(position)
        assert features["image/encoded"][0] == pathlib.Path(wanted["source"]).read_bytes()


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (2, "uint8"), (4, "uint8"), (1, "uint16")])
def test_images_of_other_types(sample, in_memory, tmp_path, channels, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (32, 48, channels), dtype, endpoint=True)
    dataset = in_memory([sample([[1, 2, 9, 8]], image=pixels)])
    dataset.image_type = data.ImageType(channels, dtype)
    data.write_tfrecord(dataset, tmp_path / "all.tfrecord")
    same(data.TfRecord(tmp_path / "all.tfrecord").decoded(channels, dtype)[0], dataset[0])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_files_of_16_bits(sample, in_memory, tmp_path, ending):
    """All bits of the colours in a PNG file are kept; a TIFF file of them would have to be written as PNG."""
    codecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 65535, (32, 48, 3), np.uint16)
    path = tmp_path / f"a.{ending}"
    if ending == "png":
        path.write_bytes(codecs.png_encode(pixels))
    else:
        tifffile.imwrite(path, pixels, photometric="rgb")
    stored = read_stored("record 1", data.ImageType(3, "uint16"), path.read_bytes())
    np.testing.assert_array_equal(stored.image, pixels)
    dataset = in_memory([sample([[1, 2, 9, 8]], image=pixels, source=str(path))])
    dataset.image_type = data.ImageType(3, "uint16")
    if ending == "tif":
        with pytest.raises(data.DataError, match=r"a\.tif: cannot be written as PNG: it is uint16 \[32, 48, 3\]"):
            data.write_tfrecord(dataset, tmp_path / "all.tfrecord")
        return
    data.write_tfrecord(dataset, tmp_path / "all.tfrecord")
    found = data.TfRecord(tmp_path / "all.tfrecord")
    same(found.decoded(3, "uint16")[0], dataset[0])
    assert found[0]["image"].dtype == np.uint8
