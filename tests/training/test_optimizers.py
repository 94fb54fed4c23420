"""The optimizer and the schedule that the arguments of a recipe choose."""

import argparse

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, training
from keras_maskrcnn.training import arguments, optimizers, recipe


def parsed(*words, **defaults):
    options = {"steps": 900, "batch_size": 8, "learning_rate": 1.0, "output": "run", "image_size": 64, **defaults}
    parser = recipe.parser("", **options)
    recipe.add_backbone_rate(parser)
    return parser.parse_args([str(word) for word in words])


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize("rate", ["0", "-0.1", "nan", "inf"])
def test_a_learning_rate_that_is_not_above_zero_is_refused(rate, capsys):
    with pytest.raises(SystemExit):
        parsed("--learning-rate", rate)
    assert f"--learning-rate: {rate} must be a positive number" in capsys.readouterr().err


# The warm-up takes 90 of 900 steps.
@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("hold_cosine", {45: 0.5005, 90: 1, 270: 1, 585: 0.505, 900: 0.01}),
        ("constant", {45: 0.5005, 90: 1, 899: 1}),
        ("step", {45: 0.5005, 299: 1, 300: 0.1, 599: 0.1, 600: 0.01, 899: 0.01}),
        ("multi_step", {45: 0.5005, 599: 1, 600: 0.1, 799: 0.1, 800: 0.01}),
        ("one_cycle", {0: 0.04, 135: 0.52, 270: 1, 585: 0.500002, 900: 4e-6}),
    ],
)
def test_schedules_of_steps_and_of_the_time(name, at):
    by_steps = optimizers.schedule(parsed("--lr-schedule", name))
    np.testing.assert_allclose(rates(by_steps, at), list(at.values()), rtol=1e-4)
    by_time = optimizers.schedule(parsed("--lr-schedule", name, "--minutes", 3))
    later = {step: rate for step, rate in at.items() if step >= 90}  # the warm-up takes 5 % of the time
    np.testing.assert_allclose(rates(by_time, [(step + 0.5) / 900 for step in later]), list(later.values()), rtol=0.01)


def test_all_schedules_and_optimizers_of_the_parser_exist():
    for name in arguments.SCHEDULES:
        optimizers.schedule(parsed("--lr-schedule", name))
    for name in arguments.OPTIMIZERS:
        optimizers.optimizer(parsed("--optimizer", name))
    for change in ({"lr_schedule": "linear"}, {"optimizer": "lion"}):
        with pytest.raises(ValueError, match=f"{next(iter(change.values()))} does not exist"):
            optimizers.optimizer(argparse.Namespace(**{**vars(parsed()), **change}))


def test_optimizers_and_their_decay():
    adamw, adam, sgd = (optimizers.optimizer(parsed("--optimizer", name)) for name in ("adamw", "adam", "sgd"))
    assert type(adamw) is type(adam) is training.AdamW and type(sgd) is training.SGD
    assert (adamw.weight_decay, adam.weight_decay, sgd.weight_decay, sgd.momentum) == (0.05, 0, 1e-4, 0.9)
    kernel, bias = (keras.Variable(np.ones((2, 2), "float32"), name=name) for name in ("kernel", "bias"))
    adamw.build([kernel, bias])
    adamw.apply([np.zeros((2, 2), "float32")] * 2)
    assert float(kernel[0, 0]) < 1 and float(bias[0, 0]) == 1


def test_with_minutes_and_for_a_sweep_the_rate_is_a_number():
    for words in (["--minutes", 3], ["--find-lr"]):
        assert optimizers.learning_rate(parsed(*words)) == pytest.approx(0.001)
    assert callable(optimizers.learning_rate(parsed()))


def test_a_program_with_a_parser_of_its_own_has_the_defaults():
    plain = argparse.Namespace(learning_rate=1.0, steps=900, minutes=None, hold=0.3)
    assert rates(optimizers.schedule(plain), [585]) == pytest.approx([0.505], rel=1e-4)
    assert optimizers.optimizer(plain).weight_decay == 0.05


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_the_backbone_may_have_a_rate_of_its_own(name):
    small = {"backbone": {"name": "resnet10", "norm": "group", "width": 8}, "fpn_channels": 16}
    model = MaskRCNN(1, image_size=(64, 64), box_stage={"width": 16}, mask_stage={"width": 8, "depth": 1}, **small)
    given = optimizers.optimizer(parsed("--optimizer", name, "--backbone-rate", 0.1), model)
    backbone = {variable.path for variable in model.backbone.trainable_variables}
    assert given.layer_rates == dict.fromkeys(backbone, 0.1)
    assert not optimizers.optimizer(parsed("--optimizer", name), model).layer_rates


def test_overfit_has_its_own_length_and_no_more_images_per_step():
    plain, own, steps, minutes = (
        parsed(*words)
        for words in ([], ["--overfit", 4], ["--overfit", 4, "--steps", 900], ["--overfit", 20, "--minutes", 7])
    )
    assert (plain.minutes, plain.batch_size, plain.overfit, plain.find_lr) == (None, 8, None, None)
    assert (own.minutes, own.batch_size) == (arguments.OVERFIT_MINUTES, 4)
    assert (steps.minutes, steps.steps) == (None, 900) and (minutes.minutes, minutes.batch_size) == (7, 8)
    assert parsed("--find-lr").find_lr == 100 and parsed("--find-lr", 30).find_lr == 30
    for words in (["--overfit", 4, "--find-lr"], ["--backbone-rate", "-1"], ["--overfit", 0]):
        with pytest.raises(SystemExit):
            parsed(*words)
