"""`benchmarks/records.py`: measures that a person can compute, small files, and the page."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import records

from keras_maskrcnn import data

ROOT = pathlib.Path(__file__).parents[2]


def test_the_order_of_the_files_is_the_worst():
    images = 4 * records.WINDOW
    found = records.quality(np.arange(images))
    # Windows 0…1023, 1024…2047, … of files of 1,000: 24 of 1,024 are of the second file, then 48, 72 and 96.
    shares = [records._entropy(np.array(counts)) for counts in ((1000, 24), (976, 48), (952, 72), (928, 96))]
    assert found["near"] == 1 and found["distance"] == 1 / images
    assert found["entropy"] == pytest.approx(np.mean(shares))
    assert records._entropy(np.array([2, 0, 2, 4])) == 1.5


def test_pairs_that_are_torn_apart():
    images = 4 * records.WINDOW
    order = np.concatenate([np.arange(0, images, 2), np.arange(1, images, 2)])  # even ones before odd ones
    found = records.quality(order)
    assert found["near"] == 0 and found["distance"] == 0.5


def test_the_order_of_the_library_is_that_of_a_permutation():
    images, files = 60_000, 60
    found = {name: records.quality(order) for name, order in records.orders(images, files)}
    for name, order in records.orders(images, files):
        assert sorted(order.tolist()) == list(range(images)), name
    expected = records.expected(images)
    ours = found["`data.batches`"]
    assert expected["near"] == pytest.approx(2 * records.WINDOW / images, rel=0.02)
    assert ours["near"] == pytest.approx(expected["near"], rel=0.1)
    assert ours["distance"] == pytest.approx(expected["distance"], rel=0.05)
    assert ours["entropy"] == pytest.approx(expected["entropy"], abs=0.02)
    by_quality = sorted(found, key=lambda name: found[name]["near"])
    assert by_quality[0] == "`data.batches`" and by_quality[-1] == "order of the files"


def test_the_files_are_opened_by_the_reader(tmp_path):
    records.write(tmp_path, 1500)
    found = data.open(tmp_path / records.NAME)
    assert len(found) == 1500 and [file.name[-14:] for file in found.files] == ["00000-of-00002", "00001-of-00002"]
    assert len(found[1499]["labels"]) > 0
    figures = records.opening(str(tmp_path / records.NAME))
    assert figures["images"] == 1500 and figures["peak"] > 0.9 * figures["resident"] > 10**7
    index = tmp_path / f"{records.NAME}.index"
    with records.hidden(index):
        assert not index.exists()
    assert index.is_file()


def test_memory_is_what_a_case_has_more_than_the_one_file():
    def run(images, resident):
        return {"images": images, "opened": 0.5, "first": 1.0, "resident": resident, "peak": 2 * resident}

    rows = records.summary({"one file": [run(1000, 100e6)], "index": [run(10**6, 150e6)]})
    assert "resident" not in rows[0]
    assert rows[1]["resident"]["median"] == 50e6 and rows[1]["peak"]["median"] == 100e6
    report = {"rows": rows, "orders": {}, "reads": {}, "images": 10**6, "rounds": 1, "machine": "m", "date": "d"}
    printed = list(records.lines({**report, "versions": {}}))
    assert "| index | 1,000,000 | 0.50 | 1.00 | 50 | 100 | 50 |" in printed


def test_both_formats_are_read(tmp_path):
    pytest.importorskip("grain")
    assert set(records.reads(tmp_path, 1, records=20, size=5000)) == {"TFRecord and index", "ArrayRecord by grain"}


def test_too_few_images_are_refused(run_here):
    done = run_here("records", "--images", 100)
    assert done.returncode == 2 and "--images 100 is less than a window of 1024" in done.stderr.splitlines()[-1]


def test_the_tables_of_the_page_are_those_of_the_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "records.json").read_text())
    between = (ROOT / "docs" / "scale.md").read_text().split("<!-- records: begin -->\n")[1]
    assert between.startswith("\n".join(records.lines(results)))


@pytest.mark.slow
def test_a_small_run(tmp_path):
    (tmp_path / "scale.md").write_text("<!-- records: begin -->\n<!-- records: end -->\n")
    words = ["--images", "3000", "--rounds", "1", "--output", tmp_path / "out.json", "--docs", tmp_path]
    command = [sys.executable, records.__file__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out.json").read_text())
    assert [row["case"] for row in report["rows"]] == list(records.CASES)
    assert "| index | 3,000 |" in (tmp_path / "scale.md").read_text()
