"""Text and record files that are small on disk and large or endless in memory, and what messages show of them."""

import json
import logging
import pickle
import struct

import google_crc32c
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.cli import line_file
from keras_maskrcnn.data import errors, json_text, record_index, yolo
from keras_maskrcnn.data.doctor.opening import sets_in
from keras_maskrcnn.weights import preset_folder

DEEP = "[" * 100_000


def reason_of(function, *arguments):
    """The reason in the DataError of a call, after a check that the message is one short line."""
    with pytest.raises(data.DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 4000
    return caught.value.reason


READERS = {
    "coco": lambda path: data.Coco(path, path.parent),
    "lvis": lambda path: data.Lvis(path, path.parent),
    "via": data.Via,
    "panoptic": lambda path: data.CocoPanoptic(path, path.parent, path.parent),
    "labelme": lambda path: data.LabelMe(path.parent),
    "open": data.open,
    "preset": preset_folder._json,
}


@pytest.mark.parametrize("start", ["", '{"images": ', '{"images": [{"id": '])
@pytest.mark.parametrize("reader", READERS)
def test_json_that_is_nested_too_deeply(tmp_path, reader, start):
    (tmp_path / "a.json").write_text(start + DEEP)
    reason = reason_of(READERS[reader], tmp_path / "a.json")
    assert "nested too deeply" in reason or (not start and "is no COCO file: it lists no images" in reason)


def test_nesting_in_a_record_that_was_whole_when_it_was_indexed(coco_folder):
    path, folder = coco_folder([{"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "note": DEEP}])
    text = path.read_text()
    coco = data.Coco(path, folder)
    path.write_text(text.replace(f'"{DEEP}"', DEEP + "  "))
    assert "has been changed" in reason_of(coco.__getitem__, 0)
    assert [dataset for _, dataset, _ in sets_in(path, folder)] == [None]


def test_other_json_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n{DEEP}\n')
    assert [content for _, content in line_file.read_lines(tmp_path / "a.jsonl")] == [{"a": 1}, None]
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.loads(DEEP)


@pytest.fixture
def data_yaml(tmp_path):
    """Function that writes a `data.yaml` beside a folder of one image."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")

    def write(text):
        (tmp_path / "data.yaml").write_text(text)
        return tmp_path / "data.yaml"

    return write


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize("text", [f"{LAUGHS}names: *a11", f"{MERGES}names: [a]", "names: &a [*a]", "path: &a [*a]"])
def test_yaml_with_aliases(data_yaml, text):
    assert reason_of(data.open, data_yaml(text)) == "cannot be read as YAML (it has aliases)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"names: {DEEP}", "cannot be read as YAML (it is nested too deeply)"),
        ("day: 2001-99-99", "cannot be read as YAML (month must be in 1..12)"),
        ("names: {a: b}", "has names whose keys are not numbers"),
        ("names: {.inf: b}", "has names whose keys are not numbers"),
        ("names: {~: b}", "has names whose keys are not numbers"),
        ("names: abc", "has names that are neither a list nor a dict"),
        (f"names: [0x{'f' * 5000}]", "has names whose keys are not numbers"),
        ("? [a]\n: b", "cannot be read as YAML"),
        ("[a, b]", "is no data.yaml"),
    ],
)
def test_yaml_that_is_damaged(data_yaml, text, reason):
    assert reason in reason_of(data.open, data_yaml(text))


def test_a_yaml_file_has_a_size(data_yaml, monkeypatch):
    path = data_yaml("train: images\nnames: [ant]\n")
    assert len(data.open(path, "train")) == 1
    monkeypatch.setattr(yolo, "MAX_YAML", 20)
    assert "it has 27 characters, more than keras_maskrcnn.data.yolo.MAX_YAML = 20" in reason_of(data.open, path)


def masked(content):
    """Source: tensorflow/core/lib/hash/crc32c.h."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.mark.parametrize("length", [2**40, 2**63 - 1, 2**64 - 1])
def test_a_record_that_claims_to_be_huge(tmp_path, length):
    header = struct.pack("<Q", length)
    (tmp_path / "label_map.pbtxt").write_text('item { id: 1 name: "ant" }')
    (tmp_path / "train.record").write_bytes(header + masked(header) + b"content" + masked(b"content"))
    assert "is truncated in record 0: it has 23 bytes of" in reason_of(data.TfRecord, tmp_path / "train.record")
    (tmp_path / "train.record.index").write_bytes((tmp_path / "train.record").read_bytes())
    assert "is truncated in record 0" in reason_of(data.TfRecord, tmp_path / "train.record")


def test_an_index_that_claims_huge_records(tmp_path):
    data.write_tfrecord(data.Shapes(2), tmp_path / "train.record")
    dataset = data.TfRecord(tmp_path / "train.record")
    for lengths in ([2**62, 2**62], [-(2**40), 2**40], [2**63 - 1, 5]):
        record_index.write(tmp_path / "train.record.index", {dataset.files[0].name: lengths})
        assert "it is truncated, or the index is that of another file" in reason_of(
            data.TfRecord, tmp_path / "train.record"
        )
    dataset.files[0].write_bytes(dataset.files[0].read_bytes()[:100])
    assert "is damaged: its bytes do not fit their checksum" in reason_of(dataset.__getitem__, 0)


def test_long_names_are_shortened(coco_folder, tmp_path):
    long = "x" * 10**6
    path, folder = coco_folder([])
    content = json.loads(path.read_text())
    for key, value in (("file_name", f"../{long}"), ("file_name", long), ("height", long), ("id", [long])):
        content["images"][0] = {"id": 0, "file_name": "one.png", "height": 8, "width": 10, key: value}
        path.write_text(json.dumps(content))
        assert "xxx" in reason_of(lambda: data.Coco(path, folder)[0]) or key == "file_name"
    with pytest.raises(data.DataError, match=r"one\.png"):
        raise data.DataError(f"{'y' * 5000}one.png", "z" * 5000)


def test_dropped_annotations_are_logged_in_short_lines(tmp_path, caplog):
    shape = {"name": "x" * 10**6}
    circle = {"name": "circle", "cx": 1, "cy": 1, "r": 1}
    regions = [{"shape_attributes": shape}, {"shape_attributes": circle}]
    (tmp_path / "via.json").write_text(json.dumps({f"{'k' * 10**6}\n": {"regions": regions}}))
    with caplog.at_level(logging.WARNING):
        data.Via(tmp_path / "via.json")
    assert len(caplog.messages) == 1 and len(caplog.messages[0]) < 4000 and "\n" not in caplog.messages[0]


def test_messages_have_no_control_codes():
    error = data.DataError("a\n\x1b[2J\udc80.png", "b\r\n c\x07 \u2028 é 名")
    assert str(error) == r"a\n\x1b[2J\udc80.png: b c\x07 é 名"
    again = pickle.loads(pickle.dumps(data.DataError("\n" * 3000, "\x07" * 5000)))
    assert str(again) == str(data.DataError("\n" * 3000, "\x07" * 5000)) and len(str(again)) < 3100
    assert (errors.one_line("a" * 10, 10), errors.one_line("a" * 11, 10)) == ("a" * 10, "aaa … aaa")


def test_the_list_of_formats_stays_whole(tmp_path):
    reason = reason_of(data.open, tmp_path)
    assert all(f"{name}: " in reason for name in data.formats.FORMATS) and " … " not in reason
