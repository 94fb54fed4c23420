"""One suite for all models. A model is described once, in `TASKS`; the tests know nothing else about its class.

All models take every candidate of their samplers, so that nothing is random: eager, compiled and JAX runs of the same
weights give the same losses. What only one model has is tested in the file of that model.
"""

import concurrent.futures
import functools
import json
import os
import pathlib
import subprocess
import sys
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import FCN, YOLACT, data
from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.inference.export import opened
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models.image_model import ImageModel

ROOT = pathlib.Path(__file__).parents[2]
CANVAS, STEPS = (64, 64), 2
BACKBONE = {"name": "resnet10", "width": 8, "norm": "frozen_batch"}  # other norms need many operations
EVERYTHING = {"size": 5000, "positive_fraction": 1.0}
ONE_LEVEL = {"sizes": ((12, 24, 48),)}
BOXES = {"boxes", "labels", "scores", "proposals"}
FEW = {"score_threshold": 0.0, "max_detections": 5}
SHAPES = functools.partial(data.Shapes, 2, CANVAS, seed=5, object_size=(12, 30))


class Task(typing.NamedTuple):
    """What the suite must know about a model.

    Attributes:
        make: function of the fixture `tiny`, and of constructor arguments, to a model for three classes.
        returns: names in the results of `detect`.
        dataset: function that makes two images of 64×64 with the ground truth of the model.
        limits: arguments with which `detect` gives the same in every precision: few objects, whatever their scores.
        mask_size: as in `data.batches`.
        unmoved: paths of trainable weights whose gradient is zero.
        quick: which of its tests are in the quick suite: "all", "eager" (those that neither trace nor compile, which
            takes ten times as long), or "none". The others are slow tests.
    """

    make: typing.Callable
    returns: set
    dataset: typing.Callable = SHAPES
    limits: dict = FEW
    mask_size: int | None = 28
    unmoved: tuple = ()
    quick: str = "eager"


def two_stage(**own):
    """Function for `Task.make`: a tiny `MaskRCNN` with its own options."""
    common = {"backbone": BACKBONE, "rpn_sampling": EVERYTHING, "box_sampling": EVERYTHING}
    return lambda tiny, **given: tiny(**{**common, **own, **given})


def other(model, **own):
    """Function for `Task.make`: a tiny model of another class."""

    def make(tiny, **given):
        keras.utils.set_random_seed(3)
        return model(3, **{"backbone": BACKBONE, "image_size": CANVAS, **own, **given})

    return make


def head(name, **config):
    """A head as a configuration without a dtype policy, so that it takes the model's."""
    module = {"KeypointHead": "keypoint", "SemanticHead": "semantic"}[name]
    return {
        "class_name": name,
        "registered_name": f"keras_maskrcnn>{name}",
        "module": f"keras_maskrcnn.heads.{module}",
        "config": {"name": f"{module}_head", **config},
    }


TASKS = {
    "mask_rcnn": Task(two_stage(), BOXES | {"masks"}),
    "mask_rcnn_c4": Task(
        two_stage(neck="c4", anchors=ONE_LEVEL, box_stage=None, mask_stage={"width": 8}),
        BOXES | {"masks"},
    ),
    "mask_rcnn_dc5": Task(two_stage(neck="dc5", anchors=ONE_LEVEL), BOXES | {"masks"}, quick="none"),
    "faster_rcnn": Task(two_stage(mask_stage=None), BOXES, mask_size=None),
    "cascade": Task(two_stage(cascade={}), BOXES | {"masks"}),
    "keypoints": Task(
        # One level: half as many operations to trace and to compile.
        two_stage(
            neck=None,
            anchors=ONE_LEVEL,
            heads=[head("KeypointHead", stage={"pool": 7, "width": 8, "depth": 1})],
        ),
        BOXES | {"masks", "keypoints", "keypoint_scores"},
        functools.partial(data.StickFigures, 2, CANVAS, seed=5),
        # A constant added to a heat map changes no softmax: but for rounding, this bias has no gradient.
        unmoved=("keypoint_head/deconvolution/bias",),
        quick="all",
    ),
    "panoptic": Task(
        two_stage(heads=[head("SemanticHead", num_classes=3, stage={"width": 16})]),
        BOXES | {"masks", "semantic"},
        functools.partial(data.Scenes, 2, CANVAS, seed=2, objects=(1, 2), object_size=(18, 30)),
    ),
    "yolact": Task(
        other(
            YOLACT,
            fpn_channels=16,
            anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))},
            stage={"width": 16},
            prototypes={"width": 16, "count": 8},
            matching={"negatives": 1000},  # all
            seed=7,
        ),
        {"boxes", "labels", "scores", "masks"},
        quick="all",
    ),
    "fcn": Task(
        other(FCN, stage={"width": 16, "dropout": 0}, auxiliary={"width": 8, "dropout": 0}),
        {"semantic"},
        lambda: data.SemanticMasks(SHAPES()),
        limits={},
        mask_size=None,
        quick="all",
    ),
}


def each_of(quick):
    """Decorator of a test with the parameter `name`; it is slow for models whose `quick` is not among these."""
    marks = {name: () if task.quick in quick else pytest.mark.slow for name, task in TASKS.items()}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=mark) for name, mark in marks.items()])


each, each_traced, each_slow = each_of(("all", "eager")), each_of(("all",)), each_of(())
# What is left of each field of the ground truth if an image has no object and no labelled pixel.
NOTHING = {"valid": np.zeros_like, "semantic": lambda values: np.full_like(values, 255)}


class Trained(typing.NamedTuple):
    """A model after a few steps, in eager mode, and what it gave. Tests leave its weights as they are.

    Attributes:
        model: the model.
        before: its trainable weights before the first step.
        batches: the data that it was trained on: one batch of two images.
        batch: the same as one dict of arrays.
        history: lists of the logs of each step by name.
        losses: those that `evaluate` gives after the training.
        images: two images, one of them not of the canvas's size.
        found: the `Detections` in them.
        folder: with `model.keras`, and the batch, images and limits for other processes.
    """

    model: keras.Model
    before: list
    batches: typing.Any
    batch: dict
    history: dict
    losses: dict
    images: list
    found: list
    folder: pathlib.Path


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """Function from a name to `Trained`; each model is trained once."""

    @functools.cache
    def get(name):
        task, folder = TASKS[name], tmp_path_factory.mktemp(name)
        dataset = task.dataset()
        batches = data.batches(dataset, CANVAS, 2, max_instances=6, mask_size=task.mask_size, shuffle=False)
        batch = {key: np.asarray(values) for part in next(iter(batches)) for key, values in part.items()}
        model = task.make(tiny)
        before = arrays(model.trainable_weights)
        model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
        history = model.fit(batches, epochs=STEPS, verbose=0).history
        losses = model.evaluate(batches, verbose=0, return_dict=True)
        images = [dataset[0]["image"], np.random.default_rng(0).integers(0, 255, (50, 90, 3)).astype("uint8")]
        found = model.detect(images, **task.limits)
        model.save(folder / "model.keras")
        np.savez(folder / "batch.npz", **batch)
        np.savez(folder / "images.npz", *images)
        (folder / "limits.json").write_text(json.dumps(task.limits))
        return Trained(model, before, batches, batch, history, losses, images, found, folder)

    return get


@pytest.fixture(scope="module")
def frozen(trained):
    """Function from a name to a configuration with a frozen backbone, and the model made of it after a way as JSON."""

    @functools.cache
    def get(name):
        model = trained(name).model
        config = {**model.get_config(), "frozen": ["backbone"]}
        return config, type(model).from_config(json.loads(json.dumps(config)))

    return get


def arrays(weights):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]


def loaded(run):
    """A copy of the trained model, which a test may change."""
    return keras.saving.load_model(run.folder / "model.keras")


def same(found, wanted, atol):
    """Asserts that lists of detections agree; a few pixels of maps and masks may differ, as rounding decides them."""
    for one, other in zip(found, wanted, strict=True):
        assert set(one) == set(other)
        for name, values in other.items():
            values = np.asarray(values)
            assert one[name].shape == values.shape, name
            if values.dtype in (np.bool_, np.uint8):
                assert np.sum(one[name] != values) <= 0.005 * values.size, name
            else:
                np.testing.assert_allclose(one[name], values, atol=atol, rtol=atol, err_msg=name)


# Training -------------------------------------------------------------------------------------------------------------


@each
def test_fit_reduces_the_loss_and_moves_every_weight(trained, name):
    run = trained(name)
    history, model = run.history, run.model
    assert {"loss", "gradient_norm", *model.loss_names, *model.health_names} <= set(history)
    assert all(np.isfinite(history[key]).all() for key in history) and history["skipped_steps"] == [0] * STEPS
    assert all(history[key][0] > 0 for key in model.loss_names)
    assert history["loss"][-1] < history["loss"][0]
    pairs = zip(model.trainable_weights, run.before, strict=True)
    still = {weight.path for weight, old in pairs if np.array_equal(keras.ops.convert_to_numpy(weight), old)}
    assert still <= set(TASKS[name].unmoved)


@each
def test_evaluate_gives_the_losses(trained, name):
    run = trained(name)
    assert {"loss", *run.model.loss_names} <= set(run.losses)
    assert run.losses["loss"] == pytest.approx(sum(run.losses[key] for key in run.model.loss_names), rel=1e-5)
    assert run.losses["loss"] < run.history["loss"][0]


@each
def test_images_without_ground_truth(trained, name):
    run = trained(name)
    model, weights = run.model, run.model.get_weights()
    nothing = {key: NOTHING.get(key, np.asarray)(values) for key, values in run.batch.items()}
    half = {key: np.concatenate([nothing[key][:1], values[1:]]) for key, values in run.batch.items()}
    for batch in (nothing, half):
        with tf.GradientTape() as tape:
            terms = model({key: tf.constant(values) for key, values in batch.items()}, training=True)
            loss = model.total_loss(terms)
        assert all(np.isfinite(float(term)) for term in terms.values())
        gradients = [g for g in tape.gradient(loss, model.trainable_weights) if g is not None]
        assert gradients and all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)
    model.set_weights(weights)  # batch statistics have moved


@each
def test_mixed_bfloat16_predicts_in_float32(trained, tiny, name):
    run, model = trained(name), TASKS[name].make(tiny, dtype="mixed_bfloat16")
    # Every part computes in it, and none loses the policy on its way.
    leaves = [layer for layer in flatten_layers(model) if layer.trainable_weights and flatten_layers(layer) == [layer]]
    assert {layer.compute_dtype for layer in leaves} == {"bfloat16"}
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    logs = model.train_on_batch(run.batch, return_dict=True)
    assert logs["loss"] == pytest.approx(run.history["loss"][0], rel=0.1)
    found = model.predict_on_batch({key: run.batch[key] for key in ("images", "sizes")})
    assert set(found) >= TASKS[name].returns and all(len(values) == 2 for values in found.values())
    assert {str(values.dtype) for values in found.values()} <= {"float32", "int32", "bool"}


@each
def test_a_frozen_backbone_does_not_move(trained, frozen, name):
    _, model = frozen(name)
    parts = model.backbone.weights, model.trainable_weights
    before = [arrays(weights) for weights in parts]
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    model.train_on_batch(trained(name).batch)
    kept, moved = (
        [np.array_equal(old, new) for old, new in zip(olds, arrays(weights), strict=True)]
        for olds, weights in zip(before, parts, strict=True)
    )
    assert not model.backbone.trainable_weights and all(kept) and not all(moved)


@each_traced
def test_a_step_under_xla_gives_the_losses_of_the_eager_one(trained, tiny, name):
    run, model = trained(name), TASKS[name].make(tiny)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    logs = model.train_on_batch(run.batch, return_dict=True)
    first = {key: values[0] for key, values in run.history.items()}
    assert model.jit_compile and logs == pytest.approx(first, rel=2e-3, abs=1e-5)


# Detection ------------------------------------------------------------------------------------------------------------


@each
def test_detect_returns_what_the_schema_says(trained, name):
    run = trained(name)
    schema = {output.name: output for output in run.model.schema}
    assert set(schema) == TASKS[name].returns
    for found, image in zip(run.found, run.images, strict=True):
        assert set(found) == set(schema)
        height, width = image.shape[:2]
        rows = {len(found[key]) for key, output in schema.items() if output.kind != "map"}
        assert rows in ({TASKS[name].limits.get("max_detections")}, set())
        for key, output in schema.items():
            values = found[key]
            if output.kind == "map":
                assert values.shape == (height, width) and values.dtype == np.uint8
            elif output.kind == "boxes":
                assert (values >= 0).all() and (values <= np.float32([width, height] * 2) + 1e-3).all()
            elif values.dtype == bool:
                assert values.shape[1:] == (height, width)
            else:
                assert np.isfinite(values).all()


@each_slow  # `inference/test_threads` has the threads of one model
def test_threads_find_what_one_thread_finds(trained, name):
    """Four threads on a model that is not traced yet, with thresholds of their own."""
    run = trained(name)
    model = loaded(run)
    model.compile("sgd")
    calls = 2 * [(image, limits) for image in run.images for limits in (TASKS[name].limits, {})]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda call: model.detect(call[0], **call[1]), calls))
    alone = [model.detect(image, **limits) for image, limits in calls]
    same(together, alone, atol=0)
    same([together[0], together[2]], run.found, atol=1e-3)


# Files ----------------------------------------------------------------------------------------------------------------


@each
def test_configuration_survives_json(frozen, name):
    config, model = frozen(name)
    assert json.dumps(model.get_config()) == json.dumps(config)


@each
def test_a_saved_model_is_the_same_model(trained, name):
    run = trained(name)
    again = loaded(run)
    assert type(again) is type(run.model) and again.get_config() == run.model.get_config()
    assert int(again.optimizer.iterations) == STEPS
    same(again.detect(run.images, **TASKS[name].limits), run.found, atol=0)
    assert again.evaluate(run.batches, verbose=0, return_dict=True) == pytest.approx(run.losses, rel=1e-5)


@each
def test_a_preset_is_the_same_model(trained, name, tmp_path):
    run = trained(name)
    run.model.save_preset(tmp_path / "preset")
    again = ImageModel.from_preset(tmp_path / "preset")
    assert type(again) is type(run.model) and again.get_config() == run.model.get_config()
    again.compile("sgd", run_eagerly=True)
    same(again.detect(run.images, **TASKS[name].limits), run.found, atol=0)


@each_traced
def test_an_exported_model_finds_the_same(trained, name, tmp_path):
    run = trained(name)
    run.model.export(tmp_path / "saved")
    served = SavedModel(tmp_path / "saved")
    same(served.detect(run.images, **TASKS[name].limits), run.found, atol=1e-3)
    signature = served.predictor.network.loaded.signatures["serving_default"]
    exported = {output.exported for output in run.model.schema if output.exported}
    assert exported and exported <= set(signature.structured_outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("suffix", [".xml", ".onnx", ".tflite"])
def test_the_file_of_an_engine_finds_the_same(trained, name, suffix, tmp_path):
    packages = {".xml": ["openvino"], ".onnx": ["onnx", "onnxruntime", "tf2onnx"], ".tflite": ["ai_edge_litert"]}
    for package in packages[suffix]:
        pytest.importorskip(package, reason=f"the extra of {suffix} is not installed")
    run, path = trained(name), tmp_path / f"model{suffix}"
    run.model.export(path, image_size=CANVAS if suffix == ".tflite" else None)
    exported = {output.name for output in run.model.schema if output.exported}
    wanted = [{key: values for key, values in found.items() if key in exported} for found in run.found]
    same(opened(path).detect(run.images, **TASKS[name].limits), wanted, atol=1e-3)


# Run in a new process: it loads each model, in each of the folders, and stores losses and detections; and trains it.
PROGRAM = """
import json, pathlib, sys
import keras
import keras_maskrcnn
import numpy as np
backend = keras.backend.backend()
train, *folders = sys.argv[1:]
for folder in map(pathlib.Path, folders):
    model = keras.saving.load_model(folder / "model.keras")
    if backend == "jax":
        model.compile("sgd")  # not in eager mode, in which JAX compiles every operation
    batch = dict(np.load(folder / "batch.npz"))
    losses = model.test_on_batch(batch, return_dict=True)
    limits = json.loads((folder / "limits.json").read_text())
    found = model.detect(list(np.load(folder / "images.npz").values()), **limits)
    found = {f"{i}/{name}": np.asarray(values) for i, one in enumerate(found) for name, values in one.items()}
    np.savez(folder / backend, **{f"losses/{name}": value for name, value in losses.items()}, **found)
    if train == "True":
        assert np.isfinite(list(model.train_on_batch(batch, return_dict=True).values())).all(), folder.name
assert backend == "tensorflow" or "tensorflow" not in sys.modules
"""


def new_process(runs, backend, train):
    """Losses and lists of detections of the saved models, as a process with another backend gives them."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(train), *(str(run.folder) for run in runs)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr[-2000:]
    for run in runs:
        stored = np.load(run.folder / f"{backend}.npz")
        groups = [
            {name.split("/")[1]: stored[name] for name in stored if name.startswith(f"{group}/")}
            for group in ("losses", *range(len(run.images)))
        ]
        yield {name: float(value) for name, value in groups[0].items()}, groups[1:]


QUICK = [name for name, task in TASKS.items() if task.quick == "all"]
ON_JAX = ["yolact", "fcn"]  # `test_training` has the two-stage model on JAX, `ops/test_keypoints` the keypoints


@pytest.mark.parametrize(
    ("backend", "names", "train", "atol"),
    [
        pytest.param("tensorflow", QUICK, False, 1e-4, id="tensorflow"),
        pytest.param("tensorflow", list(TASKS), True, 1e-4, id="tensorflow-train", marks=pytest.mark.slow),
        pytest.param("jax", ON_JAX, False, 0.05, id="jax"),
        pytest.param("jax", list(TASKS), True, 0.05, id="jax-train", marks=pytest.mark.slow),
    ],
)
def test_a_new_process_gives_the_same(trained, backend, names, train, atol):
    """Another order of imports than here, no class imported by name, and one process for all models."""
    runs = [trained(name) for name in names]
    for name, run, (losses, found) in zip(names, runs, new_process(runs, backend, train), strict=True):
        wanted = {key: run.losses[key] for key in run.model.loss_names}
        assert {key: losses[key] for key in wanted} == pytest.approx(wanted, rel=2e-3, abs=1e-4), name
        same(found, run.found, atol=atol)
