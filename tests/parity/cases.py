"""Inputs of both sides: photos of several sizes, and batches with ground truth. Needs NumPy and Pillow only."""

import os
import pathlib

import numpy as np
from generated import CLASSES, YOLACT
from PIL import Image

# Resize rules: torchvision's default, and a small one for the quick test.
FULL = {"shorter": 800, "longer": 1333}
SMALL = {"shorter": 256, "longer": 416}
SQUARE = 550  # pixels of the sides of YOLACT's input, to which photos are resized without keeping their ratio

# Numbers of proposals per level and per image in the training cases.
TRAINING_PRE_NMS, TRAINING_POST_NMS = 300, {"v1": 200, "keypoint": 40}  # the keypoint head is slow

# With these learning rates the losses decrease, and ten steps do not amplify rounding errors beyond the bars. YOLACT's
# semantic loss, a sum over 80 classes, has larger gradients than all others.
STEPS, MOMENTUM, DECAY = 10, 0.9, 1e-4
RATES = {"v1": 1e-4, "keypoint": 1e-4, **dict.fromkeys(YOLACT, 1e-5)}
YOLACT_SEED = 123  # with it no two anchors are equally good for an object


def photos_folder():
    """The folder of photos in the folder of the variable KMR_DATA."""
    folder = os.environ.get("KMR_DATA")
    if not folder:
        raise SystemExit("set KMR_DATA to the folder of real data sets (with photos/ in it)")
    return pathlib.Path(folder) / "photos"


def pictures(folder):
    """Photos in landscape, portrait and square format, and one so narrow that its longer side determines the scale.

    Args:
        folder: `pathlib.Path` with the photos.

    Returns:
        dict of uint8 `[H, W, 3]` by name.
    """
    names = {"astronaut": "png", "chelsea": "png", "coffee": "png", "rocket": "jpg"}
    found = {name: np.asarray(Image.open(folder / f"{name}.{kind}").convert("RGB")) for name, kind in names.items()}
    turned = np.ascontiguousarray(np.rot90(found["coffee"]))
    return {**found, "portrait": turned, "narrow": turned[:, 150:270].copy()}


def inputs(version, folder):
    """`pictures`, for YOLACT resized to its input: this package and the original project resample differently."""
    found = pictures(folder)
    if version not in YOLACT:
        return found
    side = (SQUARE, SQUARE)
    return {name: np.asarray(Image.fromarray(p).resize(side, Image.Resampling.BILINEAR)) for name, p in found.items()}


def training_batch(pictures, seed=7):
    """Ground truth for images of one size whose sides are multiples of 32: whole ellipses at seeded positions.

    Args:
        pictures: list of uint8 `[H, W, 3]`.
        seed: of the positions.

    Returns:
        dict of `images` uint8 `[B, H, W, 3]`, and for each image `boxes` float32 `[N, 4]`, `labels` int64 `[N]` of
        1…90 and `masks` uint8 `[N, H, W]` of 0 and 1, as lists; image i has 4 - i instances.
    """
    rng = np.random.RandomState(seed)
    height, width = pictures[0].shape[:2]
    truth = {"boxes": [], "labels": [], "masks": []}
    for i in range(len(pictures)):
        masks = np.stack([_ellipse(rng, height, width) for _ in range(4 - i)])
        truth["masks"].append(masks)
        truth["boxes"].append(np.stack([_bounding_box(mask) for mask in masks]))
        truth["labels"].append(rng.randint(1, 91, len(masks)).astype("int64"))
    return {"images": np.stack(pictures), **truth}


def keypoint_batch(pictures, scene=0):
    """`training_batch` with persons only, and in the place of masks `keypoints` float32 `[N, 17, 3]` for each image.

    They are around the boxes, some outside, some hidden and some not labelled.
    """
    seed = 7 + 100 * scene
    batch, rng = training_batch(pictures, seed), np.random.RandomState(seed + 1)
    del batch["masks"]
    points = []
    for boxes in batch["boxes"]:
        share = rng.uniform(-0.1, 1.1, (len(boxes), 17, 2))
        places = boxes[:, None, :2] + share * (boxes[:, None, 2:] - boxes[:, None, :2])
        points.append(np.concatenate([places, rng.randint(0, 3, (len(boxes), 17, 1))], axis=2).astype("float32"))
    labels = [np.ones_like(labels) for labels in batch["labels"]]
    return {**batch, "labels": labels, "keypoints": points}


def yolact_batch(pictures, version):
    """`training_batch` with the labels of fewer classes, a crowd region, and boxes between whole pixels.

    Of whole pixels, many anchors have an IoU of exactly a threshold, or the same one, and rounding would decide.
    """
    batch, rng = training_batch(pictures, YOLACT_SEED), np.random.RandomState(YOLACT_SEED)
    boxes = [(boxes + rng.uniform(-0.4, 0.4, boxes.shape)).astype("float32") for boxes in batch["boxes"]]
    crowd = [np.zeros(len(labels), bool) for labels in batch["labels"]]
    crowd[0][-1] = True
    return {
        **batch,
        "boxes": boxes,
        "labels": [(labels - 1) % (CLASSES[version] - 1) + 1 for labels in batch["labels"]],
        "crowd": crowd,
    }


def training_cases(pictures, keypoint_scene=0):
    """The batch of each version that is trained; `keypoint_scene` is the `scene` of `keypoint_batch`."""
    yolact = {version: yolact_batch(pictures, version) for version in YOLACT}
    return {"v1": training_batch(pictures), "keypoint": keypoint_batch(pictures, keypoint_scene), **yolact}


def training_pictures(folder):
    """Two images of 320×416 for the live comparison."""
    found = pictures(folder)
    return [found["astronaut"][:320, 50:466].copy(), found["coffee"][60:380, 120:536].copy()]


def _ellipse(rng, height, width):
    """Mask uint8 `[height, width]` of an ellipse inside the image."""
    radii = rng.uniform(0.08, 0.3, 2) * (height, width)
    centre = radii + rng.uniform(size=2) * ((height, width) - 2 * radii)
    y, x = np.mgrid[:height, :width] + 0.5
    return (((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1).astype("uint8")


def _bounding_box(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], "float32")
