"""COCO files with faults that would end the process, take all memory, or raise exceptions other than DataError."""

import json
import logging
import resource
import subprocess
import sys

import pytest

from keras_maskrcnn import data

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


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1e300, 1e8, 2**31, 10**400])
def test_polygons_outside_all_bounds_do_not_reach_c(coco_folder, value):
    polygons = [[2, 1, value, 1, 6, 4, 2, 4], [value] * 6]
    found = read_in_a_process(*coco_folder([SQUARE, *({"segmentation": [polygon]} for polygon in polygons)]))
    assert found.startswith("1 {11: 'its polygons ") and ", 12: 'its polygons " in found


def test_an_outline_that_crosses_the_image_very_often_is_dropped(coco_folder):
    zigzag = [coordinate for _ in range(2000) for coordinate in (-1e5, 1, 1e5, 2)]
    coco = data.Coco(*coco_folder([SQUARE, {"segmentation": [zigzag]}]))
    assert len(coco[0]["labels"]) == 1 and "longer than" in coco.dropped[11]


def test_what_is_dropped_while_reading_is_logged_once(coco_folder, caplog):
    with caplog.at_level(logging.WARNING):
        coco = data.Coco(*coco_folder([SQUARE, {"segmentation": [[None] * 6]}]))
        assert [len(coco[0]["labels"]) for _ in range(2)] == [1, 1]
    assert caplog.text.count("1 annotations left out (11: its polygons") == 1


def test_a_polygon_that_leaves_the_image_is_kept(coco_folder):
    coco = data.Coco(*coco_folder([{"segmentation": [[-30, -30, 5, -30, 5, 40, -30, 40]]}]))
    assert coco[0]["masks"].sum() == 5 * 8 and not coco.dropped
