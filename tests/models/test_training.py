"""The train step: compilation, TensorFlow and JAX, steps that are not finite, resuming after a kill."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, training

ROOT = pathlib.Path(__file__).parents[2]
# keras.random draws other numbers under XLA and JAX; samplers that take every candidate are deterministic.
EVERYTHING = {"size": 5000, "positive_fraction": 1.0}


def loss_of(model, batch):
    """The loss of one training step."""
    model.reset_metrics()
    return float(model.train_on_batch(*batch, return_dict=True)["loss"])


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(1e-2, momentum=0.9), **kwargs)
    return model


@pytest.fixture(scope="module")
def trained(tiny, batch):
    """By norm: a model after three compiled steps, and the logs of each. Tests may train it further.

    The images are float32, so that a batch with NaN does not need another trace.
    """
    made = {}
    x, y = {**batch[0], "images": batch[0]["images"].astype("float32")}, batch[1]

    def get(norm):
        if norm not in made:
            model = compiled(tiny(backbone={"name": "resnet10", "width": 8, "norm": norm}))
            logs = []
            for _ in range(3):
                model.reset_metrics()
                logs.append(model.train_on_batch(x, y, return_dict=True))
            made[norm] = model, logs, (x, y)
        return made[norm]

    return get


@pytest.fixture(scope="module")
def deterministic(tiny, one_level, shapes, tmp_path_factory):
    """Folder of a saved model without random sampling, a batch, and the losses of two eager steps."""
    folder = tmp_path_factory.mktemp("deterministic")
    model = tiny(**one_level, rpn_sampling=EVERYTHING, box_sampling=EVERYTHING)
    model.save(folder / "m.keras")
    compiled(model, run_eagerly=True)
    two = data.Subset(shapes, [0, 1])
    batch = next(iter(data.batches(two, (64, 64), 2, max_instances=6, mask_size=28, shuffle=False, backend="numpy")))
    logs = []
    for _ in range(2):
        model.reset_metrics()
        logs.append(model.train_on_batch(*batch, return_dict=True))
    return folder, batch, logs


def test_logs_hold_all_losses_and_health_figures(trained):
    model, (logs, *_), _ = trained("group")
    assert set(logs) == {"loss", *model.loss_names, *model.health_names, "gradient_norm", "skipped_steps"}
    assert logs["loss"] == pytest.approx(sum(logs[name] for name in model.loss_names), rel=1e-5)
    assert logs["gradient_norm"] > 0
    assert logs["skipped_steps"] == 0


@pytest.mark.slow
def test_evaluation_and_prediction_compile_under_xla(tiny, batch):
    plain, fast = compiled(tiny(), run_eagerly=True), compiled(tiny(), jit_compile=True)
    assert np.isfinite(fast.test_on_batch(*batch, return_dict=True)["loss"])
    a, b = plain.predict_on_batch(batch[0]), fast.predict_on_batch(batch[0])
    np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-4)


def test_loss_weights_scale_their_terms(tiny, batch):
    model = compiled(tiny(), loss_weights={"box_loss": 5, "mask_loss": 2}, run_eagerly=True)
    logs = model.test_on_batch(*batch, return_dict=True)
    plain = sum(logs[name] for name in model.loss_names)
    assert logs["loss"] == pytest.approx(plain + 4 * logs["box_loss"] + logs["mask_loss"], rel=1e-5)


def test_unknown_loss_weight_and_foreign_loss_are_rejected(tiny):
    with pytest.raises(ValueError, match="maks_loss"):
        tiny().compile("sgd", loss_weights={"maks_loss": 1})
    with pytest.raises(ValueError, match="computes its own losses"):
        tiny().compile("sgd", loss="mse")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss_weights": [1, 1]}, r"loss_weights=\[1, 1\] must be a dict from names of losses: rpn_class_loss"),
        ({"loss_weights": {"mask_loss": -1}}, "the loss weight of mask_loss=-1 must be a number of at least 0"),
        ({"loss_weights": {"mask_loss": float("nan")}}, "the loss weight of mask_loss=nan must be a number"),
        ({"weighted_metrics": ["accuracy"]}, "computes its own losses and metrics"),
    ],
)
def test_options_of_compile_that_would_have_no_or_a_wrong_effect_are_refused(tiny, options, reason):
    with pytest.raises(ValueError, match=reason):
        tiny().compile("sgd", **options)


def test_weights_of_samples_are_refused(tiny, batch):
    model, (x, y) = compiled(tiny(), run_eagerly=True), batch
    for weights in ({"sample_weight": np.ones(2)}, {"class_weight": {0: 1.0}}):
        with pytest.raises(ValueError, match=next(iter(weights))):
            model.fit(x, y, batch_size=2, verbose=0, **weights)


@pytest.mark.parametrize("step", ["test", "train"])
def test_the_total_is_the_sum_of_the_terms_where_the_last_batch_is_smaller(tiny, shapes, step):
    model = compiled(tiny(), run_eagerly=True)
    batches = data.batches(shapes, (64, 64), 4, max_instances=6, mask_size=28, shuffle=False)
    if step == "test":
        found = model.evaluate(batches, verbose=0, return_dict=True)
    else:
        found = {name: values[0] for name, values in model.fit(batches, verbose=0).history.items()}
    assert found["loss"] == pytest.approx(sum(found[name] for name in model.loss_names), rel=1e-5)


def test_classes_in_another_order_are_refused_in_validation_too(tiny, shapes):
    options = {"batch_size": 2, "max_instances": 6, "mask_size": 28}
    model, other = compiled(tiny(class_names=list(shapes.class_names))), data.batches(shapes, (64, 64), **options)
    other.class_names = shapes.class_names[::-1]
    with pytest.raises(ValueError, match=r"the data's classes are .* they must agree"):
        model.evaluate(other, verbose=0)
    with pytest.raises(ValueError, match=r"the data's classes are .* they must agree"):
        model.fit(data.batches(shapes, (64, 64), **options), validation_data=other, verbose=0)


def test_masks_of_another_form_than_the_targets_are_refused(tiny, shapes):
    """On a square canvas the shapes do not tell them apart: the mask head would learn from wrong masks."""
    whole = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size="canvas")
    for run in (compiled(tiny()).fit, compiled(tiny()).evaluate):
        with pytest.raises(ValueError, match=r'mask_size="canvas"\) is for mask_stage targets="roi_align"'):
            run(whole, verbose=0)


def test_inputs_that_are_no_dict_of_images_and_sizes_are_refused(tiny, batch):
    model, (x, y) = tiny(), batch
    for inputs in (x["images"], {"images": x["images"]}):
        with pytest.raises(ValueError, match=r"^mask_rcnn takes a dict of images .* and sizes \[B, 2\]"):
            model(inputs)
    with pytest.raises(ValueError, match="the same N of at least 1 in all batches"):
        model({**x, **{name: values[:, :0] for name, values in y.items()}})


def test_proposals_of_whole_numbers_are_taken_and_need_valid(tiny, batch):
    model, x = tiny(), batch[0]
    proposals = {"proposals": np.tile(np.int64([[[4, 4, 30, 30], [10, 20, 60, 60]]]), (2, 1, 1))}
    with pytest.raises(ValueError, match="no proposal_valid"):
        model({**x, **proposals})
    found = model({**x, **proposals, "proposal_valid": np.ones((2, 2), bool)})
    assert found["boxes"].dtype == "float32"


def test_fit_before_compile_raises(tiny, shapes):
    with pytest.raises(ValueError, match="compile"):
        tiny().fit(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28))


def test_data_with_more_classes_than_the_model_is_rejected(shapes):
    model = MaskRCNN(2, {"name": "resnet10", "width": 8})
    with pytest.raises(ValueError, match="the data has 3 classes, the model num_classes=2"):
        model.fit(data.batches(shapes, (64, 64), 2))


def test_batches_without_ground_truth_are_rejected(tiny, batch):
    with pytest.raises(ValueError, match="no ground truth"):
        compiled(tiny(), run_eagerly=True).train_on_batch(batch[0])


def test_fit_learns_names_and_canvas_from_the_data(tiny, shapes):
    model = compiled(tiny(image_size=None), run_eagerly=True)
    history = model.fit(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert model.image_size == (64, 64)
    assert model.class_names == ["circle", "square", "triangle"]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_step_that_is_not_finite_changes_nothing_and_is_logged(trained, norm, capsys, shapes):
    model, _, batch = trained(norm)
    before = [np.array(w) for w in model.get_weights()]
    iterations = int(model.optimizer.iterations)
    bad = {**batch[0], "images": batch[0]["images"] * np.float32(np.nan)}
    bad["image_index"] = np.int32([4, 2])
    names = training.SkippedSteps(shapes)
    names.set_model(model)
    names.on_epoch_begin(0)
    model.reset_metrics()
    logs = model.train_on_batch(bad, batch[1], return_dict=True)
    names.on_train_batch_end(0, logs)
    assert logs["skipped_steps"] == 1
    assert np.isfinite(logs["loss"])
    assert int(model.optimizer.iterations) == iterations
    remembered = np.array(model.skipped_images)
    assert remembered[:3].tolist() == [4, 2, -1]
    for variable, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        if variable.name not in ("skipped_images", "seed_generator_state"):
            np.testing.assert_array_equal(old, new, err_msg=variable.path)
    assert "images: 4, 2" in capsys.readouterr().out
    assert np.isfinite(loss_of(model, batch))


def test_validation_losses_do_not_touch_weights_or_statistics(tiny, batch):
    model = compiled(tiny(backbone={"name": "resnet10", "width": 8, "norm": "batch"}), run_eagerly=True)
    before = model.get_weights()
    model.test_on_batch(*batch)
    changed = [v.path for v, a, b in zip(model.weights, before, model.get_weights(), strict=True) if (a != b).any()]
    assert all("seed_generator" in path for path in changed)


def test_same_seed_gives_the_same_training(tiny, trained):
    _, logs, batch = trained("group")  # seed 7
    runs = [[step["loss"] for step in logs]]
    for seed in (7, 8):  # the initial weights are equal in all runs; `seed` affects only the samplers
        model = compiled(tiny(seed=seed), run_eagerly=True)
        runs.append([loss_of(model, batch) for _ in range(3)])
    # The first model's steps were compiled and threads add in varying order: results are equal to float32's
    # precision.
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert runs[0] != pytest.approx(runs[2], rel=1e-3)


def test_fit_on_jax_reaches_the_losses_of_tensorflow(deterministic):
    folder, _, logs = deterministic
    expected = [step["loss"] for step in logs]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", JAX_PROGRAM, str(folder)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr[-2000:]
    losses, found = process.stdout.strip().splitlines()[-2:]
    assert [float(v) for v in losses.split()] == pytest.approx(expected, rel=2e-3)
    assert found == "['boxes', 'labels', 'masks', 'proposals', 'scores']"


JAX_PROGRAM = """
import sys
import keras
from keras_maskrcnn import data
assert keras.backend.backend() == "jax"
model = keras.saving.load_model(sys.argv[1] + "/m.keras")
model.compile(keras.optimizers.SGD(1e-2, momentum=0.9))
shapes = data.Subset(data.Shapes(6, image_size=(64, 64), seed=5, object_size=(12, 30)), [0, 1])
batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, shuffle=False)
history = model.fit(batches, epochs=2, verbose=0)
found = model.detect(shapes[0]["image"], score_threshold=0.1)
print(*history.history["loss"])
print(sorted(found))
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
def test_killed_run_resumes_after_its_last_epoch(tmp_path):
    """The process is killed with SIGKILL after an epoch; the second run starts at the next one."""
    command = [sys.executable, "-c", RESUME_PROGRAM, str(tmp_path / "backup")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if line.startswith("epoch 1 ended"):
            break
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    time.sleep(0.1)
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert second.returncode == 0, second.stderr[-2000:]
    lines = second.stdout.splitlines()
    assert lines[0].startswith("epoch 2 began")
    assert int(lines[0].split()[-1]) == 2, "the optimizer's step count is restored"
    assert lines[-1].startswith("epoch 3 ended")


RESUME_PROGRAM = """
import sys, keras
from keras_maskrcnn import MaskRCNN, data
keras.utils.set_random_seed(0)
shapes = data.Shapes(4, image_size=(64, 64), seed=5, object_size=(12, 30))
batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, repeat=True)
model = MaskRCNN(3, {"name": "resnet10", "width": 8, "norm": "group"}, fpn_channels=16, box_stage={"width": 16},
                 mask_stage={"width": 8, "depth": 1}, proposals={"pre_nms": 50, "post_nms": 20}, seed=1)
model.compile(keras.optimizers.AdamW(1e-3), run_eagerly=True)
report = keras.callbacks.LambdaCallback(
    on_epoch_begin=lambda e, logs: print("epoch", e, "began at step", int(model.optimizer.iterations), flush=True),
    on_epoch_end=lambda e, logs: print("epoch", e, "ended", flush=True))
# The backup comes first, so that an epoch is on disk when its end is printed.
backup = keras.callbacks.BackupAndRestore(sys.argv[1])
model.fit(batches, epochs=4, steps_per_epoch=1, verbose=0, callbacks=[backup, report])
"""


def test_a_model_with_a_scale_takes_no_canvas_from_its_data(tiny, shapes):
    model = compiled(tiny(image_size=None, resize={"scale": 2.0}), run_eagerly=True)
    model.fit(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28), steps_per_epoch=1, verbose=0)
    assert model.image_size is None and model.placement.place((40, 50)) == ((96, 128), (80, 100))
    with pytest.raises(ValueError, match=r"image_size=\(72, 72\) must be multiples of 32"):
        model.fit(data.batches(shapes, (72, 72), 2, max_instances=6, mask_size=28), verbose=0)


def test_an_invalid_canvas_is_rejected_and_not_kept(tiny, shapes):
    model = compiled(tiny(image_size=None))
    odd = data.batches(shapes, (72, 72), 2, max_instances=6, mask_size=28)
    with pytest.raises(ValueError, match=r"image_size=\(72, 72\) must be multiples of 32"):
        model.fit(odd, verbose=0)
    assert model.image_size is None and model.class_names is None


def test_data_follow_the_antialiasing_of_the_model(tiny, shapes):
    model = tiny(resize={"antialias": False})
    model.compile("sgd", run_eagerly=True)
    options = {"image_size": (64, 64), "batch_size": 2, "mask_size": 14}
    train, val = data.batches(shapes[:2], **options, augment="flip"), data.batches(shapes[:2], **options)
    assert train.rows.prepare.antialias and val.rows.prepare.antialias
    model.fit(train, validation_data=val, epochs=1, verbose=0)
    for batches in (train, val):
        assert not batches.rows.prepare.antialias
    assert not train.rows.prepare.augment.antialias
    with pytest.raises(ValueError, match="the data has antialias=True, the model's resize rule False"):
        model.evaluate(data.batches(shapes[:2], **options, antialias=True), verbose=0)


def test_skipped_images_are_no_parameter_and_not_saved(tiny, tmp_path):
    model = tiny()
    assert all(variable is not model.skipped_images for variable in model.variables)
    assert model.count_params() == sum(layer.count_params() for layer in model.parts().values())
    model.skipped_images.assign(np.arange(64))
    model.save_weights(tmp_path / "model.weights.h5")
    other = tiny()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.skipped_images, np.full(64, -1))
