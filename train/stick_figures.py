"""Train Keypoint R-CNN, with masks or without, from scratch on generated stick figures.

    python train/stick_figures.py --output runs/stick_figures --minutes 20
    python train/stick_figures.py --output runs/stick_figures_keypoints --minutes 20 --no-masks

The figures have COCO's 17 keypoints; scores of keypoints are those of COCO's keypoint challenge.
"""

from keras_maskrcnn.training import recipe  # isort: skip

import argparse

import keras_maskrcnn
import keras_maskrcnn.quiet  # before TensorFlow
from keras_maskrcnn import data
from keras_maskrcnn.heads.keypoint import KeypointHead

# Images of a run by the clock, whose number of steps is unknown. They are drawn when needed, and repeat afterwards.
BY_THE_CLOCK = 1_000_000
# No image has more figures than 3, and COCO's keypoint scores count 20 detections.
MAX_INSTANCES, MAX_DETECTIONS = 4, 20


def build(arguments, num_classes):
    """A ResNet of half width with a 64-channel pyramid and a keypoint head of 2 million parameters or less."""
    dtype = recipe.policy(arguments)
    stage = {"width": arguments.keypoint_width, "depth": arguments.keypoint_depth}
    return keras_maskrcnn.MaskRCNN(
        num_classes,
        backbone={"name": arguments.backbone, "norm": "batch", "width": arguments.width},
        image_size=recipe.canvas(arguments),
        fpn_channels=64,
        anchors={"sizes": ((16,), (32,), (64,), (96,), (144,)), "ratios": (1.0, 2.0)},
        mask_stage={"width": 64, "depth": 2} if arguments.masks else None,
        heads=[KeypointHead(stage=stage, name="keypoint_head", dtype=dtype)],
        seed=arguments.seed,
        dtype=dtype,
        **recipe.SMALL,
    )


def run(arguments):
    """Train, score on other images, export."""
    recipe.begin(arguments)
    size = recipe.canvas(arguments)
    count = BY_THE_CLOCK if arguments.minutes else arguments.steps * arguments.batch_size
    train = data.StickFigures(count, image_size=size, seed=arguments.seed + 1)
    val = data.StickFigures(arguments.val_images, image_size=size, seed=arguments.seed + 2)
    mask_size = 56 if arguments.masks else None
    batches = recipe.batches(arguments, train, mask_size, max_instances=MAX_INSTANCES, shuffle=False)
    model = build(arguments, train.num_classes)
    model.compile(recipe.optimizer(arguments), loss_weights={"keypoint_loss": arguments.keypoint_weight})
    recipe.train(arguments, model, train, val, batches, max_detections=MAX_DETECTIONS)


if __name__ == "__main__":
    parser = recipe.parser(__doc__, steps=3000, batch_size=8, image_size=160, learning_rate=1e-3, width=32)
    add = parser.add_argument
    add("--val-images", type=int, default=200, help="number of validation images (default: %(default)s)")
    add(
        "--masks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train a mask head too (default: %(default)s)",
    )
    add(
        "--keypoint-width",
        type=recipe.positive,
        default=96,
        help="channels of the keypoint head's convolutions (default: %(default)s)",
    )
    add("--keypoint-depth", type=recipe.positive, default=3, help="number of them (default: %(default)s)")
    add(
        "--keypoint-weight",
        type=float,
        default=0.5,
        help="factor of the keypoint loss, which is several times the others (default: %(default)s)",
    )
    recipe.main(run, parser.parse_args())
