"""What part A trains: the single anchor from the boxes, the model, and what the ground truth makes of each anchor."""

import argparse
import dataclasses
import time

import keras
import numpy as np
from keras import ops

from cis680_report import plots
from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.data.cache import skip
from keras_maskrcnn.data.geometry import fitted_size
from keras_maskrcnn.models.losses import anchor_roles, read_truth
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.training import recipe

BOXES_FROM = 500  # pictures whose boxes go into the histograms
COUNTED = 64  # pictures on which anchors are counted
VALIDATED = 16  # test pictures on which the losses are measured after each part of the training
EPOCHS = 12  # parts of the training, one point of the curves each
FIRST_STAGE_ONLY = {"class_loss": 0.0, "box_loss": 0.0, "mask_loss": 0.0}


@dataclasses.dataclass(frozen=True)
class Anchor:
    """The single anchor, and the boxes that it was found from.

    Attributes:
        boxes: float64 [n, 4], training boxes in pixels of the network's input.
        scale: √(width · height) in pixels.
        ratio: height over width.
        pictures: how many pictures the boxes are from.
        bins: of each histogram.
    """

    boxes: np.ndarray
    scale: float
    ratio: float
    pictures: int
    bins: int

    @property
    def sides(self):
        """(height, width) in pixels."""
        return self.scale * self.ratio**0.5, self.scale / self.ratio**0.5


def find_anchor(dataset, canvas):
    """The anchor from the modes of the histograms of scale and aspect ratio.

    Raises:
        ValueError: none of the pictures has a box.
    """
    boxes, pictures = training_boxes(dataset, canvas)
    if not len(boxes):
        raise ValueError(f"the first {pictures} training pictures have no box to make an anchor of")
    bins = int(np.ceil(np.log2(len(boxes)))) + 1  # Sturges' rule
    scales, ratios = scales_and_ratios(boxes)
    scale, _, _ = plots.mode(scales, plots.bin_edges(scales, bins))
    ratio, _, _ = plots.mode(ratios, plots.bin_edges(ratios, bins, logarithmic=True))
    return Anchor(boxes, float(round(scale, 1)), float(round(ratio, 2)), pictures, bins)


def training_boxes(dataset, canvas, most=BOXES_FROM):
    """Boxes of the first pictures without crowds, in pixels of the canvas: float64 [n, 4]; and how many pictures."""
    found, pictures = [np.zeros((0, 4))], 0
    for position in range(min(most, len(dataset))):
        try:
            sample = dataset[position]
        except data.DataError as error:
            skip(dataset, error)
            continue
        size = np.array(sample["image"].shape[:2])
        factor = np.tile((fitted_size(size, canvas) / size)[::-1], 2)
        found.append(sample["boxes"][~sample["crowd"]].astype(np.float64) * factor)
        pictures += 1
    return np.concatenate(found), pictures


def scales_and_ratios(boxes):
    """√area in pixels and height over width of boxes [n, 4]: float64 [n] each."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    return np.sqrt(width * height), height / width


def sample_size(positives):
    """Anchors sampled a picture: twice as many as a picture has positives, so that about half can be positive."""
    return int(np.clip(2 * round(positives), 16, 256))


def build(setup, anchor, sampled):
    """The ordinary model on the map of stride 16 alone, with one anchor; its second stage is small and never trains."""
    keras.utils.set_random_seed(setup.arguments.seed)
    model = MaskRCNN(
        len(setup.class_names),
        class_names=list(setup.class_names),
        backbone="simple_cnn",
        neck=None,
        image_size=setup.canvas_a,
        # The units of this backbone look at the middles of their cells of 16 × 16 pixels, not at their corners.
        anchors={"sizes": ((anchor.scale,),), "ratios": (anchor.ratio,), "offset": 0.5},
        rpn_stage={"channels": 256, "norm": "batch", "beta": 1.0},
        rpn_sampling={
            "size": sampled,
            "positive_fraction": 0.5,
            "high": 0.7,
            "low": 0.3,
            "cross_boundary": "ignore",
        },
        box_stage={"pool": 2, "hidden": 1, "width": 8},
        mask_stage={"pool": 2, "depth": 1, "width": 8},
        seed=setup.arguments.seed,
        dtype=setup.policy,
    )
    model.box_head.trainable = model.mask_head.trainable = False
    return model


def fit(model, setup):
    """Trains backbone and RPN jointly; returns the history (dict of lists) and the seconds that it took."""
    arguments = setup.arguments
    epochs = min(EPOCHS, arguments.steps_a)
    schedule = argparse.Namespace(learning_rate=arguments.learning_rate, steps=arguments.steps_a)
    model.compile(recipe.optimizer(schedule), loss_weights=FIRST_STAGE_ONLY)
    start = time.perf_counter()
    history = model.fit(
        setup.batches(setup.canvas_a, arguments.batch_size),
        validation_data=test_batches(setup, VALIDATED),
        epochs=epochs,
        steps_per_epoch=arguments.steps_a // epochs,
        verbose=2,
    )
    return history.history, time.perf_counter() - start


def test_batches(setup, most=None):
    """The test pictures, or the first of them, once through on part A's canvas."""
    return first_batches(setup.test, setup.canvas_a, most or len(setup.test))


def first_batches(dataset, canvas, most):
    """The first pictures of a data set in their order, as small batches; the masks are not used and tiny."""
    chosen = data.Subset(dataset, range(min(most, len(dataset))))
    return data.batches(chosen, canvas, min(4, len(chosen)), mask_size=8, max_instances=64)


def roles(model, inputs):
    """Roles of all anchors for a batch.

    Returns:
        dict of `anchors` float32 [A, 4]; `role` int32 [B, A] of 1, 0, -1; `crossing` bool [B, A], beyond the picture;
        `forced` bool [B, A], positive although the IoU is below the threshold.
    """
    sizes, truth = ops.cast(inputs["sizes"], "float32"), read_truth(inputs)
    anchors = np.concatenate(model.anchors.boxes(inputs["images"].shape[1:3], model.strides))
    _, role = anchor_roles(anchors, truth, model.rpn_sampling, sizes)
    overlap = ops.where(truth.valid[..., None], box_ops.iou(truth.boxes, anchors), 0.0)
    best, role, sizes = (np.asarray(ops.convert_to_numpy(x)) for x in (ops.max(overlap, axis=1), role, sizes))
    beyond = anchors[None, :, 2:] > sizes[:, None, ::-1]
    crossing = (anchors[:, :2] < 0).any(axis=-1) | beyond.any(axis=-1)
    forced = (role == 1) & (best < model.rpn_sampling.high)
    return {"anchors": anchors, "role": role, "crossing": crossing, "forced": forced}


def count_roles(model, setup):
    """Anchors of each role a picture, mean over some training pictures; `forced` is a share of the positives."""
    found = [roles(model, {**x, **y}) for x, y in first_batches(setup.train, setup.canvas_a, COUNTED)]
    role, crossing, forced = (np.concatenate([part[key] for part in found]) for key in ("role", "crossing", "forced"))
    return {
        "positive": float((role == 1).sum(axis=1).mean()),
        "negative": float((role == 0).sum(axis=1).mean()),
        "ignored": float(((role == -1) & ~crossing).sum(axis=1).mean()),
        "crossing": float(crossing.sum(axis=1).mean()),
        "all": role.shape[1],
        "forced": float(forced.sum() / max((role == 1).sum(), 1)),
    }
