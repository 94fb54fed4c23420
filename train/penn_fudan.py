"""Train Mask R-CNN from scratch on Penn-Fudan pedestrians (120 photos train, 20 validate).

    python train/penn_fudan.py --data PennFudanPed --output runs/penn_fudan

With these defaults (24,000 crops) on the validation photos at full resolution, 20 November 2026, two AMD EPYC (Zen 4)
cores with bfloat16 instructions, 54 minutes in all while other programs shared the cores:

    bbox AP 0.626, AP50 0.956; segm AP 0.561, AP50 0.935

The curve tells what mattered: segm AP was 0.43 after 7,200 crops, stood at 0.50 from 14,400 to 16,800, and rose to 0.56
when the learning rate had fallen. Regions of 100×290 pixels are cut from the stride-8 level; the mask head has three
96-channel convolutions. The other choices (batch normalisation at batch 8, colour jitter) were not taken apart.
"""

import pathlib

import keras

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training import recipe


def canvas(arguments):
    """Canvas of whole photos that shows people as large as crops of `--image-size` do, on average."""
    side = max(recipe.canvas(arguments))
    return tuple(max(round(factor * side / 32), 1) * 32 for factor in (1.1, 1.4))


def augment(arguments):
    """Crops from photos (about 400×490 pixels, people about 100×290) at 0.55 to 1.3 times that for 320-pixel crops."""
    height, width = recipe.canvas(arguments)
    scale = tuple(factor * max(height, width) / 320 for factor in (0.55, 1.3))
    colour = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "grey": 0.1}
    return data.Augment(flip=0.5, scale=scale, crop=(height, width), **colour)


def build(arguments, num_classes):
    """A ResNet-18 of half width with a 96-channel pyramid and anchors shaped like people."""
    factor = max(recipe.canvas(arguments)) / 320
    return MaskRCNN(
        num_classes,
        backbone={"name": arguments.backbone, "norm": "batch", "width": arguments.width},
        image_size=canvas(arguments),
        fpn_channels=96,
        anchors={
            "sizes": tuple((factor * size,) for size in (32, 64, 112, 160, 224)),
            "ratios": (1.0, 2.0, 3.0),
        },
        mask_stage={"width": 96, "depth": 3},
        seed=arguments.seed,
        dtype=recipe.policy(arguments),
        **recipe.SMALL,
    )


def run(arguments):
    """Train on crops, score whole photos at full resolution, export."""
    keras.utils.set_random_seed(arguments.seed)
    train = data.PennFudan(arguments.data, split="train")
    val = data.PennFudan(arguments.data, split="val")
    batches = recipe.batches(arguments, train, max_instances=16, augment=augment(arguments), cache=True)
    model = build(arguments, train.num_classes)
    model.compile(recipe.optimizer(arguments))
    recipe.train(arguments, model, train, val, batches)


if __name__ == "__main__":
    parser = recipe.parser(__doc__, steps=3000, batch_size=8, image_size=320, learning_rate=1e-3, width=32, epochs=10)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder PennFudanPed")
    recipe.main(run, parser.parse_args())
