"""Train Mask R-CNN, or YOLACT, on cell nuclei of the Data Science Bowl 2018 (fluorescence and stained tissue).

    python train/nuclei.py --data NUCLEI --output runs/nuclei
    python train/nuclei.py --data NUCLEI --output runs/choice --select
    python train/nuclei.py --data NUCLEI --output runs/one_stage --model yolact --minutes 20

NUCLEI holds `stage1_train/ID/…` in the competition's layout or in that of `data.Nuclei`, and the lists `train.txt` and
`val.txt`. With `--select` the scores are those of 34 training images, which are then left out of the training, so that
options can be chosen without the validation set. docs/nuclei.md describes the data, the choices, and the scores.
"""

import json
import pathlib

import numpy as np

import keras_maskrcnn.quiet  # noqa: F401  before TensorFlow
from keras_maskrcnn import data, evaluation
from keras_maskrcnn.training import networks, recipe

HELD_OUT = 34  # images of `--select`
INSTANCES = 400  # the training images have up to 375


def augment(arguments):
    """Crops in all eight orientations, and changes of what stain, exposure and camera decide on."""
    return data.Augment(
        flip=0.5,
        vertical_flip=0.5,
        transpose=0.5,
        scale=tuple(arguments.scale * factor for factor in (0.7, 1.5)),
        crop=recipe.canvas(arguments),
        brightness=0.2,
        contrast=0.2,
        saturation=0.3,
        grey=0.1,
        gamma=0.4,
        stain=0.1,
    )


def build(arguments, num_classes):
    """A ResNet-18 of half width with a 64-channel pyramid and square anchors, two sizes per level.

    Nuclei are 5 to 116 pixels large, a quarter of them below 12; they and the anchors are enlarged by `--scale`.
    """
    smallest = 6 * arguments.scale
    return networks.build(
        arguments,
        num_classes,
        **recipe.backbone(arguments, arguments.norm),
        resize={"scale": arguments.scale, "multiple": 64, "tiles": arguments.tiles, "overlap": 96},
        stretch=arguments.stretch,
        fpn_channels=64,
        anchors={"sizes": tuple((n * smallest, 1.4 * n * smallest) for n in (1, 2, 4, 8, 16)), "ratios": (1.0,)},
        detection={"max_detections": INSTANCES, "nms_iou": arguments.nms_iou},
        mask_rcnn={
            "proposals": {"pre_nms": 1000, "post_nms": 1000, "training_pre_nms": 400, "training_post_nms": 300},
            "rpn_sampling": {"size": 256},
            "box_sampling": {"size": 128, "positive_fraction": 0.5},
            "box_stage": {"width": 256},
            "mask_stage": {"width": 64, "depth": arguments.mask_depth},
        },
    )


def readers(arguments):
    """Training and validation set."""
    train = data.Nuclei(arguments.data, split="train")
    return recipe.select(train, HELD_OUT) if arguments.select else (train, data.Nuclei(arguments.data, split="val"))


def stretched(arguments, dataset):
    """The data set with the grey levels that the model sees."""
    return data.Stretched(dataset, arguments.stretch) if arguments.stretch else dataset


def crops(arguments, val, rows):
    """Batches for `val_loss`: crops of up to 32 images at the scale of the training."""
    part = data.Subset(val, np.linspace(0, len(val) - 1, min(len(val), 32)).astype(int))
    size = recipe.canvas(arguments)
    cut = data.Augment(scale=(arguments.scale, arguments.scale), crop=size)
    count = min(arguments.batch_size, len(part))
    options = {"max_instances": rows, "mask_size": 56, "augment": cut, "shuffle": False, "drop_remainder": True}
    return data.batches(stretched(arguments, part), size, count, **options, cache=True, seed=arguments.seed)


def run(arguments):
    """Train on crops, score whole images at their own resolution, export."""
    recipe.begin(arguments)
    train, val = readers(arguments)
    model = build(arguments, train.num_classes)
    # Crops of 256 pixels hold up to 115 nuclei at their own size, a quarter of that at twice the size; more rows cost
    # time in the assignment of anchors.
    rows = 32 + round(128 / arguments.scale**2)
    seen = stretched(arguments, train)
    batches = recipe.batches(arguments, seen, max_instances=rows, augment=augment(arguments), cache=True)
    model.compile(recipe.optimizer(arguments, model))
    validation = crops(arguments, val, rows)
    summary = recipe.train(arguments, model, train, val, batches, max_detections=INSTANCES, validation=validation)
    if arguments.overfit:
        return
    summary["dsb_score"] = round(evaluation.dsb_score(model, val, max_detections=INSTANCES), 4)
    (arguments.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"DSB 2018 score {summary['dsb_score']:.3f}")


def parse(arguments=None):
    """Arguments."""
    parser = recipe.parser(__doc__, steps=3000, batch_size=8, image_size=256, learning_rate=1e-3, width=32, epochs=5)
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True, help="folder with stage1_train, train.txt and val.txt")
    add("--select", action="store_true", help=f"score {HELD_OUT} training images, which are not trained with")
    networks.add_argument(parser)
    add("--weights", metavar="imagenet|none", help="features of the backbone")
    recipe.add_backbone_rate(parser)
    add("--norm", choices=("batch", "frozen_batch", "group"), default="batch", help="(default: %(default)s)")
    add("--scale", type=float, default=2.0, help="enlargement of the images (default: %(default)s)")
    add(
        "--stretch",
        type=float,
        nargs="*",
        default=[1.0, 99.8],
        help="percentiles of the grey levels that become 0 and 255; none for images as they are (default: %(default)s)",
    )
    add("--mask-depth", type=recipe.positive, default=2, help="convolutions of the mask head (default: %(default)s)")
    add("--nms-iou", type=float, default=0.5, help="overlap of detections that are kept (default: %(default)s)")
    add("--tiles", type=recipe.positive, nargs=2, default=[1024, 1024], help="size of tiles (default: %(default)s)")
    result = parser.parse_args(arguments)
    result.stretch = result.stretch or None
    return result


if __name__ == "__main__":
    recipe.main(run, parse())
