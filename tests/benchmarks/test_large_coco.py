import json

import large_coco

from keras_maskrcnn import data


def test_the_generated_file_is_a_coco_file(tmp_path):
    assert large_coco.write(tmp_path / "x.json", 16) == 3
    coco = data.Coco(tmp_path / "x.json", tmp_path)
    assert [len(coco.labels_at(position)) for position in range(3)] == [6, 5, 5] and not coco.dropped
    content = json.loads((tmp_path / "x.json").read_text())
    assert len(content["annotations"]) == 16 and len(content["categories"]) == 80


def test_a_run_prints_both_openings(run_here):
    printed = run_here("large_coco", "--annotations", 70)
    assert printed.returncode == 0, printed.stderr
    assert "10 images" in printed.stdout and "| first |" in printed.stdout and "| second |" in printed.stdout
    assert "annotations of an image, run lengths included" in printed.stdout
