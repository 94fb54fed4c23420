"""Sets of TFRecord files by path, pattern and URL: the index beside them, what damage says, and order in training."""

import pathlib
import pickle
import re

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.cli import main
from keras_maskrcnn.data import kept, record_index, record_shards, tf_record_file
from keras_maskrcnn.data.tf_messages import example_of
from keras_maskrcnn.data.urls import Url, as_path


@pytest.fixture
def five(in_memory, sample):
    """Five images with the ids 0 to 4."""
    return in_memory([sample([[1, 2, 9 + i, 8]], seed=i, image_id=i) for i in range(5)])


@pytest.fixture(params=["path", "file", "ram"])
def folder(request, tmp_path):
    """A new folder of this machine, as a path or as a URL, or in the memory of TensorFlow."""
    return {"path": str(tmp_path), "file": f"file://{tmp_path}", "ram": f"ram://{tmp_path.name}/records"}[request.param]


def ids(dataset):
    return [sample["image_id"] for sample in dataset]


def refused(path):
    """What opening a set and reading all of it says: one line."""
    with pytest.raises(data.DataError) as caught:
        list(data.TfRecord(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entry(kind, lengths):
    """An index of one file, with lengths of a kind of numbers."""
    features = {"file": ("bytes_list", [b"x-00000-of-00001"]), "lengths": (kind, lengths)}
    return tf_record_file._record(example_of(features))


# Index and paths ----------------------------------------------------------------------------------------------------


def test_the_index_has_the_lengths_of_all_records(five, tmp_path):
    files = data.write_tfrecord(five, tmp_path / "x", shards=2)
    index = record_index.read(tmp_path / "x.index")
    assert list(index) == [file.name for file in files] and [len(index[file.name]) for file in files] == [2, 3]
    for file in files:
        np.testing.assert_array_equal(index[file.name], tf_record_file.lengths(file))
        assert index[file.name].sum() + 16 * len(index[file.name]) == file.stat().st_size


def test_with_an_index_no_file_is_walked_through(five, tmp_path, monkeypatch):
    files = data.write_tfrecord(five, tmp_path / "x", shards=3)
    monkeypatch.setattr(tf_record_file, "lengths", lambda path: pytest.fail(f"{path} was walked through"))
    assert ids(data.TfRecord(tmp_path / "x")) == [0, 1, 2, 3, 4]
    assert ids(data.TfRecord(files[1])) == [1, 2], "a file of the set alone"


def test_an_index_takes_eight_bytes_of_memory_per_record(tmp_path):
    with tf_record_file.writer(tmp_path / "x.record") as append:
        for _ in range(1000):
            append(b"words")
    shards = record_shards.Shards(tmp_path / "x.record")
    assert len(shards) == 1000 and shards.read(999) == (b"words", f"{tmp_path / 'x.record'}, record 999")
    assert len(pickle.dumps(shards)) < 9000


@pytest.mark.parametrize("name", ["", "/x.tfrecord", "/x.tfrecord-*", "/x.**", "/x.tfrecord-?????-of-00002"])
def test_folders_names_and_patterns_at_paths_and_urls(five, folder, name):
    files = data.write_tfrecord(five, f"{folder}/x.tfrecord", shards=2)
    found = data.open(f"{folder}{name}")
    assert ids(found) == [0, 1, 2, 3, 4] and [str(file) for file in found.files] == list(map(str, files))
    np.testing.assert_array_equal(found[3]["masks"], five[3]["masks"])
    assert found[3]["source"].startswith(f"{folder}/x.tfrecord-00001-of-00002, record 1")


def test_urls_without_an_index(five, folder, caplog):
    for split in ("train", "val"):
        data.write_tfrecord(five, f"{folder}/{split}.record", shards=2)
        as_path(f"{folder}/{split}.record.index").unlink()
    train, val = data.splits(folder)
    assert ids(train) == ids(val) == [0, 1, 2, 3, 4]
    assert ("have no index" in caplog.text) == ("://" in folder)
    written = data.write_index(f"{folder}/train.record")
    assert list(map(str, written)) == [f"{folder}/train.record.index"]
    assert list(record_index.read(written[0])) == ["train.record-00000-of-00002", "train.record-00001-of-00002"]


def test_files_of_several_names_have_an_index_each(five, tmp_path):
    for name in ("a", "b"):
        data.write_tfrecord(five[:2], tmp_path / name, shards=2)
    assert ids(data.TfRecord(tmp_path / "?-*")) == [0, 1, 0, 1]
    assert sorted(file.name for file in data.write_index(tmp_path / "?-*")) == ["a.index", "b.index"]


def test_the_index_of_one_file_is_that_of_all(five, tmp_path):
    files = data.write_tfrecord(five, tmp_path / "x", shards=2)
    before = record_index.read(tmp_path / "x.index")
    data.write_index(files[1])
    np.testing.assert_equal(record_index.read(tmp_path / "x.index"), before)


def test_a_file_without_readable_samples(five, tmp_path, in_memory):
    bad = [data.DataError(f"{i}.jpg", "truncated") for i in range(2)]
    files = data.write_tfrecord(in_memory([*bad, five[0], five[1]]), tmp_path / "x", shards=2)
    assert files[0].stat().st_size == 0 and ids(data.TfRecord(tmp_path / "x")) == [0, 1]


def test_writing_again_leaves_no_index_of_before(five, tmp_path, monkeypatch):
    data.write_tfrecord(five, tmp_path / "x", shards=1)
    monkeypatch.setattr(tf_record_file, "writer", lambda path: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        data.write_tfrecord(five, tmp_path / "x", shards=1)
    assert not (tmp_path / "x.index").exists()


def test_the_walk_has_a_bar_on_a_terminal(five, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KMR_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(kept, "MIN_BYTES", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    data.write_tfrecord(five, tmp_path / "x", shards=2)
    data.TfRecord(tmp_path / "x")
    assert "TFRecord files" not in capsys.readouterr().err
    (tmp_path / "x.index").unlink()
    data.TfRecord(tmp_path / "x")
    assert "1/2 TFRecord files, " in capsys.readouterr().err


# Damage -------------------------------------------------------------------------------------------------------------


def test_damaged_files_beside_an_index(five, tmp_path):
    first, second = data.write_tfrecord(five, tmp_path / "x", shards=2)
    content = bytearray(second.read_bytes())
    size, start = len(content), tf_record_file.lengths(second)[0] + 16

    def rejected(changed):
        second.write_bytes(changed)
        return refused(tmp_path / "x")

    which = f"and {size} by x.index: it is truncated, or the index is that of another file"
    assert rejected(content[:-1]) == f"{second}: has {size - 1} bytes, {which}"
    assert rejected(b"") == f"{second}: is empty"
    flipped = content.copy()
    flipped[start + 20] ^= 1
    assert rejected(flipped) == f"{second}, record 1: is damaged: its bytes do not fit their checksum"
    second.write_bytes(content)
    assert len(data.TfRecord(tmp_path / "x")) == 5
    first.unlink()
    assert refused(tmp_path / "x") == f"{tmp_path / 'x'}: shard 0 of 2 is missing"


def test_missing_shards_are_named_by_number(tmp_path):
    (tmp_path / "x-00003-of-00016").write_bytes(b"")
    assert refused(tmp_path / "x") == f"{tmp_path / 'x'}: shard 0 of 16 is missing"
    for number in {*range(16)} - {3}:
        (tmp_path / f"x-{number:05d}-of-00016").write_bytes(b"")
    (tmp_path / "x-00003-of-00016").unlink()
    assert refused(tmp_path / "x-*") == f"{tmp_path / 'x'}: shard 3 of 16 is missing"


def test_an_index_of_other_files(five, tmp_path):
    data.write_tfrecord(five, tmp_path / "x", shards=1)
    (file,) = data.write_tfrecord(five[::-1], tmp_path / "y", shards=1)
    other = record_index.read(tmp_path / "x.index")["x-00000-of-00001"]
    record_index.write(tmp_path / "y.index", {file.name: other[:2]})
    assert f"{file}: has {file.stat().st_size} bytes, and " in refused(tmp_path / "y")
    record_index.write(tmp_path / "y.index", {"z": other})
    wanted = "does not name y-00000-of-00001: delete it, or write it again by data.write_index"
    assert refused(tmp_path / "y") == f"{tmp_path / 'y.index'}: {wanted}"
    lengths = tf_record_file.lengths(file)
    swapped = [lengths[0] - 1, lengths[1] + 1, *lengths[2:]]  # of the same sum
    record_index.write(tmp_path / "y.index", {file.name: swapped})
    reason = f"is damaged, or the index is that of another file: no record of {lengths[0] - 1} bytes is here"
    assert refused(tmp_path / "y") == f"{file}, record 0: {reason}"
    for wrong in ([-16, *lengths], [-(2**62), -(2**62), -(2**62), -(2**62), *lengths[:-1], lengths[-1] - 64]):
        record_index.write(tmp_path / "y.index", {file.name: wrong})  # of the same sum, the second one by overflow
        assert f"{file}: has {file.stat().st_size} bytes, and {file.stat().st_size} by " in refused(tmp_path / "y")
    data.write_index(tmp_path / "y")
    assert ids(data.TfRecord(tmp_path / "y")) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"words " * 9, "is no TFRecord file"),
        (tf_record_file._record(b"\xff\xff"), "is no tf.train.Example"),
        (tf_record_file._record(b""), "is no index of TFRecord files"),
        (tf_record_file._record(example_of({"file": ("int64_list", [2**40])})), "is no index of TFRecord files"),
        (entry("float_list", [float("inf")]), "is no index of TFRecord files"),
        (entry("bytes_list", [b"a"]), "is no index of TFRecord files"),
        (tf_record_file._record(b"12345")[:-1], "is truncated in record 0: it has 20 bytes of 21"),
        (tf_record_file._record(b"12345")[:-1] + b"\0", "is damaged: its bytes do not fit their checksum"),
    ],
)
def test_indices_that_are_damaged(five, tmp_path, content, reason):
    data.write_tfrecord(five, tmp_path / "x")
    (tmp_path / "x.index").write_bytes(content)
    assert refused(tmp_path / "x") == f"{tmp_path / 'x.index'}: {reason}"


def test_a_length_that_begins_like_a_compressed_file_is_none(tmp_path):
    with tf_record_file.writer(tmp_path / "x.record") as append:
        append(bytes(0x8B1F))
    assert tf_record_file.lengths(tmp_path / "x.record").tolist() == [0x8B1F]


def test_files_that_vanish_or_shrink_after_opening(five, folder):
    (file,) = data.write_tfrecord(five, f"{folder}/x", shards=1)
    found = data.TfRecord(f"{folder}/x")
    with file.open("rb") as opened:
        content = opened.read()
    file.unlink()
    with file.open("wb") as opened:
        opened.write(content[:-1])
    with pytest.raises(data.DataError, match=r"x-00000-of-00001, record 4: is damaged: its bytes do not fit"):
        found[4]
    file.unlink()
    with pytest.raises(data.DataError, match=re.escape(f"{folder}/x-00000-of-00001, record 0: cannot be read (")):
        found[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nothing://bucket/x", "nothing://bucket/x: cannot be read (File system scheme 'nothing' not implemented"),
        ("ram://none/x.record", "ram://none/x.record: no such file or folder"),
    ],
)
def test_urls_that_cannot_be_opened(url, reason):
    for open_ in (data.open, data.splits):
        with pytest.raises(data.DataError) as caught:
            open_(url)
        assert str(caught.value).startswith(reason) and "\n" not in str(caught.value)


def test_other_formats_are_not_read_from_urls(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(data.DataError, match="of URLs only TFRecord files are read: no TFRecord file"):
        data.open(f"file://{tmp_path}")
    with pytest.raises(data.DataError, match=r"of URLs only TFRecord files are read: no \.record or"):
        data.open(f"file://{tmp_path}/x.json")


# Command line ---------------------------------------------------------------------------------------------------------


def test_convert_data_reads_and_writes_urls(five, folder, tmp_path, capsys):
    data.write_tfrecord(five, f"{folder}/in/x.tfrecord", shards=2)
    assert main(["convert-data", f"{folder}/in", f"{folder}/out/y.tfrecord", "--shards", "1"]) == 0
    assert f"{folder}/out/y.tfrecord-00000-of-00001: 5 images" in capsys.readouterr().out
    assert ids(data.open(f"{folder}/out")) == [0, 1, 2, 3, 4]
    as_path(f"{folder}/out/y.tfrecord.index").unlink()
    assert main(["convert-data", f"{folder}/out", "--index"]) == 0
    assert capsys.readouterr().out == f"{folder}/out/y.tfrecord.index\n"
    assert as_path(f"{folder}/out/y.tfrecord.index").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["{records}", "ram://x/y.json"], "ram://x/y.json: only --format tfrecord is written to a URL"),
        (["{records}", "out", "--index"], "--index writes beside IN: give no OUT"),
        (["{yolo}", "--index"], "--index is for TFRecord files, and {yolo} is read by Yolo"),
    ],
)
def test_arguments_that_do_not_fit(five, tmp_path, capsys, words, reason):
    places = {"records": tmp_path / "records", "yolo": tmp_path / "yolo"}
    data.write_tfrecord(five, places["records"] / "x")
    data.write_yolo(five, places["yolo"])
    assert main(["convert-data", *(word.format(**places) for word in words)]) == 2
    assert capsys.readouterr().err == f"error: {reason.format(**places)}\n"


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tf", "numpy", "grain"])
def test_processes_read_each_record_once_in_an_epoch_and_resume(five, folder, backend):
    data.write_tfrecord(five, f"{folder}/x", shards=2)
    if backend == "grain" and "://" in folder:
        pytest.skip("each process would import TensorFlow, which takes seconds")

    def batches(start=0, steps=5, **options):
        dataset = data.TfRecord(f"{folder}/x")
        found = data.batches(dataset, (32, 48), 2, shuffle=True, seed=3, repeat=True, backend=backend, **options)
        found.rows.start = start
        taken = found.take(steps) if backend == "tf" else [found[step] for step in range(steps)]
        indices = [np.asarray(x["image_index"]).tolist() for x, _ in taken]
        if backend == "grain":
            found.close()
        return indices

    whole = batches()  # ten images of two epochs
    order = np.concatenate(whole).tolist()
    assert sorted(order[:5]) == sorted(order[5:]) == [0, 1, 2, 3, 4] and order[:5] != order[5:]
    assert batches(start=4, steps=3) == whole[2:]
    if backend != "grain":
        parts = [batches(shard=(index, 2)) for index in range(2)]
        assert [one + other for one, other in zip(*parts, strict=True)] == whole


# Paths and URLs -------------------------------------------------------------------------------------------------------


def test_text_with_a_scheme_is_a_url():
    assert isinstance(as_path("gs://bucket/x"), Url) and str(as_path("gs://bucket/x/")) == "gs://bucket/x"
    for text in ("a/b", "/a/b", "C://b", "gs:/b", "://b", "gs://"):
        assert isinstance(as_path(text), pathlib.Path), text
    url = as_path("gs://bucket/folder/x.record")
    assert (url.name, url.stem, url.suffix, str(url.parent)) == ("x.record", "x", ".record", "gs://bucket/folder")
    assert as_path(url) == url and url.resolve() == url and pickle.loads(pickle.dumps(url)) == url
    assert str(url.with_name("y")) == "gs://bucket/folder/y" and str(url.parent / "z") == "gs://bucket/folder/z"
    assert repr(url) == "Url('gs://bucket/folder/x.record')" and len({url, as_path(str(url))}) == 1


def test_files_of_urls_are_written_whole_and_deleted(tmp_path):
    folder = as_path(f"ram://{tmp_path.name}/a")
    folder.mkdir()
    (folder / "x").write_text("wörd")
    assert (folder / "x").read_text() == "wörd" and (folder / "x").stat().st_size == 5
    assert folder.is_dir() and (folder / "x").is_file() and not (folder / "y").exists()
    assert [str(child) for child in folder.glob("?")] == [f"{folder}/x"] and not as_path("ram://none").glob("*")
    with pytest.raises(ZeroDivisionError), tf_record_file.writer(folder / "z") as append:
        append(b"1" * (1 // 0))
    assert [child.name for child in folder.iterdir()] == ["x"]
    (folder / "y").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (folder / "y").unlink()
