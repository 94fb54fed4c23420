"""From COCO's JPEG files to normalised batches at 800 pixels: this package against torchvision's DataLoader.

    python benchmarks/data_pipeline.py --data FOLDER --peer-python PATH_OF_A_PYTHON_WITH_TORCHVISION

FOLDER contains `annotations/instances_SPLIT.json` and the images in `SPLIT/`, as COCO's downloads do. Without
`--peer-python` only this package is timed.

The work is the same: every image of the split once, crowds included; decoded, flipped with probability 0.5, resized to
a shorter side of 800 pixels (longer side at most 1344); wide and tall images in separate batches of two, so that there
is little padding; two workers. Both sides end with float32 batches for the backbone, boxes, and the masks that each
model is trained on: cropped to their boxes in this package, whole in torchvision.

torchvision's side follows its reference scripts: images by Pillow, masks by pycocotools, conversion and flip in the
workers; normalising, resizing and batching in `GeneralizedRCNNTransform` in the main process.
"""

import os
import pathlib
import types

import pairs

SHORTER, LONGER = 800, 1344
BATCH, WORKERS = 2, 2
CASE = "COCO pictures to batches of 2 at 800 px, 2 workers"


def by_shape(records, pictures):
    """Positions of the first `pictures` records in two lists: wide images, tall images."""
    chosen = range(min(pictures, len(records)))
    tall = [records[position]["height"] > records[position]["width"] for position in chosen]
    return [[position for position in chosen if tall[position] == wanted] for wanted in (False, True)]


def facts(pictures, instances, pixels):
    """Facts about an epoch; the pixels are those of the resized images without padding."""
    return {"pictures": int(pictures), "instances": int(instances), "megapixels": round(float(pixels) / 1e6, 1)}


def check(ours, peer):
    """None, or a line about different work of the sides; rounding may change sizes by a pixel."""
    for name in ("pictures", "instances"):
        if ours[name] != peer[name]:
            return f"ours made {ours[name]} {name}, the peer {peer[name]}"
    if abs(ours["megapixels"] - peer["megapixels"]) > 0.01 * peer["megapixels"]:
        return f"ours made {ours['megapixels']} megapixels, the peer {peer['megapixels']}"
    return None


# Ours -------------------------------------------------------------------------------------------------------------


def ours(folder, split, pictures):
    """An epoch of `data.batches`, each batch normalised as in the model."""
    import tensorflow as tf

    from keras_maskrcnn import MaskRCNN, data
    from keras_maskrcnn.models.images import IMAGENET_MEAN, IMAGENET_STD

    dataset = data.Coco.from_folder(folder, split)
    options = dict(batch_size=BATCH, augment="flip", shuffle=False, drop_remainder=False, workers=WORKERS)
    canvases = (SHORTER, LONGER), (LONGER, SHORTER)
    pipelines = [
        data.batches(data.Subset(dataset, positions), canvas, **options)
        for positions, canvas in zip(by_shape(dataset.images, pictures), canvases, strict=True)
        if positions
    ]
    scale = types.SimpleNamespace(pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD, image_type=data.ImageType())
    normalise = tf.function(lambda images, sizes: MaskRCNN.normalise(scale, images, sizes), reduce_retracing=True)

    def epoch():
        count, instances, pixels = 0, 0, 0
        for pipeline in pipelines:
            for x, y in pipeline:
                count += len(normalise(x["images"], x["sizes"]))
                instances += y["valid"].numpy().sum()
                pixels += x["sizes"].numpy().prod(axis=1).sum()
        return facts(count, instances, pixels)

    return epoch, 1


# torchvision ------------------------------------------------------------------------------------------------------


def peer(folder, split, pictures):
    """An epoch of torchvision's loader and transform."""
    import torch
    from torchvision.datasets import CocoDetection
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    dataset = CocoDetection(folder / split, _annotations(folder, split), transforms=_tensors)
    records = dataset.coco.loadImgs(dataset.ids)
    batches = [
        positions[start : start + BATCH]
        for positions in by_shape(records, pictures)
        for start in range(0, len(positions), BATCH)
    ]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, num_workers=WORKERS, collate_fn=_side_by_side, persistent_workers=True
    )
    transform = GeneralizedRCNNTransform(SHORTER, LONGER, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def epoch():
        count, instances, pixels = 0, 0, 0
        for images, targets in loader:
            images, targets = transform(images, targets)
            count += len(images.tensors)
            instances += sum(len(target["masks"]) for target in targets)
            pixels += sum(height * width for height, width in images.image_sizes)
        return facts(count, instances, pixels)

    return epoch, 1


def _side_by_side(samples):
    """Images and targets of a batch as two tuples."""
    return tuple(zip(*samples, strict=True))


def _tensors(picture, annotations):
    """A PIL image and its COCO annotations as inputs of torchvision's detectors, randomly flipped."""
    import torch
    from torchvision.transforms import functional

    width, height = picture.size
    annotations = [a for a in annotations if a["bbox"][2] > 0 and a["bbox"][3] > 0]
    boxes = torch.as_tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    masks = _masks(annotations, height, width)
    if torch.rand(1) < 0.5:
        picture, masks = functional.hflip(picture), masks.flip(-1)
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    labels = torch.as_tensor([a["category_id"] for a in annotations], dtype=torch.int64)
    image = functional.convert_image_dtype(functional.pil_to_tensor(picture), torch.float32)
    return image, {"boxes": boxes, "labels": labels, "masks": masks}


def _masks(annotations, height, width):
    """uint8 [n, height, width] of polygons and run lengths."""
    import torch
    from pycocotools import mask as run_length

    def encoded(segmentation):
        runs = run_length.frPyObjects(segmentation, height, width)
        return run_length.merge(runs) if isinstance(segmentation, list) else runs

    if not annotations:
        return torch.zeros((0, height, width), dtype=torch.uint8)
    decoded = run_length.decode([encoded(a["segmentation"]) for a in annotations])
    return torch.from_numpy(decoded).permute(2, 0, 1).contiguous()


# ------------------------------------------------------------------------------------------------------------------


def _annotations(folder, split):
    return folder / "annotations" / f"instances_{split}.json"


def main():
    """Parent: starts the workers and prints the table. Worker: serves the case of its side."""
    parser = pairs.arguments(__doc__, rounds=5)
    known = os.environ.get("KMR_DATA")
    default = pathlib.Path(known) / "coco_tiny" if known else None
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=default, help="folder in COCO's layout (default: $KMR_DATA/coco_tiny)")
    add("--split", default="train", help="split of the data set (default: %(default)s)")
    add(
        "--pictures",
        type=pairs.positive,
        default=200,
        help="number of images, the first of the split (default: %(default)s)",
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER is missing, and KMR_DATA is not set")
    if not _annotations(options.data, options.split).is_file():
        parser.error(f"{_annotations(options.data, options.split)}: no such annotation file")
    if options.worker is None:
        words = ["--data", options.data, "--split", options.split, "--pictures", options.pictures]
        rows = pairs.compare(__file__, options, [CASE], check=check, words=words, unit="s")
        print(*(line for row in rows for line in per_image(row)), sep="\n")
        return
    side = ours if options.worker == "ours" else peer
    pairs.serve(lambda _: side(options.data, options.split, options.pictures))


def per_image(row):
    """Lines with the median time per image and the images per second, one per side."""
    for side in ("ours", "peer"):
        if row[side]:
            seconds, pictures = row[side]["median"], row["facts"][side]["pictures"]
            yield f"{side}: {seconds / pictures * 1e3:.1f} ms per image, {pictures / seconds:.1f} images/s"


if __name__ == "__main__":
    main()
