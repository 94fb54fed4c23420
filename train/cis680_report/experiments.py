"""Trainings of part B: joint, alternating, and on a given backbone; scores of the trained networks."""

import argparse
import dataclasses
import functools
import time

import keras
import numpy as np

from keras_maskrcnn import MaskRCNN, data, evaluation, training
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.training import recipe

LOSS_WEIGHTS = {"box_loss": 5.0, "mask_loss": 2.0}  # of the student's report; 1 for all others
ANCHOR_SIDES = (12, 24, 48, 64, 96)  # pixels, one per level, for a canvas whose shorter side is 128
PROPOSALS = {"pre_nms": 1000, "post_nms": 1000, "training_pre_nms": 400, "training_post_nms": 256}
SAMPLED = {"size": 128, "positive_fraction": 0.25, "high": 0.5, "low": 0.5}
EPOCHS = 20  # points of the training curves
PHASE_SHARES = (0.2, 0.5, 0.1, 0.2)  # of the alternating steps; phase 2 trains the detector from scratch
SCORED = 100  # maximum number of training images that are scored


@dataclasses.dataclass
class Trained:
    """A trained network.

    Attributes:
        name: name in tables.
        model: `MaskRCNN`.
        phases: list of {"phase", "steps", "seconds", "history"}; one of them for joint training.
        threshold: minimum score of a detection for precision, recall and F1.
    """

    name: str
    model: MaskRCNN
    phases: list
    threshold: float = 0.5

    @property
    def seconds(self):
        """Time of all phases, tracing included."""
        return sum(phase["seconds"] for phase in self.phases)

    @property
    def steps(self):
        """Number of steps of all phases."""
        return sum(phase["steps"] for phase in self.phases)

    @property
    def history(self):
        """Curves of the last phase: dict of lists."""
        return self.phases[-1]["history"]

    @functools.cached_property
    def stage(self):
        """`FirstStage` with the best 100 proposals and their class probabilities."""
        return FirstStage(self.model, max_proposals=100, classify=True)


def build(setup):
    """The untrained network; every call returns the same weights."""
    keras.utils.set_random_seed(setup.arguments.seed)
    return MaskRCNN(
        len(setup.class_names),
        class_names=list(setup.class_names),
        backbone={"name": setup.arguments.backbone, "norm": norm(setup), "width": setup.arguments.width},
        image_size=setup.canvas_b,
        fpn_channels=64,
        anchors={"sizes": anchor_sizes(setup.canvas_b), "ratios": (0.5, 1.0, 2.0)},
        proposals=PROPOSALS,
        rpn_sampling={"size": 64},
        box_sampling=SAMPLED,
        box_stage={"width": 256},
        mask_stage={"width": 64, "depth": 1},
        seed=setup.arguments.seed,
        dtype=setup.policy,
    )


def norm(setup):
    """Normalisation of the backbone; the statistics of a small batch are not reliable."""
    return "batch" if setup.arguments.batch_size >= 8 else "group"


def anchor_sizes(canvas):
    """Side lengths of the anchors, one per level, proportional to the shorter side of the canvas."""
    return tuple((side * min(canvas) / 128,) for side in ANCHOR_SIDES)


def joint(setup):
    """Trains all parts together."""
    model = build(setup)
    phases = [fit(model, setup, setup.arguments.steps_b)]
    return Trained("joint", model, phases, working_point(model, setup))


def alternating(setup):
    """Trains the RPN and the detector in turns."""
    model = build(setup)
    steps = [max(round(share * setup.arguments.alternating_steps), 1) for share in PHASE_SHARES]
    phases = training.alternate(
        model,
        setup.batches(setup.canvas_b),
        steps,
        lambda count: optimizer(setup, count),
        LOSS_WEIGHTS,
        restart="rpn",
        epochs=min(EPOCHS // 2, *steps),
        verbose=2,
    )
    return Trained("alternating", model, phases, working_point(model, setup))


def working_point(model, setup):
    """The score threshold of the highest F1 on training images."""
    return evaluation.best_threshold(model, some(setup.train), kind="bbox")


def transfer(setup, backbone, name, trainable):
    """Trains a network for a few steps, on the weights of a backbone or, with None, on new ones."""
    model = build(setup)
    if backbone is not None:
        model.backbone.set_weights(backbone.get_weights())
    model.backbone.trainable = trainable
    return Trained(name, model, [fit(model, setup, setup.arguments.transfer_steps)])


def fit(model, setup, steps):
    """Compiles and trains; returns {"phase", "steps", "seconds", "history"}."""
    epochs = min(EPOCHS, steps)
    steps -= steps % epochs
    model.compile(optimizer(setup, steps), loss_weights=LOSS_WEIGHTS)
    start = time.perf_counter()
    history = model.fit(
        setup.batches(setup.canvas_b), epochs=epochs, steps_per_epoch=steps // epochs, verbose=2
    ).history
    return {"phase": "all together", "steps": steps, "seconds": time.perf_counter() - start, "history": history}


def optimizer(setup, steps):
    """The optimizer of the recipes with a schedule of this many steps."""
    return recipe.optimizer(argparse.Namespace(learning_rate=setup.arguments.learning_rate, steps=steps))


def some(dataset, count=SCORED):
    """The first samples of a data set."""
    return data.Subset(dataset, range(min(count, len(dataset))))


def compare(trained, dataset):
    """Scores of a trained network.

    Returns:
        dict of `bbox_AP`, `bbox_AP50`, `segm_AP`, `segm_AP50`, `f1` of all masks that score `threshold` or more,
        `threshold`, and `seconds` of training.
    """
    # The model's own score threshold: another one would trace another graph.
    coco = evaluation.coco_scores(trained.model, dataset, score_threshold=trained.model.detection.score_threshold)
    report = evaluation.precision_recall(trained.model, dataset, score_threshold=trained.threshold)
    figures = {name: coco[name] for name in ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")}
    figures |= {"f1": report["overall"]["f1"], "threshold": trained.threshold, "seconds": trained.seconds}
    return rounded(figures)


def reports(trained, dataset):
    """`evaluation.precision_recall` of boxes and of masks at the working point: dict by kind."""
    return {
        kind: evaluation.precision_recall(trained.model, dataset, score_threshold=trained.threshold, kind=kind)
        for kind in ("bbox", "segm")
    }


def rates(report):
    """Precision, recall and F1 of each class of an evaluation report, for JSON."""
    kinds = ("precision", "recall", "f1")
    return {name: rounded({kind: found[kind] for kind in kinds}) for name, found in report["classes"].items()}


def rounded(figures):
    """A dict of numbers for JSON: strings as keys, integers unchanged, floats with four digits, None for NaN."""
    return {
        str(name): value if isinstance(value, int) else None if np.isnan(value) else round(float(value), 4)
        for name, value in figures.items()
    }
