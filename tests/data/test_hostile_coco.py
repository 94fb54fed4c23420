"""COCO files with faults that would end the process, take all memory, or raise exceptions other than DataError."""

import ast
import logging
import resource
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from keras_maskrcnn import data
from keras_maskrcnn.data import run_lengths

SQUARE = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "bbox": [2, 1, 4, 3]}
MEMORY = 2 * 2**30  # bytes of address space of a reading process
READ = """
import sys
from keras_maskrcnn import data
coco = data.Coco(*sys.argv[1:])
print(len(coco[0]["labels"]), dict(coco.dropped))
"""


def read_in_a_process(path, folder):
    """What a process with limited memory prints about the first image; a crash or an exception fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path, folder],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-500:]}"
    return done.stdout.strip()


def assert_dropped(printed, count, start):
    """All annotations but the first were dropped, for a reason that starts as given."""
    found, _, dropped = printed.partition(" ")
    dropped = ast.literal_eval(dropped)
    assert found == "1" and sorted(dropped) == list(range(11, 11 + count))
    assert all(reason.startswith(start) for reason in dropped.values())


def test_polygons_outside_all_bounds_do_not_reach_c(coco_folder):
    values = None, float("nan"), float("inf"), -1e300, 1e8, 2**31, 10**400
    polygons = [polygon for value in values for polygon in ([2, 1, value, 1, 6, 4, 2, 4], [value] * 6)]
    annotations = [SQUARE, *({"segmentation": [polygon]} for polygon in polygons)]
    assert_dropped(read_in_a_process(*coco_folder(annotations)), len(polygons), ("its polygons ", "its mask "))


def test_an_outline_that_crosses_the_image_very_often_is_dropped(coco_folder):
    zigzag = [coordinate for _ in range(2000) for coordinate in (-1e5, 1, 1e5, 2)]
    coco = data.Coco(*coco_folder([SQUARE, {"segmentation": [zigzag]}]))
    assert len(coco[0]["labels"]) == 1 and "longer than" in coco.dropped[11]


def test_what_is_dropped_while_reading_is_logged_once(coco_folder, caplog):
    with caplog.at_level(logging.WARNING):
        coco = data.Coco(*coco_folder([SQUARE, {"segmentation": [[None] * 6]}]))
        assert [len(coco[0]["labels"]) for _ in range(2)] == [1, 1]
    assert caplog.text.count("1 annotation left out (11: its mask is neither") == 1


def test_a_polygon_that_leaves_the_image_is_kept(coco_folder):
    coco = data.Coco(*coco_folder([{"segmentation": [[-30, -30, 5, -30, 5, 40, -30, 40]]}]))
    assert coco[0]["masks"].sum() == 5 * 8 and not coco.dropped


def counts(text, **changes):
    return {"segmentation": {"size": [8, 10], "counts": text, **changes}}


UNREADABLE = [
    counts("93T"),  # 9, 3 and a count without its last part
    counts("93"),
    counts(""),
    counts("9" * 200),
    counts("93oooooooooooooooo1"),
    counts("\u00e9"),
    counts(None),
    counts(7),
    counts([-9, 21, 68]),
    counts([9, 3, 68.5]),
    counts([9, 3, None]),
    counts([9, 3, 10**400]),
    counts([9, 3, [68]]),
    counts([9, 3, 68], size=None),
    counts([9, 3, 68], size=[8, "10"]),
    counts([9, 3, 68], size=[8, 10, 1]),
    {"segmentation": "text"},
    {"segmentation": 7},
    {"segmentation": {}},
    {"segmentation": [7]},
    {"segmentation": [{"size": [8, 10]}]},
    {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
    {"segmentation": [[1, 2, [3], 4, 5, 6]]},
    {"bbox": None},
    {"bbox": 5},
    {"bbox": "wide"},
    {"bbox": [1, 2, "3", 4]},
    {"bbox": [1, 2, 10**400, 4]},
    {"bbox": {"0": 1, "1": 1, "2": 1, "3": 1}},
    {"iscrowd": "0"},
    {"iscrowd": [0]},
    {"iscrowd": 2},
]


def test_annotations_that_cannot_be_read_are_dropped(coco_folder):
    annotations = [SQUARE, *({**SQUARE, **annotation} for annotation in UNREADABLE)]
    assert_dropped(read_in_a_process(*coco_folder(annotations)), len(UNREADABLE), "its ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file_name": None}, "images[0] has the file_name None"),
        ({"file_name": ["one.png"]}, "images[0] has the file_name ['one.png']"),
        ({"file_name": "../one.png"}, "images[0] has the file_name '../one.png', which is outside the folder"),
        ({"file_name": "a/../../one.png"}, "which is outside the folder"),
        ({"file_name": "/etc/hosts"}, "which is outside the folder"),
        ({"height": None}, "images[0] has the height None"),
        ({"height": "8"}, "images[0] has the height '8'"),
        ({"width": 0}, "images[0] has the width 0"),
        ({"width": 10**400}, "images[0] has the width 1000"),
        ({"width": float("nan")}, "images[0] has the width nan"),
        ({"id": [1]}, "images[0] has the id [1]"),
        ({"id": None}, "images[0] has the id None"),
        ({"id": {"a": 1}}, "images[0] has the id {'a': 1}"),
    ],
)
def test_records_of_images_that_cannot_be_used(coco_folder, changes, reason):
    record = {"id": 0, "file_name": "one.png", "height": 8, "width": 10, **changes}
    assert reason in rejection(*coco_folder([SQUARE], records=[record]))


def rejection(path, folder):
    with pytest.raises(data.DataError) as caught:
        data.Coco(path, folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return caught.value.reason


def test_ids_that_cannot_be_told_apart(coco_folder):
    image = {"id": 0, "file_name": "one.png", "height": 8, "width": 10}
    assert rejection(*coco_folder([], records=[image, image])) == "images[0] and images[1] have the id 0"
    mixed = [image, {**image, "id": "0"}]
    assert "ids of images are numbers and texts" in rejection(*coco_folder([], records=mixed))
    ants = [{"id": 3, "name": "ant"}, {"id": 3, "name": "bee"}]
    assert rejection(*coco_folder([], categories=ants)) == "categories[0] and categories[1] have the id 3"
    assert "name None" in rejection(*coco_folder([], categories=[{"id": 3, "name": None}]))
    again = rejection(*coco_folder([SQUARE, {**SQUARE, "id": 10}]))
    assert again == "annotations[0] and annotations[1] have the id 10"


@pytest.mark.parametrize("key", ["id", "image_id", "category_id"])
def test_ids_that_cannot_be_keys(coco_folder, key):
    assert f"annotations[0] has the {key} [" in rejection(*coco_folder([{**SQUARE, key: [1]}]))


def test_ids_may_be_texts(coco_folder, caplog):
    image = {"id": "a", "file_name": "one.png", "height": 8.0, "width": 10}
    annotations = [{**SQUARE, "id": name, "image_id": "a"} for name in ("first", "second")]
    annotations[1]["bbox"] = [2, 1, 0, 3]
    coco = data.Coco(*coco_folder(annotations, records=[image]))
    assert coco[0]["image_id"] == "a" and list(coco.dropped) == ["second"] and "(second: its box" in caplog.text


def test_nesting_and_numbers_that_json_cannot_read(tmp_path):
    for content in (
        "[" * 100_000,
        '{"images": ' + "[" * 100_000,
        '{"images": [1' + "0" * 5000 + "]}",
        "\xff",
        "\ud800",
    ):
        (tmp_path / "bad.json").write_bytes(content.encode("latin-1", "replace"))
        assert rejection(tmp_path / "bad.json", tmp_path)


def test_files_outside_the_folder_are_read_on_request(coco_folder, tmp_path):
    record = {"id": 0, "file_name": "../one.png", "height": 8, "width": 10}
    path, _ = coco_folder([SQUARE], records=[record])
    (tmp_path / "images").mkdir()
    coco = data.Coco(path, tmp_path / "images", allow_outside=True)
    assert len(coco[0]["labels"]) == 1


def test_text_that_cannot_be_printed(coco_folder):
    record = {"id": 0, "file_name": "\ud800.png", "height": 8, "width": 10}
    with pytest.raises(data.DataError) as caught:
        data.Coco(*coco_folder([], records=[record]))[0]
    str(caught.value).encode()


def test_compressed_run_lengths_are_unpacked_as_pycocotools_does():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2)
        mask = np.asfortranarray(rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1]), np.uint8)
        text = mask_tools.encode(mask)["counts"].decode()
        changes = np.flatnonzero(np.diff(mask.ravel("F"), prepend=0)).tolist()
        wanted = np.diff([0, *changes, mask.size])
        np.testing.assert_array_equal(run_lengths._unpacked(text), wanted)
