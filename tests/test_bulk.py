"""`bulk`: the rows of an engine are the lines of `predict --shard`, by hand and on a cluster of Ray."""

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import bulk
from keras_maskrcnn.cli import main

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 600  # until a cluster of Ray counts as hung


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


# On a busy machine a process of Ray takes minutes to start, and Ray, which allows 60 seconds, would start another one
# instead, again and again.
CLUSTER = """
import ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, _node_ip_address="127.0.0.1")
"""
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_register_timeout_seconds": str(SECONDS),
    "RAY_agent_register_timeout_ms": str(1000 * SECONDS),
}
WRITE = 'with open("rows.json", "w") as file:\n    json.dump([row["record"] for row in found.iter_rows()], file)\n'
# Ray would run the detector a second time for `WRITE`.
ONCE = "found = found.materialize()\nprint(bulk."


def printed_by(program):
    """What a Python program prints; the test fails, and all its processes end, if it takes longer than `SECONDS`."""
    options = {"env": {**os.environ, **ENVIRONMENT}, "stderr": subprocess.STDOUT, "start_new_session": True}
    path = pathlib.Path("printed")
    with open(path, "wb") as file, subprocess.Popen([sys.executable, "-c", program], stdout=file, **options) as process:
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"Ray has not ended after {SECONDS} s; its last line: {path.read_text().splitlines()[-1:]}")
    assert process.returncode == 0, path.read_text()[-4000:]
    return path.read_text()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs ray: pip install "keras3-maskrcnn[ray]"')
def test_two_workers_of_ray_give_the_lines_of_the_shards(folder):
    """The example of docs/predict.md, on a cluster of two workers on this machine."""
    expected, joined = shard_lines()
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(import json\nimport ray\n.*?)^```", page, re.M | re.S)
    for shown, small in (("batch_size=16", "batch_size=2"), ("print(bulk.", ONCE)):
        assert shown in example
        example = example.replace(shown, small)
    assert "'failed': 1" in printed_by(CLUSTER + example + WRITE)
    assert sorted(json.loads(pathlib.Path("rows.json").read_text())) == sorted(expected)
    found = json.loads(pathlib.Path("found.json").read_text())
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, joined)) and joined
