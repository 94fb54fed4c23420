"""Alternating training: the parts that train in each phase, and the state afterwards."""

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, training
from keras_maskrcnn.models import FirstStage
from keras_maskrcnn.training import alternating
from keras_maskrcnn.training.clock import TimeBudget

PARTS = ("backbone", "fpn", "rpn", "box_head", "mask_head")


def make_model():
    keras.utils.set_random_seed(3)
    return MaskRCNN(
        3,
        backbone={"name": "resnet10", "width": 8, "norm": "batch", "freeze_at": 1},
        fpn_channels=16,
        anchors={"sizes": ((12,), (24,), (48,), (64,), (96,))},
        proposals={"pre_nms": 40, "post_nms": 20, "training_post_nms": 12},
        rpn_sampling={"size": 16},
        box_sampling={"size": 16},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        image_size=(64, 64),
        seed=7,
    )


class Weights(keras.callbacks.Callback):
    """Records the weights of every part after each fit."""

    def __init__(self, model):
        super().__init__()
        self.noted = [parts(model)]

    def on_train_end(self, logs=None):
        self.noted.append(parts(self.model))


def parts(model):
    return {name: [w.copy() for w in getattr(model, name).get_weights()] for name in PARTS}


def moved(before, after):
    """Names of the parts with a changed weight, including batch statistics."""
    return {
        name for name in PARTS if any(not np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["eager", "graph"])
def run(request):
    eagerly = request.param
    model = make_model()
    shapes = data.Shapes(8, image_size=(64, 64), seed=5, object_size=(12, 30))
    batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, repeat=True)
    weights = Weights(model)
    phases = training.alternate(
        model,
        batches,
        (2, 2, 2, 2),
        lambda steps: keras.optimizers.SGD(0.01),
        loss_weights={"mask_loss": 2.0},
        restart="initial",
        epochs=2,
        callbacks=[weights],
        verbose=0,
        run_eagerly=eagerly,
    )
    return model, phases, weights.noted


def test_each_phase_changes_its_own_parts_only(run):
    _, _, noted = run
    found = [moved(before, after) for before, after in zip(noted[:1] + noted[1:-1], noted[1:], strict=True)]
    assert found[0] == {"backbone", "fpn", "rpn"}
    assert found[1] == {"backbone", "fpn", "box_head", "mask_head"}
    assert found[2] == {"rpn"}
    assert found[3] == {"box_head", "mask_head"}


def test_losses_of_the_inactive_stage_are_not_computed(run):
    _, phases, _ = run
    for index, phase in enumerate(phases):
        rpn = phase["history"]["rpn_class_loss"] + phase["history"]["rpn_box_loss"]
        region = phase["history"]["class_loss"] + phase["history"]["mask_loss"]
        inactive, active = (region, rpn) if index in (0, 2) else (rpn, region)
        assert inactive == [0.0] * 4
        assert min(active) >= 0 and max(active) > 0
        assert phase["seconds"] > 0


def test_phases_follow_the_paper(run):
    _, phases, _ = run
    assert [phase["phase"][0] for phase in phases] == ["1", "2", "3", "4"]


def test_trainable_flags_are_restored_for_joint_training(run):
    model, _, _ = run
    assert not model.backbone.get_layer("stem_conv").trainable  # frozen before and after
    assert model.backbone.get_layer("stage1_block1_1_conv").trainable
    assert all(getattr(model, name).trainable for name in PARTS)
    assert model.loss_weights == {"mask_loss": 2.0}
    assert len(model.trainable_variables) == len(make_model().trainable_variables)


def test_restart_selects_the_initial_weights_of_the_second_phase(monkeypatch):
    """ "initial" restores the backbone's weights from before phase 1; "rpn" keeps those of phase 1."""
    starts = []

    def note(model, batches, name, *_):
        if name.startswith("1"):
            model.backbone.set_weights([w + 1 for w in model.backbone.get_weights()])
        if name.startswith("2"):
            starts.append(model.backbone.get_weights()[0].copy())
        return {}

    monkeypatch.setattr(alternating, "_train", note)
    for restart in ("initial", "rpn"):
        model = make_model()
        first = model.backbone.get_weights()[0].copy()
        training.alternate(model, None, (1, 1, 1, 1), lambda steps: keras.optimizers.SGD(0.1), restart=restart)
        np.testing.assert_array_equal(starts[-1], first if restart == "initial" else first + 1)


def test_phases_by_the_clock(monkeypatch):
    """Steps of 10 seconds, of which the first takes 30; the learning rate falls with the time of each phase."""
    seconds, rates = [0.0], []

    def step(model, *_):
        seconds[0] += 10 if int(model.optimizer.iterations) else 30
        rates.append(round(float(model.optimizer.learning_rate), 3))
        model.optimizer.iterations.assign_add(1)
        return {"loss": 1.0}

    monkeypatch.setattr(MaskRCNN, "train_step", step)
    shapes = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
    batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, repeat=True)
    phases = training.alternate(
        make_model(),
        batches,
        (1, 2, 1, 0.75),
        lambda minutes: keras.optimizers.SGD(1.0),
        epochs=1,
        verbose=0,
        clock=lambda minutes: TimeBudget(minutes, lambda share: 1 - share, 2, now=lambda: seconds[0]),
        run_eagerly=True,
    )
    # Of 45 seconds 5 are left after the second step, half of one.
    assert [phase["steps"] for phase in phases] == [4, 10, 4, 2]
    assert seconds[0] == 60 + 120 + 60 + 40
    assert rates[:4] == rates[14:18] == [1.0, 1.0, 0.667, 0.333]


def test_second_phase_uses_the_proposals_of_the_first():
    model = make_model()
    copy = alternating._copy(model)
    shapes = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
    batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28)
    wanted = FirstStage(copy, 12).predict_on_batch(next(iter(batches))[0])
    model.backbone.set_weights([w * 0 for w in model.backbone.get_weights()])
    x, y = next(alternating._with_proposals(batches, FirstStage(copy, 12)))
    np.testing.assert_array_equal(x["proposals"], wanted["boxes"])
    np.testing.assert_array_equal(x["proposal_valid"], wanted["valid"])
    assert set(y) == {"boxes", "labels", "masks", "crowd", "valid"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": (1, 1, 1)}, "must be four numbers"),
        ({"steps": (5, 5, 5, 1), "epochs": 2}, "each at least epochs=2"),
        ({"steps": (1, 1, 1, 1), "restart": "zero"}, "not 'initial' or 'rpn'"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, words):
    with pytest.raises(ValueError, match=words):
        training.alternate(make_model(), None, make_optimizer=None, **arguments)
