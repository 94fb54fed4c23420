"""Learning-rate schedules: hand-computed values, configs, compilation."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn.training import (
    Cosine,
    OneCycle,
    StepLR,
    Steps,
    WarmUp,
    paper_schedule,
    warmup_cosine,
    warmup_steps,
)


def rates(schedule, steps):
    return [float(ops.convert_to_numpy(schedule(step))) for step in steps]


def test_warm_up_is_linear_and_then_constant():
    schedule = WarmUp(0.4, warmup_steps=4, start_factor=0.5)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2, 4, 100]), [0.2, 0.25, 0.3, 0.4, 0.4], rtol=1e-6)


def test_warm_up_of_zero_steps_is_the_inner_rate():
    np.testing.assert_allclose(rates(WarmUp(0.4, 0), [0, 1]), [0.4, 0.4], rtol=1e-6)


def test_steps_fall_at_their_boundaries():
    schedule = Steps(1.0, [10, 20], factor=0.1)
    np.testing.assert_allclose(rates(schedule, [0, 9, 10, 19, 20, 99]), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_cosine_is_constant_then_decays():
    schedule = Cosine(2.0, total_steps=12, hold_steps=4, final_factor=0.1)
    # At step 8 half of the decay is done: 2 * (0.1 + 0.9 / 2); at 6 a quarter: cos(pi / 4) = 0.7071.
    expected = [2.0, 2.0, 2 * (0.1 + 0.9 * (1 + 0.5**0.5) / 2), 1.1, 0.2, 0.2]
    np.testing.assert_allclose(rates(schedule, [0, 4, 6, 8, 12, 50]), expected, rtol=1e-6)


def test_step_lr_falls_at_equal_distances():
    expected = [0.8, 0.8, 0.4, 0.4, 0.2, 0.1]
    np.testing.assert_allclose(rates(StepLR(0.8, 10, 0.5), [0, 9, 10, 19, 20, 35]), expected, rtol=1e-6)
    # Of a share of the time, as with `--minutes`.
    np.testing.assert_allclose(
        rates(StepLR(1.0, 1 / 3), [0, 0.33, 0.34, 0.67, 0.99]), [1, 1, 0.1, 0.01, 0.01], rtol=1e-6
    )


def test_one_cycle_rises_and_falls_along_cosines():
    schedule = OneCycle(2.0, total_steps=10, rise_steps=4, start_factor=0.1, final_factor=0.01)
    # At steps 2 and 7 half of the way: the mean of both ends. At 5.5 a quarter: (1 + cos(pi / 4)) / 2 of the way back.
    quarter = 2 * (0.01 + 0.99 * (1 + 0.5**0.5) / 2)
    expected = [0.2, 1.1, 2.0, quarter, 1.01, 0.02, 0.02]
    np.testing.assert_allclose(rates(schedule, [0, 2, 4, 5.5, 7, 10, 50]), expected, rtol=1e-5)


def test_one_cycle_has_the_defaults_of_torch():
    # torch.optim.lr_scheduler.OneCycleLR: peak after 30 %, max_lr / 25 at first, 1e-4 of that at the end.
    schedule = OneCycle(1.0, 100)
    np.testing.assert_allclose(rates(schedule, [0, 30, 100]), [0.04, 1.0, 4e-6], rtol=1e-4)


def test_one_cycle_without_a_rise_starts_at_its_peak():
    np.testing.assert_allclose(rates(OneCycle(1.0, 10, 0, 0.5, 0.0), [0, 5, 10]), [1, 0.5, 0], atol=1e-6)


def test_warmup_steps_combines_both():
    schedule = warmup_steps(1.0, [10], factor=0.1, warmup=4, start_factor=0.0)
    np.testing.assert_allclose(rates(schedule, [0, 1, 4, 9, 10]), [0, 0.25, 1, 1, 0.1], rtol=1e-6)


def test_warmup_cosine_combines_both():
    schedule = warmup_cosine(1.0, total_steps=20, warmup=5, hold_steps=10, start_factor=0.2)
    np.testing.assert_allclose(rates(schedule, [0, 5, 10, 15, 20]), [0.2, 1, 1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("batch_size", "length", "steps", "at"),
    [
        # Mask R-CNN, section 3.1: 0.02 for 16 images, a tenth at 120k of 160k.
        (16, "paper", 160_000, {0: 2e-5, 500: 0.01001, 1000: 0.02, 119_999: 0.02, 120_000: 0.002, 159_999: 0.002}),
        # 8 images: half the rate (the paper has 0.01 for its ResNeXts), twice the steps.
        (8, "paper", 320_000, {0: 1e-5, 2000: 0.01, 239_999: 0.01, 240_000: 0.001}),
        # 4 images are a quarter of 16: 0.005, 4 * 90,000 steps, drops at 240,000 and 320,000, 4000 steps of warm-up.
        (4, "1x", 360_000, {2000: 0.0025025, 4000: 0.005, 240_000: 5e-4, 319_999: 5e-4, 320_000: 5e-5}),
        (16, "2x", 180_000, {119_999: 0.02, 120_000: 0.002, 160_000: 2e-4}),
        (64, "3x", 67_500, {125: 0.04004, 250: 0.08, 52_499: 0.08, 52_500: 0.008, 62_500: 8e-4}),
        # 80,000 * 16 / 12 = 106,666.67
        (12, "1x", 120_000, {79_999: 0.015, 80_000: 0.0015, 106_666: 0.0015, 106_667: 1.5e-4}),
    ],
)
def test_published_schedules_by_hand(batch_size, length, steps, at):
    schedule, count = paper_schedule(batch_size, length)
    assert count == steps
    np.testing.assert_allclose(rates(schedule, at), list(at.values()), rtol=1e-5)


def test_published_schedules_take_another_rate_and_warm_up():
    schedule, steps = paper_schedule(8, "1x", warmup=500, learning_rate=0.004)
    assert steps == 180_000
    np.testing.assert_allclose(rates(schedule, [500, 1000, 120_000]), [0.004 * 0.5005, 0.004, 4e-4], rtol=1e-5)


@pytest.mark.parametrize(
    "schedule",
    [
        WarmUp(0.3, 7, 0.25),
        Steps(0.3, [5, 9], 0.5),
        Cosine(0.3, 30, 6, 0.2),
        StepLR(0.3, 7, 0.5),
        OneCycle(0.3, 30, 6, 0.1, 0.02),
        WarmUp(Cosine(0.3, 30, 6, 0.2), 7, 0.25),
        paper_schedule(2**16, "1x")[0],
        WarmUp(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.9), 4),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_config_round_trip(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(copy) is type(schedule)
    np.testing.assert_allclose(rates(copy, range(0, 40, 3)), rates(schedule, range(0, 40, 3)), rtol=1e-6)
    assert copy.get_config() == schedule.get_config()


def test_a_saved_model_keeps_its_schedule(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(warmup_steps(0.1, [50], warmup=10)), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 3
    assert float(again.optimizer.learning_rate) == pytest.approx(float(model.optimizer.learning_rate))
    assert float(again.optimizer.learning_rate) == pytest.approx(0.1 * (0.001 + 0.999 * 0.3))


def test_a_compiled_step_uses_the_scheduled_rate():
    # The gradient of mean(w * 1) is 1, so each step of plain SGD changes w by the rate.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    schedule = WarmUp(Cosine(0.5, 8, 2), 4, 0.0)
    model.compile(keras.optimizers.SGD(schedule), loss=lambda y, p: ops.mean(p, axis=-1), jit_compile=True)
    moved = []
    for _ in range(8):
        model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
        moved.append(-float(model.get_weights()[0][0, 0]))
    np.testing.assert_allclose(np.diff([0, *moved]), rates(schedule, range(8)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmUp(0.1, -1), "warmup_steps"),
        (lambda: Steps(0.1, [9, 5]), "ascend"),
        (lambda: Cosine(0.1, 10, 10), "hold_steps"),
        (lambda: StepLR(0.1, 0), "every must be positive, got 0"),
        (lambda: OneCycle(0.1, 10, 10), "rise_steps"),
        (lambda: paper_schedule(16, "4x"), "length='4x' is not one of 'paper', '1x', '2x', '3x'"),
        (lambda: paper_schedule(0), "batch_size=0 must be at least 1"),
    ],
)
def test_invalid_arguments_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
