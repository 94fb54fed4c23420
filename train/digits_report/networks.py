"""Images and networks of the recipe: a small FCN, a small Mask R-CNN, and FCNs that are trained for a few steps."""

import argparse
import dataclasses
import pathlib

import keras

from keras_maskrcnn import FCN, MaskRCNN, data, evaluation
from keras_maskrcnn.training import recipe

POINTS = 10  # of the curve of a short training
SCORED = 60  # images that score a short training


@dataclasses.dataclass(frozen=True)
class Work:
    """Images for training and validation, which show different single digits, the arguments, and the output folder."""

    train: data.Digits
    val: data.Digits
    arguments: argparse.Namespace
    output: pathlib.Path

    def images(self, count, split, seed, **options):
        """Further images from the single digits of a split; `options` of `data.Digits`."""
        return digits(self.arguments, count, split, seed, **options)


def digits(arguments, count, split, seed, **options):
    """Images of the size and from the source that the arguments state."""
    size = recipe.canvas(arguments)
    return data.Digits(count, size, arguments.seed * 10 + seed, arguments.digits, split, **options)


def fcn(arguments, num_classes, **options):
    """A small FCN on a ResNet: features of all levels from stride 4 on are joined, as in a U-Net."""
    options = {"stride": 4, "skips": "concatenate", "stage": {"width": 256, "dropout": 0.0}, **options}
    return FCN(num_classes, **_common(arguments), **options)


def mask_rcnn(arguments, num_classes):
    """A small Mask R-CNN on the same ResNet with a 64-channel pyramid."""
    return MaskRCNN(
        num_classes,
        fpn_channels=64,
        anchors={"sizes": ((16,), (28,), (44,), (60,), (80,)), "ratios": (1.0, 2.0)},
        mask_stage={"width": 64, "depth": 2},
        seed=arguments.seed,
        **_common(arguments),
        **recipe.SMALL,
    )


def _common(arguments):
    return {
        "backbone": {"name": arguments.backbone, "norm": "batch", "width": arguments.width},
        "image_size": recipe.canvas(arguments),
        "dtype": recipe.policy(arguments),
    }


def short(work, dataset=None, **options):
    """Trains an FCN for the steps of `--page-steps`, and scores it on some validation images.

    All these trainings start with the same random seed and see the same images in the same order.

    Args:
        work: `Work`.
        dataset: training images; None for those of the recipe.
        **options: of `models.fcn.FCN`.

    Returns:
        (model, figures): figures are `parameters`, `mean_IoU`, `boundary_F`, and `loss`, the mean training loss of each
        tenth of the steps.
    """
    keras.utils.set_random_seed(work.arguments.seed)
    dataset = work.train if dataset is None else dataset
    points = min(POINTS, work.arguments.page_steps)
    each = work.arguments.page_steps // points
    plan = argparse.Namespace(**{**vars(work.arguments), "steps": each * points, "minutes": None})
    model = fcn(plan, dataset.num_classes, **{"stride": 8, "skips": "add", **options})
    model.compile(recipe.optimizer(plan))
    batches = recipe.batches(plan, dataset, mask_size=None, max_instances=8, shuffle=False)
    history = model.fit(batches, epochs=points, steps_per_epoch=each, verbose=0).history
    scores = evaluation.semantic_scores(model, work.val, limit=SCORED)
    figures = evaluation.for_json({name: scores[name] for name in ("mean_IoU", "boundary_F")}, digits=4)
    losses = [round(loss, 4) for loss in history["loss"]]
    return model, {"parameters": model.count_params(), **figures, "loss": losses}
