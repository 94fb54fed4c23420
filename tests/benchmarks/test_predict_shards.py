"""Listing of the photos of a shard, in processes of their own."""

import json
import pathlib

from keras_maskrcnn.cli.inputs import Source
from keras_maskrcnn.cli.shards import Shard


def test_all_cases_find_their_photos(run_here, tmp_path):
    answer = run_here("predict_shards", "--photos", "300", "--output", tmp_path / "found.json")
    assert answer.returncode == 0, answer.stderr
    cases = json.loads((tmp_path / "found.json").read_text())["cases"]
    names = [f"photos/IMG_{number:08d}.jpg" for number in range(300)]
    third = sum(Shard(3, 16).holds(Source(pathlib.Path(name))) for name in names)
    assert {case: figures["photos"] for case, figures in cases.items()} == {
        "imports": 0,
        "folder, 3/16": third,
        "folder, 1/1": 300,
        "pattern, 3/16": third,
        "list on stdin, 3/16": third,
        "restart, 1/1": 0,
        "no shard": 300,
    }
    assert all(figures["mb"] > 10 and figures["seconds"] >= 0 for figures in cases.values())
