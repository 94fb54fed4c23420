"""`bulk`: the rows of an engine are the lines of `predict --shard`, by hand and on a cluster of Ray."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import bulk
from keras_maskrcnn.cli import main

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory: six photos of noise with a bright rectangle, and one file that is none."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("photos/more").mkdir(parents=True)
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 40, (64, 96, 3), dtype=np.uint8)
        image[20:40, 10 + number : 40 + number] = 220
        Image.fromarray(image).save(f"photos/{'more/' * (number == 5)}{number}.png")
    pathlib.Path("photos/bad.png").write_text("not an image")
    return tmp_path


def shard_lines(*options):
    """Lines of `predict --shard` in all files, and objects in the joined results."""
    for number in (1, 2):
        words = ["photos", "--recursive", "--model", "nuclei", "--output", "parts", "--shard", f"{number}/2", *options]
        assert main(["predict", *words]) in (0, 2)
    assert main(["join", "parts", "--output", "joined.json"]) == 0
    lines = [line for path in pathlib.Path("parts").iterdir() for line in path.read_text().splitlines()]
    joined = json.loads(pathlib.Path("joined.json").read_text())
    return [line for line in lines if "file_name" in json.loads(line)], joined


@pytest.mark.slow
def test_rows_are_the_lines_of_the_shards(folder):
    expected, joined = shard_lines("--score", "0.4")
    detector = bulk.Detector("nuclei", score_threshold=0.4)
    names = list(bulk.file_names("photos", recursive=True))
    assert names == [*(f"photos/{n}.png" for n in range(5)), "photos/bad.png", "photos/more/5.png"]
    found = [detector({"file_name": np.array(part, object)}) for part in (names[:3], [], names[3:])]
    assert [name for rows in found for name in rows["file_name"]] == names
    lines = [line for rows in found for line in rows["record"]]
    assert sorted(lines) == sorted(expected) and len(joined) >= 6
    counts = bulk.write_coco(map(json.loads, lines), "found.json")
    assert counts == {"pictures": 6, "results": len(joined), "failed": 1}


def test_options_that_do_not_exist_are_refused(monkeypatch):
    class Model:
        class_names, schema = ("cell",), ()

    monkeypatch.setattr("keras_maskrcnn.cli.common.load", lambda path: Model())
    with pytest.raises(ValueError, match=r"^none: finds no objects$"):
        bulk.Detector("none")
    with pytest.raises(ValueError, match=r"^--every 0: must be at least 1$"):
        bulk.Detector("none", every=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'score'"):
        bulk.Detector("none", score=0.5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs ray: pip install "keras3-maskrcnn[ray]"')
def test_two_workers_of_ray_give_the_lines_of_the_shards(folder):
    """The example of docs/predict.md, on a cluster of two workers on this machine."""
    expected, joined = shard_lines()
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(import json\nimport ray\n.*?)^```", page, re.M | re.S)
    begin = "import ray\nray.init(num_cpus=2, include_dashboard=False)\n"
    end = 'with open("rows.json", "w") as file:\n    json.dump([row["record"] for row in found.iter_rows()], file)\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", begin + example.replace("batch_size=16", "batch_size=2") + end],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert sorted(json.loads(pathlib.Path("rows.json").read_text())) == sorted(expected)
    assert "'failed': 1" in done.stdout
    found = json.loads(pathlib.Path("found.json").read_text())
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, joined)) and joined
