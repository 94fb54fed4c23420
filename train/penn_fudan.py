"""Train Mask R-CNN from scratch on Penn-Fudan pedestrians (120 photos train, 20 validate).

python train/penn_fudan.py --data PennFudanPed --output runs/penn_fudan
"""

import pathlib

import keras

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training import recipe

# Photos are about 400×490 pixels and people about 100×290; the canvas shows them at 0.7 to 1.0 of that.
CANVAS = (352, 448)
AUGMENT = data.Augment(
    flip=0.5, scale=(0.55, 1.3), crop=(320, 320), brightness=0.3, contrast=0.3, saturation=0.3, grey=0.1
)


def build(arguments, num_classes):
    """A ResNet-18 of half width with a 96-channel pyramid and anchors shaped like people."""
    return MaskRCNN(
        num_classes,
        backbone={"name": arguments.backbone, "norm": "batch", "width": arguments.width},
        image_size=CANVAS,
        fpn_channels=96,
        anchors={"sizes": ((32,), (64,), (112,), (160,), (224,)), "ratios": (1.0, 2.0, 3.0)},
        proposals={"pre_nms": 200, "post_nms": 100},
        rpn_sampling={"size": 64},
        box_sampling={"size": 64},
        box_stage={"width": 256},
        mask_stage={"width": 96, "depth": 3},
        seed=arguments.seed,
        dtype=recipe.policy(arguments),
    )


def run(arguments):
    """Train on crops, score whole photos at full resolution, export."""
    keras.utils.set_random_seed(arguments.seed)
    train = data.PennFudan(arguments.data, split="train")
    val = data.PennFudan(arguments.data, split="val")
    batches = data.batches(
        train,
        recipe.canvas(arguments),
        arguments.batch_size,
        max_instances=16,
        mask_size=56,
        augment=AUGMENT,
        repeat=True,
        cache=True,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    model = build(arguments, train.num_classes)
    model.compile(recipe.optimizer(arguments))
    recipe.train(arguments, model, train, val, batches)


if __name__ == "__main__":
    parser = recipe.parser(__doc__, steps=3000, batch_size=8, image_size=320, learning_rate=1e-3, width=32, epochs=10)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder PennFudanPed")
    recipe.main(run, parser.parse_args())
