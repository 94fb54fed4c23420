"""Training that must work, and memory that must not grow: minutes each, `make test-slow`."""

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, evaluation
from keras_maskrcnn.backend.precision import fastest_policy
from keras_maskrcnn.training import recipe

SMALL = {
    "backbone": {"name": "resnet18", "norm": "batch", "width": 32},
    "fpn_channels": 64,
    **recipe.SMALL,
    "mask_stage": {"width": 64, "depth": 2},
    "seed": 0,
}


@pytest.mark.slow
def test_ten_real_images_are_learnt_by_heart(kmr_data):
    ten = data.Subset(data.PennFudan(kmr_data / "PennFudanPed", "train"), range(10))
    model = MaskRCNN(
        1,
        anchors={"sizes": ((16,), (32,), (64,), (96,), (128,)), "ratios": (1.0, 2.0, 3.0)},
        image_size=(192, 256),
        dtype=fastest_policy(),
        **SMALL,
    )
    batches = data.batches(ten, (192, 256), 5, max_instances=16, mask_size=56, augment="flip", repeat=True, cache=True)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 500)
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=5.0))
    model.fit(batches, epochs=1, steps_per_epoch=500, verbose=2)
    scores = evaluation.coco_scores(model, ten)
    print(evaluation.format_scores(scores))
    assert scores["segm_AP50"] >= 0.95


@pytest.mark.slow
def test_resident_memory_stays_where_it_was_after_100_steps():
    shapes = data.Shapes(100000, seed=3)
    model = MaskRCNN(3, anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))}, **SMALL)
    batches = data.batches(shapes, (128, 128), 8, max_instances=8, mask_size=56, repeat=True)
    model.compile(keras.optimizers.AdamW(1e-3))
    resident = {}

    def note(step, logs):
        if step + 1 in (100, 300):
            resident[step + 1] = _resident_mebibytes()

    model.fit(
        batches, steps_per_epoch=300, verbose=2, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)]
    )
    growth = resident[300] / resident[100] - 1
    print(f"resident memory {resident[100]:.0f} MiB after 100 steps, {resident[300]:.0f} after 300: {growth:+.2%}")
    assert growth < 0.03


def _resident_mebibytes():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(fastest_policy() == "float32", reason="without bfloat16 units this takes an hour")
def test_mixed_bfloat16_learns_as_well_as_float32():
    scores = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        model = MaskRCNN(
            3, anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))}, image_size=(128, 128), dtype=policy, **SMALL
        )
        batches = data.batches(data.Shapes(4000, seed=3), (128, 128), 8, max_instances=8, mask_size=56)
        model.compile(keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-3, 500), global_clipnorm=5.0))
        model.fit(batches, verbose=2)
        scores.append(evaluation.coco_scores(model, data.Shapes(100, seed=4), kinds=("segm",))["segm_AP"])
    print("segm AP float32, bfloat16:", np.round(scores, 3))
    assert scores[1] > scores[0] - 0.05
