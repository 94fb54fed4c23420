"""Train Mask R-CNN on a data set in COCO format.

    python train/coco.py --data COCO_FOLDER --output runs/coco
    python train/coco.py --data COCO_FOLDER --output runs/coco --minutes 30
    python train/coco.py --annotations train.json --images photos --val-annotations val.json --output runs/mine

COCO_FOLDER holds `annotations/instances_{train,val}.json` (or `…train2017.json`) and the images in `train`, `val`.
Without validation annotations every tenth image of the training set is held out for validation.
"""

import pathlib

import keras_maskrcnn
from keras_maskrcnn import data
from keras_maskrcnn.training import recipe


def build(arguments, num_classes):
    """ResNet-FPN with torchvision's sizes, trained from scratch."""
    return keras_maskrcnn.MaskRCNN(
        num_classes,
        backbone={"name": arguments.backbone, "norm": arguments.norm, "width": arguments.width},
        image_size=recipe.canvas(arguments),
        box_sampling={"size": 128},
        seed=arguments.seed,
        dtype=recipe.policy(arguments),
    )


def readers(arguments):
    """Readers of the training and the validation set."""
    if arguments.data:
        return tuple(
            data.Coco.from_folder(arguments.data, recipe.coco_split(arguments.data, part)) for part in ("train", "val")
        )
    if not (arguments.annotations and arguments.images):
        raise ValueError("give --data FOLDER, or --annotations FILE and --images FOLDER")
    train = data.Coco(arguments.annotations, arguments.images)
    if arguments.val_annotations:
        return train, data.Coco(arguments.val_annotations, arguments.val_images or arguments.images)
    held_out = range(0, len(train), 10)
    return data.Subset(train, [i for i in range(len(train)) if i % 10]), data.Subset(train, list(held_out))


def run(arguments):
    """Train, score, export."""
    recipe.begin(arguments)
    train, val = readers(arguments)
    print(f"{len(train)} training and {len(val)} validation images, {train.num_classes} classes")
    batches = recipe.batches(arguments, train, augment=arguments.augment)
    model = build(arguments, train.num_classes)
    model.compile(recipe.optimizer(arguments))
    recipe.train(arguments, model, train, val, batches)


if __name__ == "__main__":
    parser = recipe.parser(
        __doc__,
        steps=90000,
        batch_size=4,
        image_size=[512, 512],
        learning_rate=2e-4,
        width=64,
        epochs=12,
        backbone="resnet50",
    )
    parser.add_argument("--data", type=pathlib.Path, help="folder in COCO's layout")
    parser.add_argument("--annotations", type=pathlib.Path, help="COCO JSON of the training images")
    parser.add_argument("--images", type=pathlib.Path, help="folder of the training images")
    parser.add_argument("--val-annotations", type=pathlib.Path, help="COCO JSON of the validation images")
    parser.add_argument("--val-images", type=pathlib.Path, help="folder of the validation images (default: --images)")
    parser.add_argument("--norm", choices=("batch", "group", "frozen_batch"), default="group")
    parser.add_argument("--augment", choices=("flip", "standard", "strong"), default="standard")
    recipe.main(run, parser.parse_args())
