"""`train/coco.py` from a whole model: presets, earlier runs, frozen layers, heads first; and what is left out."""

import importlib.util
import itertools
import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import MaskRCNN, training
from keras_maskrcnn.models.freezing import frozen_names
from keras_maskrcnn.training import fine_tuning

ROOT = pathlib.Path(__file__).parents[2]
TINY = {
    "backbone": {"name": "resnet10", "norm": "group", "width": 8},
    "fpn_channels": 16,
    "box_stage": {"width": 32},
    "mask_stage": {"width": 16, "depth": 1},
    "proposals": {"pre_nms": 50, "post_nms": 20, "training_pre_nms": 50, "training_post_nms": 20},
    "box_sampling": {"size": 8},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A COCO folder of six photos of one class; one more is truncated, and one more annotation is flat."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(7):
        pixels = rng.integers(0, 100, (64, 64, 3)).astype(np.uint8)
        pixels[10:40, 12:44] += 120
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
    truncated = (folder / "images" / "3.jpg").read_bytes()
    (folder / "images" / "3.jpg").write_bytes(truncated[: len(truncated) // 2])
    box = {"category_id": 1, "bbox": [12, 10, 32, 30], "segmentation": [[12, 10, 44, 10, 44, 40, 12, 40]]}
    annotations = [{"id": number, "image_id": number, **box} for number in range(7)]
    annotations.append({**annotations[1], "id": 9, "bbox": [12, 10, 0, 30]})
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 64, "width": 64} for n in range(7)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "pear"}]}
    (folder / "all.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A model of two other classes, as a `.keras` file and as the folder of a preset."""
    folder = tmp_path_factory.mktemp("earlier")
    model = MaskRCNN(2, class_names=["a", "b"], image_size=(64, 64), seed=0, **TINY)
    model.save(folder / "model.keras")
    model.save_preset(folder / "preset")
    return model, folder


def load():
    """The recipe as a module."""
    spec = importlib.util.spec_from_file_location("coco_recipe", ROOT / "train" / "coco.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def recipe(monkeypatch):
    """Runs the recipe and returns the arguments of `training.recipe.train`, which does nothing."""
    loaded = load()
    calls = []
    monkeypatch.setattr(training.recipe, "train", lambda *args, **options: calls.append((args, options)))

    def run(*words):
        words = ["--image-size", "64", "--precision", "float32", "--batch-size", "2", *map(str, words)]
        loaded.run(loaded.parse(words))
        return calls[-1]

    return run


def weights(layer):
    return [np.array(weight) for weight in layer.weights]


@pytest.mark.parametrize("words", [["--weights", "model.keras"], ["--preset", "preset"]])
def test_an_earlier_run_of_other_classes(photos, earlier, recipe, tmp_path, capsys, words):
    source, folder = earlier
    (arguments, model, *_), _ = recipe("--data", photos / "all.json", "--output", tmp_path, words[0], folder / words[1])
    assert (model.num_classes, model.class_names, model.image_size) == (1, ["pear"], (64, 64))
    assert "box_head.classes, box_head.deltas, mask_head.logits" in capsys.readouterr().out
    for name in ("backbone", "fpn", "rpn"):
        for one, other in zip(weights(getattr(model, name)), weights(getattr(source, name)), strict=True):
            np.testing.assert_array_equal(one, other, name)
    assert arguments.learning_rate == fine_tuning.LEARNING_RATE and not frozen_names(model)


def test_a_shipped_preset_with_frozen_stages(photos, recipe, tmp_path):
    options = ["--preset", "nuclei", "--freeze", "stages", "--learning-rate", "2e-4"]
    (arguments, model, *_, batches), _ = recipe("--data", photos / "all.json", "--output", tmp_path, *options)
    assert arguments.learning_rate == 2e-4 and model.class_names == ["pear"] and model.stretch
    assert all(name.startswith(fine_tuning.STAGES) for name in frozen_names(model)) and frozen_names(model)
    assert model.resize.scale is None and model.resize.tiles is None and model.image_size == (64, 64)
    assert type(batches.rows.dataset).__name__ == "Stretched"
    kernels = len(model.backbone.get_layer("stem_conv").trainable_weights)
    assert kernels == 0 and model.backbone.get_layer("stage2_block1_1_conv").trainable_weights


def test_annotations_without_masks_train_a_model_of_boxes(photos, recipe, tmp_path):
    content = json.loads((photos / "all.json").read_text())
    content["images"].pop(3)  # the truncated one
    content["annotations"] = [{**row, "segmentation": []} for row in content["annotations"][:7] if row["image_id"] != 3]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    files = ["--annotations", tmp_path / "boxes.json", "--images", photos / "images", "--output", tmp_path]
    MaskRCNN(2, image_size=(64, 64), **{**TINY, "mask_stage": None}).save(tmp_path / "boxes.keras")
    words = [*files, "--weights", tmp_path / "boxes.keras"]
    for option, boxes in ((["--boxes-only"], 1), ([], 0)):
        (_, model, train, val, _), _ = recipe(*words, *option)
        assert model.mask_head is None
        assert [len(sample["boxes"]) for part in (train, val) for sample in part] == [boxes] * 6


@pytest.mark.parametrize("words", [["--data", "all.json"], ["--annotations", "all.json", "--images", "images"]])
def test_boxes_only_is_for_coco_files_and_models_of_boxes(photos, earlier, recipe, tmp_path, monkeypatch, words):
    monkeypatch.chdir(photos)
    reason = "needs --annotations FILE" if "--data" in words else "is for models without masks"
    with pytest.raises(ValueError, match=f"--boxes-only {reason}"):
        recipe(*words, "--output", tmp_path, "--weights", earlier[1] / "model.keras", "--boxes-only")


def test_the_schedule_of_the_papers(photos, recipe, tmp_path):
    small = ["--backbone", "resnet10", "--width", "8", "--norm", "group"]
    (arguments, model, *_), _ = recipe("--data", photos / "all.json", "--output", tmp_path, "--schedule", "1x", *small)
    assert (arguments.steps, arguments.learning_rate) == (720_000, 0.0025)  # two images per step
    optimizer = model.optimizer
    assert type(optimizer) is training.SGD and (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 8000, 480_000, 640_000)]
    np.testing.assert_allclose(rates, [2.5e-6, 2.5e-3, 2.5e-4, 2.5e-5], rtol=1e-5)


def test_the_schedule_takes_fewer_steps_and_another_rate(earlier):
    words = ["--output", "run", "--preset", str(earlier[1] / "preset"), "--schedule", "paper", "--batch-size", "8"]
    found = load().parse(words)
    assert (found.steps, found.learning_rate, found.weights) == (320_000, 0.01, None)
    other = load().parse([*words, "--steps", "100", "--learning-rate", "0.004"])
    assert (other.steps, other.learning_rate) == (100, 0.004)
    rate = load().optimizer(other)._learning_rate
    np.testing.assert_allclose(float(rate(240_000)), 4e-4, rtol=1e-5)
    with pytest.raises(SystemExit):
        load().parse([*words, "--minutes", "3"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--preset", "none"], "there is no preset 'none'"),
        (["--preset", "mask_rcnn_resnet50_fpn"], "holds no weights: give their file as --weights"),
        (["--preset", "nuclei", "--weights", "imagenet"], "--preset nuclei holds its own weights"),
        (["--weights", "none.keras"], r"none\.keras: no such file"),
        (["--weights", "model.keras", "--preset", "nuclei"], "either --preset or a .keras file"),
        (["--weights", "model.keras", "--freeze", "spine"], "no layer's name starts with 'spine'"),
    ],
)
def test_arguments_that_do_not_fit(photos, earlier, recipe, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(earlier[1])
    with pytest.raises(ValueError, match=reason):
        recipe("--data", photos / "all.json", "--output", tmp_path, *words)


def test_heads_first_then_all_layers(photos, earlier, recipe, tmp_path, eager_functions, capsys):
    source, folder = earlier
    words = ["--weights", folder / "model.keras", "--heads-first", 0.5, "--freeze", "backbone/stem", "--steps", 4]
    (_, model, *_, batches), options = recipe("--data", photos / "all.json", "--output", tmp_path, *words)

    class Clock(keras.callbacks.Callback):
        steps = traces = 0
        seen = ()

        def retraced(self):
            self.traces += 1

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            kernels = (model.backbone.get_layer("stage2_block1_1_conv").kernel, model.box_head.weights[0])
            self.seen += ([np.array(kernel) for kernel in kernels],)

    clock = Clock()
    callbacks = [clock, *(make(clock) for make in options["callbacks"])]
    history = model.fit(batches, epochs=2, steps_per_epoch=2, verbose=0, callbacks=callbacks)
    assert np.isfinite(history.history["loss"]).all() and sum(history.history["skipped_steps"]) == 0
    first = np.array(source.backbone.get_layer("stage2_block1_1_conv").kernel)
    moved = [bool((backbone != first).any()) for backbone, _ in clock.seen]
    assert moved == [False, False, True, True] and clock.traces == 2
    heads = [head for _, head in clock.seen]
    assert all((one != other).any() for one, other in itertools.pairwise(heads))
    assert all(name.startswith("backbone/stem") for name in frozen_names(model))
    assert capsys.readouterr().out.count("the backbone is frozen for the first 50%") == 1


class Line(keras.Model):
    """Two scalars between input and output, the first of them the backbone."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = keras.layers.Dense(1, name="first"), keras.layers.Dense(1, name="second")
        self.backbone.build((None, 1))
        self.head.build((None, 1))
        self.built = True

    def parts(self):
        return {"backbone": self.backbone, "head": self.head}

    def call(self, inputs):
        return self.head(self.backbone(inputs))


def test_a_compiled_step_is_traced_again_when_the_backbone_is_released():
    model, values = Line(), np.ones((8, 1), np.float32)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            [float(part.kernel[0, 0]) for part in model.parts().values()]
        )
    )
    first = fine_tuning.HeadsFirst(0.5, lambda: len(seen) / 8)
    before = float(model.backbone.kernel[0, 0])
    model.fit(values, 5 * values, batch_size=1, verbose=0, callbacks=[watch, first])
    assert [kernel == before for kernel, _ in seen] == [True] * 4 + [False] * 4
    assert len({kernel for _, kernel in seen}) == 8 and not frozen_names(model)


def test_the_whole_run_survives_a_truncated_photo(photos, earlier, tmp_path, run_here, eager_functions, monkeypatch):
    models = []
    monkeypatch.setattr(MaskRCNN, "export", lambda model, path: models.append(model))
    monkeypatch.setattr(training.recipe, "SavedModel", lambda path: models[0])
    options = ["--annotations", photos / "all.json", "--images", photos / "images", "--image-size", 64, "--epochs", 1]
    options += ["--weights", earlier[1] / "model.keras", "--steps", 2, "--batch-size", 2]
    answer = run_here("coco", *options, "--output", tmp_path / "run")
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "left out, of images and annotations: 2" in answer.stderr
    left_out = json.loads((tmp_path / "run" / "summary.json").read_text())["left_out"]
    assert "3.jpg: cannot be read as an image" in left_out[0] and left_out[1] == "annotation 9: its box has no width"
    answer = run_here("coco", *options, "--output", tmp_path / "strict", "--strict")
    assert answer.returncode == 2 and "9: its box has no width" in answer.stderr
    content = json.loads((photos / "all.json").read_text())
    content["annotations"] = content["annotations"][:-1]
    (tmp_path / "sound.json").write_text(json.dumps(content))
    options[1] = tmp_path / "sound.json"
    answer = run_here("coco", *options, "--output", tmp_path / "strict", "--strict")
    assert answer.returncode == 2 and "3.jpg: cannot be read as an image" in answer.stderr
    assert "Traceback" not in answer.stderr
