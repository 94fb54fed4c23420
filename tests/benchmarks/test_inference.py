import pathlib
import subprocess
import sys
import types

import inference
import machine
import numpy as np
import peers
import predict_folder
import pytest
import training
from PIL import Image

FOLDER = pathlib.Path(inference.__file__).parent


@pytest.mark.parametrize("name", ["inference", "training", "predict_folder", "precision", "roi_align", "nms"])
def test_help_shows_an_example(name, run_here):
    done = run_here(name, "--help")
    assert done.returncode == 0
    assert f"python benchmarks/{name}.py" in done.stdout and "--worker" not in done.stdout


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("training", ("--size", 100), "--size 100 is not a multiple of 64"),
        ("inference", ("--peer", "detectron"), "invalid choice: 'detectron'"),
        ("inference", ("--precision", "float16"), "invalid choice: 'float16'"),
        ("predict_folder", ("--photos", "/no/folder"), "/no/folder: no such folder"),
        ("predict_folder", ("--peer-kind", "float32 eager"), "--peer-kind float32 eager: needs --peer-python"),
        (
            "predict_folder",
            ("--peer-kind", "bfloat16 channels-last", "--peer-python", "python", "--precision", "float32"),
            "not compared with --precision float32",
        ),
        ("precision", ("--photos", "/no/folder"), "/no/folder: no such folder"),
        ("precision", ("--model", "/no/file.keras"), "/no/file.keras: no such file"),
        ("precision", (), "one of the arguments --model --photos is required"),
    ],
)
def test_bad_input_is_named(name, words, message, run_here):
    done = run_here(name, *words)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]


def test_arguments_are_read_before_the_heavy_imports():
    names = ["inference", "training", "predict_folder", "precision", "roi_align", "nms", "growth", "gpu", "memory"]
    code = f"import sys, {', '.join(names)}; print(sys.modules.keys() & {{'keras', 'tensorflow', 'jax'}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_cases_name_both_sides():
    assert peers.cases(["float32"], "torchvision") == [
        "float32; torchvision float32 eager",
        "float32; torchvision float32 channels-last",
    ]
    assert peers.cases(["mixed_bfloat16"], "model-garden") == ["mixed_bfloat16; model-garden bfloat16 graph"]
    assert peers.cases(peers.PRECISIONS) == ["float32", "mixed_bfloat16"]


@pytest.mark.parametrize("peer", peers.KINDS)
def test_parts_undo_cases(peer):
    for precision in peers.PRECISIONS:
        found = [peers.parts(case) for case in peers.cases([precision], peer)]
        assert found == [(precision, kind) for kind in peers.KINDS[peer][precision]]
    assert peers.parts("SavedModel float32") == ("SavedModel float32", "")


def test_precisions_depend_on_the_processor(monkeypatch):
    for has, expected in ((True, peers.PRECISIONS), (False, ("float32",))):
        monkeypatch.setattr(machine, "has_bfloat16", lambda has=has: has)
        assert peers.precisions(types.SimpleNamespace(precision=None)) == expected
    assert peers.precisions(types.SimpleNamespace(precision=["mixed_bfloat16"])) == ["mixed_bfloat16"]


def test_a_saved_model_has_no_peer():
    names = inference.cases(["float32"], "torchvision", saved_model=True)
    assert names[-1] == "SavedModel float32"
    options = types.SimpleNamespace(worker="peer", peer="torchvision", size=[64, 64], tiny=False, without_pasting=False)
    assert inference.case(names[-1], options) is None


def test_inference_checks_what_was_pasted():
    full = {"detections": 100, "mask_shape": [100, 8, 9]}
    assert inference.check(full, full) is None
    assert "[99, 8, 9]" in inference.check(full, {"detections": 99, "mask_shape": [99, 8, 9]})
    nothing = {"detections": 0, "mask_shape": [0, 8, 9]}
    assert inference.check(nothing, nothing)


def test_training_checks_the_mask_regions():
    assert training.check({"mask_rois": 48.0}, {"mask_rois": 50}) is None
    assert "48.0" in training.check({"mask_rois": 48.0}, {"mask_rois": 60})
    assert training.check({"mask_rois": 0}, {"mask_rois": 0})


def test_predict_folder_checks_images_and_detections():
    facts = {"pictures": 4, "detections": 100}
    assert predict_folder.check(facts, {"pictures": 4, "detections": 97}) is None
    assert predict_folder.check(facts, {"pictures": 4, "detections": 90})
    assert predict_folder.check(facts, {"pictures": 3, "detections": 100})


def test_generated_images_have_the_sizes_of_coco(tmp_path):
    predict_folder.fill_folder(tmp_path, 10)
    images = [predict_folder.read(path) for path in sorted(tmp_path.iterdir())]
    assert [image.shape[:2] for image in images[:3]] == [(480, 640), (640, 480), (427, 640)]
    assert images[8].shape == images[0].shape and np.any(images[8] != images[0])
    assert len(images) == 10


def test_photos_are_repeated_in_order(tmp_path):
    photos, folder = tmp_path / "photos", tmp_path / "folder"
    photos.mkdir(), folder.mkdir()
    for name, width in (("a.png", 20), ("b.JPG", 30), ("notes.txt", None)):
        (photos / name).write_text("") if width is None else Image.new("RGB", (width, 10)).save(photos / name)
    predict_folder.fill_folder(folder, 5, photos)
    assert [predict_folder.read(path).shape[1] for path in sorted(folder.iterdir())] == [20, 30, 20, 30, 20]
    (photos / "a.png").unlink(), (photos / "b.JPG").unlink()
    with pytest.raises(SystemExit, match="no JPEG or PNG image"):
        predict_folder.fill_folder(folder, 5, photos)
