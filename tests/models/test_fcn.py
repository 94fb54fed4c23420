"""FCN: every variant runs, trains and comes back from files; detection, scores, export, XLA and JAX."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_maskrcnn import FCN, MaskRCNN, data, evaluation, training, visualize
from keras_maskrcnn.backbones import ResNet
from keras_maskrcnn.backbones import strides as strides_of
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.layers.upsampling import METHODS
from keras_maskrcnn.models import presets
from keras_maskrcnn.models.image_model import ImageModel
from keras_maskrcnn.training import recipe

ROOT = pathlib.Path(__file__).parents[2]
TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "stage": {"width": 16, "norm": "group", "dropout": 0.1},
    "image_size": (64, 64),
}
IMAGES = [np.random.default_rng(i).integers(0, 255, (*size, 3)).astype("uint8") for i, size in
          enumerate([(64, 64), (50, 90), (120, 40)])]  # fmt: skip


def tiny(**options):
    keras.utils.set_random_seed(3)
    return FCN(3, **{**TINY, **options})


@pytest.fixture(scope="module")
def shapes():
    return data.SemanticMasks(data.Shapes(4, image_size=(64, 64), seed=5, object_size=(14, 30)))


def batches_of(dataset, **options):
    return data.batches(dataset, (64, 64), 2, max_instances=6, mask_size=None, **options)


@pytest.fixture(scope="module")
def batch(shapes):
    x, y = batches_of(shapes, backend="numpy")[0]
    return {**x, "semantic": y["semantic"]}


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A model with two heads after an epoch of two steps, its logs and the folder of its files."""
    folder = tmp_path_factory.mktemp("fcn")
    model = tiny(image_size=None, auxiliary={"width": 8, "norm": "group", "loss_weight": 0.5})
    model.compile(training.SGD(0.02, momentum=0.9))
    scores = training.CocoEval(shapes, log_dir=folder / "logs", images=1)
    log = model.fit(batches_of(shapes), epochs=1, verbose=0, callbacks=[scores]).history
    model.save(folder / "model.keras")
    return model, log, folder


def tensors(batch):
    return {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}


def same_map(one, other):
    assert one.shape == other.shape and (one == other).mean() > 0.995  # equal logits up to rounding


@pytest.mark.parametrize("upsampling", METHODS)
@pytest.mark.parametrize("skips", ["add", "concatenate"])
def test_every_variant(batch, upsampling, skips):
    model = tiny(upsampling=upsampling, skips=skips, stride=16)
    cell = {"bilinear": 16, "max_unpool": 4}.get(upsampling, 1)
    inputs = tensors(batch)
    found = model({name: inputs[name] for name in ("images", "sizes")})["semantic"]
    assert found.shape == (2, 64 // cell, 64 // cell, 4) and found.dtype == "float32"
    losses = model(inputs)
    assert list(losses) == ["semantic_loss"] and np.isfinite(float(losses["semantic_loss"]))
    again = FCN.from_config(model.get_config())
    assert again.get_config() == model.get_config() and len(again.weights) == len(model.weights)


@pytest.mark.parametrize(("stride", "levels"), [(32, ["C5"]), (16, ["C4", "C5"]), (8, ["C3", "C4", "C5"])])
def test_strides(stride, levels):
    model = tiny(stride=stride)
    assert model.levels == levels and model.head.stride == stride and model.canvas_stride() == 32


@pytest.mark.parametrize(("output_stride", "levels"), [(8, ["C5"]), (16, ["C3", "C5"])])
def test_a_dilated_backbone(output_stride, levels):
    """The last level of each stride is taken; torchvision's dilations are those of the second block on."""
    model = tiny(backbone={**TINY["backbone"], "output_stride": output_stride})
    assert model.levels == levels and max(strides_of(model.backbone).values()) == output_stride
    assert model.backbone(np.zeros((1, 64, 64, 3), "float32"))["C5"].shape[1] == 64 // output_stride
    convs = {layer.name: layer for layer in ResNet(18, width=4, output_stride=8).layers if "_conv" in layer.name}
    dilations = [convs[f"stage{s}_block{b}_1_conv"].dilation_rate[0] for s in (2, 3, 4) for b in (1, 2)]
    assert dilations == [1, 1, 1, 2, 2, 4]
    with pytest.raises(ValueError, match="output_stride=4 is not one of 8, 16, 32"):
        ResNet(18, output_stride=4)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "simple_cnn", "efficientnet_lite0"])
def test_other_backbones(backbone, batch):
    options = {"width": 8} if backbone == "mobilenet_v2" else {}
    model = tiny(backbone={"name": backbone, **options}, stride=8)
    assert np.isfinite(float(model(tensors(batch))["semantic_loss"]))


def test_names_losses_and_scores_of_a_fit(trained, shapes):
    model, log, folder = trained
    assert model.class_names == list(shapes.class_names) and model.image_size == (64, 64)
    assert model.loss_names == ("semantic_loss", "auxiliary_loss") and model.fields == ("semantic",)
    assert {"semantic_loss", "auxiliary_loss", "val_mean_IoU", "val_pixel_accuracy", "val_boundary_F"} <= set(log)
    assert (folder / "logs" / "pictures" / "epoch_001.png").is_file()
    with pytest.raises(ValueError, match="the data has no semantic, which fcn is trained with"):
        model.fit(batches_of(shapes.dataset), verbose=0)
    other = data.SemanticMasks(shapes.dataset, ignore=77)
    with pytest.raises(ValueError, match="the map has ignore=77, the option of fcn_head is 255"):
        model.fit(batches_of(other), verbose=0)


def test_the_loss_is_the_weighted_sum_of_both_heads(trained, batch):
    model, *_ = trained
    losses = {name: float(value) for name, value in model(tensors(batch)).items()}
    assert float(model.total_loss(model(tensors(batch)))) == pytest.approx(sum(losses.values()), rel=1e-5)
    ignored = model({**tensors(batch), "semantic": np.full_like(batch["semantic"], 255)})
    assert all(float(value) == 0 for value in ignored.values())
    model.loss_weights = {"auxiliary_loss": 0.0}
    try:
        assert float(model(tensors(batch))["auxiliary_loss"]) == 0
    finally:
        model.loss_weights = {}


def test_images_of_all_sizes(trained):
    model, *_ = trained
    found = model.detect(IMAGES)
    assert [list(one) for one in found] == [["semantic"]] * 3
    maps = model.segment(IMAGES)
    assert [one.shape for one in maps] == [image.shape[:2] for image in IMAGES]
    assert all(one.dtype == np.uint8 and one.max() <= 3 for one in maps)
    np.testing.assert_array_equal(model.segment(IMAGES[0]), maps[0])
    assert model.segment(IMAGES[1], tiles=(32, 48), overlap=8).shape == (50, 90)


def test_files(trained, tmp_path):
    model, _, folder = trained
    expected = model.segment(IMAGES[1])
    again = keras.saving.load_model(folder / "model.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.segment(IMAGES[1]), expected)
    model.save_preset(tmp_path / "preset")
    np.testing.assert_array_equal(ImageModel.from_preset(tmp_path / "preset").segment(IMAGES[1]), expected)
    two = FCN.from_preset(tmp_path / "preset", num_classes=2)
    assert two.head.logits.kernel.shape[-1] == 3 and two.auxiliary.logits.kernel.shape[-1] == 3
    np.testing.assert_array_equal(two.head.stack.convs[0].kernel, model.head.stack.convs[0].kernel)


def test_drawings(trained, shapes):
    model, *_ = trained
    sample, found = shapes[0], model.detect(shapes[0]["image"])
    drawn = visualize.draw(sample["image"], found, shapes.class_names)
    assert drawn.shape == sample["image"].shape
    pair = visualize.side_by_side(sample["image"], sample, found, shapes.class_names)
    assert pair.shape[1] > 2 * sample["image"].shape[1]


def test_the_names_of_the_data_may_be_others(trained, shapes):
    """Classes that the data set lacks count as background; unknown ones are an error."""
    model, *_ = trained
    scores = evaluation.semantic_scores(model, shapes)
    assert list(scores["per_class"]) == ["background", *shapes.class_names]
    assert scores["mean_IoU"] == pytest.approx(evaluation.scores(model, shapes)["mean_IoU"])
    with pytest.raises(ValueError, match="the data set has the classes sky, ground, water, which the model does not"):
        evaluation.semantic_scores(model, data.Scenes(1, (64, 64)))


def test_one_batch_is_learned(shapes):
    """Overfitting: the maps of two images are found again, whatever the up-sampling."""
    two = data.Subset(shapes, [0, 1])
    model = tiny(stride=8, upsampling="deconvolution", skips="concatenate", stage={**TINY["stage"], "width": 32})
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(batches_of(two, repeat=True), epochs=1, steps_per_epoch=80, verbose=0)
    assert evaluation.semantic_scores(model, two)["mean_IoU"] > 0.8


def test_bfloat16(batch):
    model = tiny(dtype="mixed_bfloat16", auxiliary={"width": 8})
    inputs = tensors(batch)
    assert all(np.isfinite(float(loss)) for loss in model(inputs, training=True).values())
    found = model({name: inputs[name] for name in ("images", "sizes")})
    assert found["semantic"].dtype == "float32" and model.head.logits.compute_dtype == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("upsampling", METHODS)
def test_a_step_under_xla_equals_one_without(batch, upsampling):
    losses, weights, maps = [], [], []
    for jit_compile in (False, True):
        model = tiny(upsampling=upsampling, stride=16, stage={**TINY["stage"], "dropout": 0.0})
        model.compile(training.SGD(0.1), jit_compile=jit_compile)
        losses.append(model.train_on_batch(batch, return_dict=True)["semantic_loss"])
        weights.append([np.array(weight) for weight in model.weights])
        maps.append(model.segment(IMAGES[1]))
    same_map(*maps)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")
def test_a_recipe(shapes, tmp_path, eager_functions):
    """Training, scores, pictures and export are those of any model."""
    defaults = {"steps": 2, "epochs": 1, "batch_size": 2, "image_size": 64, "learning_rate": 1e-3, "width": 8}
    arguments = recipe.parser("FCN", **defaults).parse_args(["--output", str(tmp_path), "--precision", "float32"])
    recipe.begin(arguments)
    model = tiny(image_size=None)
    model.compile(recipe.optimizer(arguments))
    batches = recipe.batches(arguments, shapes, mask_size=None, max_instances=6)
    summary = recipe.train(arguments, model, shapes, shapes, batches)
    assert 0 <= summary["mean_IoU"] <= 1 and set(summary["per_class"]) == {"background", *shapes.class_names}
    assert "val_mean_IoU" in (tmp_path / "history.csv").read_text() and list((tmp_path / "pictures").glob("*.png"))
    found = SavedModel(tmp_path / "saved_model").detect(IMAGES[1])
    same_map(found["semantic"], model.segment(IMAGES[1]))


@pytest.mark.slow
@pytest.mark.parametrize("upsampling", ["bilinear", "max_unpool", "deconvolution"])
def test_savedmodel(upsampling, tmp_path):
    import tensorflow as tf

    model = tiny(upsampling=upsampling)
    model.export(tmp_path / "saved")
    served = SavedModel(tmp_path / "saved").detect(IMAGES)
    for one, other in zip(model.detect(IMAGES), served, strict=True):
        same_map(one["semantic"], other["semantic"])
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    found = signatures["serving_default"](images=tf.constant(IMAGES[1][None]))
    assert set(found) == {"semantic_predictions"} and found["semantic_predictions"].shape == (1, 50, 90)


def test_the_preset(narrow_presets):
    model = FCN.from_preset("fcn_resnet50")
    assert model.num_classes == 20 and model.canvas_stride() == 8 and model.levels == ["C5"]
    assert model.auxiliary_level == "C4" and model.auxiliary.stage.loss_weight == 0.5
    assert presets.read("fcn_resnet50")["config"]["stage"]["norm"] == "batch"
    with pytest.raises(ValueError, match=r"holds a FCN, so load it with FCN\.from_preset"):
        MaskRCNN.from_preset("fcn_resnet50")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stride": 5}, r"stride=5 is not one of \[4, 8, 16, 32\], the backbone's"),
        ({"upsampling": "linear"}, "upsampling='linear' is not one of"),
        ({"image_size": (60, 64)}, r"image_size=\(60, 64\) must be multiples of 32"),
        ({"stage": {"depths": 1}}, "FCNStage has no option depths"),
    ],
)
def test_errors(options, reason):
    with pytest.raises(ValueError, match=reason):
        tiny(**options)


PROGRAM = """
import sys, keras, numpy as np
import keras_maskrcnn
from keras_maskrcnn import data
assert keras.backend.backend() == "jax"
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
image = np.load(sys.argv[1] + "/image.npy")
np.save(sys.argv[1] + "/found.npy", model.segment(image))
shapes = data.SemanticMasks(data.Shapes(2, image_size=(64, 64), seed=5, object_size=(14, 30)))
batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=None)
print(model.evaluate(batches, verbose=0, return_dict=True)["semantic_loss"])
model.fit(batches, epochs=1, verbose=0)
"""


@pytest.mark.slow
def test_jax_gives_the_same_map_and_loss(trained, shapes, tmp_path):
    model, *_ = trained
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", IMAGES[1])
    ours = model.evaluate(batches_of(data.Subset(shapes, [0, 1]), backend="numpy"), verbose=0, return_dict=True)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-2000:]
    same_map(np.load(tmp_path / "found.npy"), model.segment(IMAGES[1]))
    assert float(run.stdout.split()[-1]) == pytest.approx(ours["semantic_loss"], rel=1e-3)
