"""What part B trains and measures: one network, trained jointly, in turns, and on a given backbone."""

import argparse
import dataclasses
import functools
import time

import keras
import numpy as np

from keras_maskrcnn import MaskRCNN, data, evaluation, training
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.training import recipe

LOSS_WEIGHTS = {"box_loss": 5.0, "mask_loss": 2.0}  # the report's; all others count once
ANCHOR_SIDES = (12, 24, 48, 64, 96)  # pixels of a picture whose shorter side is 128, one a level
PROPOSALS = {"pre_nms": 1000, "post_nms": 1000, "training_pre_nms": 400, "training_post_nms": 256}
SAMPLED = {"size": 128, "positive_fraction": 0.25, "high": 0.5, "low": 0.5}
EPOCHS = 20  # parts of a training, one point of its curves each
PHASE_SHARES = (0.2, 0.5, 0.1, 0.2)  # of the alternating steps: the detector has most to learn, in phase 2
FROM_TRAINING = 100  # at most so many training pictures are scored


@dataclasses.dataclass
class Trained:
    """A network with what its training took and gave.

    Attributes:
        name: for tables.
        model: `MaskRCNN`.
        phases: list of {"phase", "steps", "seconds", "history"}, one of them where all is trained together.
        threshold: score from which a detection counts for precision, recall and F1.
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
        """Steps of all phases."""
        return sum(phase["steps"] for phase in self.phases)

    @property
    def history(self):
        """Curves of the last phase: dict of lists."""
        return self.phases[-1]["history"]

    @functools.cached_property
    def stage(self):
        """The first stage with its best 100 proposals and the box head's opinion of them."""
        return FirstStage(self.model, max_proposals=100, classify=True)


def build(setup):
    """The untrained network; the same weights at every call."""
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
    """Normalisation of the backbone: a batch of few pictures has no statistics worth the name."""
    return "batch" if setup.arguments.batch_size >= 8 else "group"


def anchor_sizes(canvas):
    """Side lengths of the anchors, one a level, that grow with the canvas (height, width)."""
    return tuple((side * min(canvas) / 128,) for side in ANCHOR_SIDES)


def joint(setup):
    """Trains all parts together."""
    model = build(setup)
    phases = [fit(model, setup, setup.arguments.steps_b)]
    return Trained("joint", model, phases, working_point(model, setup))


def alternating(setup):
    """Trains RPN and detector in turns."""
    model = build(setup)
    steps = [max(round(share * setup.arguments.alternating_steps), 1) for share in PHASE_SHARES]
    phases = training.alternate(
        model,
        batches(setup),
        steps,
        lambda count: optimizer(setup, count),
        LOSS_WEIGHTS,
        restart="rpn",
        epochs=min(EPOCHS // 2, *steps),
        verbose=2,
    )
    return Trained("alternating", model, phases, working_point(model, setup))


def working_point(model, setup):
    """The score threshold of the highest F1 on training pictures."""
    return evaluation.best_threshold(model, some(setup.train), kind="bbox")


def transfer(setup, backbone):
    """Trains three networks for the same few steps: on a new backbone, on a frozen trained one, and on that one freed.

    Args:
        setup: `Setup`.
        backbone: the trained backbone, which is not changed.

    Returns:
        list of `Trained`.
    """
    arms = (("new backbone", None, True), ("trained, frozen", backbone, False), ("trained, fine-tuned", backbone, True))
    return [_transferred(setup, *arm) for arm in arms]


def _transferred(setup, name, backbone, trainable):
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
    history = model.fit(batches(setup), epochs=epochs, steps_per_epoch=steps // epochs, verbose=2)
    seconds = time.perf_counter() - start
    return {"phase": "all together", "steps": steps, "seconds": seconds, "history": history.history}


def batches(setup):
    """Endless training batches on part B's canvas."""
    return setup.batches(setup.canvas_b, setup.arguments.batch_size)


def optimizer(setup, steps):
    """AdamW whose schedule ends after so many steps."""
    return recipe.optimizer(argparse.Namespace(learning_rate=setup.arguments.learning_rate, steps=steps))


def some(dataset, count=FROM_TRAINING):
    """The first pictures of a data set."""
    return data.Subset(dataset, range(min(count, len(dataset))))


def compare(trained, dataset):
    """What a trained network reaches on a data set, as JSON takes it.

    Returns:
        dict of `seconds`, COCO's AP and AP50 of boxes and masks, `f1` of all masks that score `threshold` or more; None
        where there is no figure.
    """
    # What leaves the network counts, scores from 0.05: another threshold would be another graph to trace.
    coco = evaluation.coco_scores(trained.model, dataset, score_threshold=trained.model.detection.score_threshold)
    report = evaluation.precision_recall(trained.model, dataset, score_threshold=trained.threshold)
    figures = {name: coco[name] for name in ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")}
    figures |= {"f1": report["overall"]["f1"], "threshold": trained.threshold, "seconds": trained.seconds}
    return {name: number(value) for name, value in figures.items()}


def recall(trained, dataset):
    """Share of the objects that one of the best 100 proposals overlaps by IoU 0.5."""
    return number(evaluation.proposal_recall(trained.stage, dataset, limits=(100,))[100])


def by_class(report):
    """Precision, recall and F1 of each class of an evaluation report, as JSON takes them."""
    kinds = ("precision", "recall", "f1")
    return {name: {kind: number(rates[kind]) for kind in kinds} for name, rates in report["classes"].items()}


def number(value):
    """A float of four digits, or None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)


def reports(trained, dataset):
    """Precision, recall and F1 of boxes and of masks at the working point: a report by kind."""
    return {
        kind: evaluation.precision_recall(trained.model, dataset, score_threshold=trained.threshold, kind=kind)
        for kind in ("bbox", "segm")
    }


def rates(trained, dataset):
    """What `reports` says of each class, as JSON takes it."""
    return {kind: by_class(report) for kind, report in reports(trained, dataset).items()}
