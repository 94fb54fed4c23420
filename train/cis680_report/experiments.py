"""Trainings of part B: joint, alternating, and on a given backbone; scores of the trained networks."""

import dataclasses
import functools

import keras

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
    """A trained network: `phases` are {"phase", "steps", "seconds", "history"}, `threshold` is its score threshold."""

    name: str
    model: MaskRCNN
    phases: list
    threshold: float = 0.5

    def __post_init__(self):
        self.seconds, self.steps = (sum(phase[name] for phase in self.phases) for name in ("seconds", "steps"))
        self.history = self.phases[-1]["history"]

    @functools.cached_property
    def stage(self):
        """`FirstStage` with the best 100 proposals and their class probabilities."""
        return FirstStage(self.model, max_proposals=100, classify=True)


def build(setup):
    """The untrained network; every call returns the same weights."""
    arguments = setup.arguments
    keras.utils.set_random_seed(arguments.seed)
    norm = "batch" if arguments.batch_size >= 8 else "group"  # the statistics of a small batch are not reliable
    sizes = tuple((side * min(setup.canvas_b) / 128,) for side in ANCHOR_SIDES)
    return MaskRCNN(
        len(setup.class_names),
        class_names=list(setup.class_names),
        backbone={"name": arguments.backbone, "norm": norm, "width": arguments.width},
        image_size=setup.canvas_b,
        fpn_channels=64,
        anchors={"sizes": sizes, "ratios": (0.5, 1.0, 2.0)},
        proposals=PROPOSALS,
        rpn_sampling={"size": 64},
        box_sampling=SAMPLED,
        box_stage={"width": 256},
        mask_stage={"width": 64, "depth": 1},
        seed=arguments.seed,
        dtype=recipe.policy(arguments),
    )


def joint(setup):
    """Trains all parts together."""
    model = build(setup)
    phases = [fit(model, setup, setup.arguments.steps_b)]
    return Trained("joint", model, phases, evaluation.best_threshold(model, some(setup.train), kind="bbox"))


def alternating(setup):
    """Trains the RPN and the detector in turns."""
    model, batches = build(setup), setup.batches(setup.canvas_b)
    steps = [max(round(share * setup.arguments.alternating_steps), 1) for share in PHASE_SHARES]
    options = {"restart": "rpn", "epochs": min(EPOCHS // 2, *steps), "verbose": 2, "clock": setup.clock}
    lengths = [setup.length(count) for count in steps]
    phases = training.alternate(model, batches, lengths, setup.optimizer, LOSS_WEIGHTS, **options)
    return Trained("alternating", model, phases, evaluation.best_threshold(model, some(setup.train), kind="bbox"))


def transfer(setup, backbone, name, trainable):
    """Trains a network for a few steps, on the weights of a backbone or, with None, on new ones."""
    model = build(setup)
    if backbone is not None:
        model.backbone.set_weights(backbone.get_weights())
    model.backbone.trainable = trainable
    return Trained(name, model, [fit(model, setup, setup.arguments.transfer_steps)])


def fit(model, setup, steps):
    """Trains on part B's canvas; returns {"phase", "steps", "seconds", "history"}."""
    return setup.fit(model, steps, EPOCHS, setup.canvas_b, LOSS_WEIGHTS)


def some(dataset, count=SCORED):
    """The first samples of a data set."""
    return data.Subset(dataset, range(min(count, len(dataset))))


def compare(trained, dataset):
    """AP and AP50 of boxes and masks, F1 of masks at the threshold, the threshold, and seconds of training."""
    score = trained.model.detection.limits().score_threshold
    coco = evaluation.coco_scores(trained.model, dataset, score_threshold=score)
    f1 = evaluation.precision_recall(trained.model, dataset, score_threshold=trained.threshold)["overall"]["f1"]
    figures = {name: coco[name] for name in ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50")}
    return rounded({**figures, "f1": f1, "threshold": trained.threshold, "seconds": trained.seconds})


def reports(trained, dataset):
    """`evaluation.precision_recall` of boxes and of masks at the threshold: dict by kind."""
    model, score = trained.model, trained.threshold
    return {kind: evaluation.precision_recall(model, dataset, 0.5, score, kind) for kind in ("bbox", "segm")}


def rates(reports):
    """Precision, recall and F1 by class of evaluation reports, for JSON: dict by kind, class and rate."""
    names = ("precision", "recall", "f1")
    return {
        kind: {c: rounded({name: found[name] for name in names}) for c, found in report["classes"].items()}
        for kind, report in reports.items()
    }


def rounded(figures):
    """Figures for JSON, with four digits, see `evaluation.for_json`."""
    return evaluation.for_json(figures, digits=4)
