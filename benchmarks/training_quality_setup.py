"""Settings of both sides of `training_quality.py`: sizes of the model, schedule, and the crops on disk.

Reading needs NumPy only, because the Python of the other side may not have this package.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np

CANVAS = 256  # side of a training crop, pixels
STRIDE = 32  # images are padded to multiples of it
BATCH = 4

# The model. All other options are defaults, which are the same on both sides.
WIDTH = 32  # ResNet-18 with half the channels: 32, 64, 128, 256
GROUPS = 32
FPN_CHANNELS = 64
ANCHORS = (10, 20, 40, 80, 160)  # P2 … P6, pixels; corners rounded, as torchvision does
BOX_WIDTH = 256
MASK_WIDTH, MASK_DEPTH = 64, 2
PRE_NMS, POST_NMS = 1000, 500
RPN_SAMPLES, BOX_SAMPLES = 256, 64
SCORE_THRESHOLD, MAX_DETECTIONS = 0.05, 200

# AdamW: warm-up, a constant part, half a cosine; biases and norms are not decayed.
LEARNING_RATE, FINAL_FACTOR = 1e-3, 0.01
WARMUP, WARMUP_START, HOLD = 100, 0.001, 0.3  # steps, factor at step 0, share of the steps
WEIGHT_DECAY, EPSILON, CLIP = 0.05, 1e-7, 5.0

MAX_INSTANCES = 80  # per crop; of more (in 2 % of the crops) both sides keep the largest
REPORT_EVERY = 400  # images


def learning_rate(step, steps):
    """The learning rate of a step (from 0) of `steps` steps, equal to `training.schedules.warmup_cosine`."""
    hold = int(HOLD * steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(max((step - hold) / (steps - hold), 0), 1)))
    warm = WARMUP_START + (1 - WARMUP_START) * min(step / WARMUP, 1)
    return LEARNING_RATE * warm * (FINAL_FACTOR + (1 - FINAL_FACTOR) * cosine)


def write_crops(dataset, folder, images, seed):
    """Writes the training crops of a seed in the order in which both sides read them.

    Args:
        dataset: a `data.Dataset` of one class.
        folder: destination; complete if it contains `offsets.npy`, which is written last.
        images: number of crops.
        seed: seed of order and augmentation.
    """
    from keras_maskrcnn import data

    folder.mkdir(parents=True, exist_ok=True)
    augment = data.Augment(flip=0.5, vertical_flip=0.5, transpose=0.5, scale=(0.7, 1.5), crop=(CANVAS, CANVAS))
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (images, CANVAS, CANVAS, 3))
    boxes, counts = [], []
    with open(folder / "masks.bin", "wb") as masks:
        for place, position in enumerate(_positions(len(dataset), images, seed)):
            sample = augment(dataset[position], np.random.default_rng([seed, place]))
            kept = _largest(sample["boxes"])
            pixels[place] = sample["image"]
            np.packbits(sample["masks"][kept], axis=-1).tofile(masks)
            boxes.append(sample["boxes"][kept])
            counts.append(len(kept))
    pixels.flush()
    np.save(folder / "boxes.npy", np.concatenate(boxes))
    np.save(folder / "offsets.npy", np.cumsum([0, *counts]))


def _positions(length, images, seed):
    """Positions of samples, in a new random order per pass."""
    orders = (np.random.default_rng([seed, epoch]).permutation(length) for epoch in range(-(-images // length)))
    return [int(position) for order in orders for position in order][:images]


def _largest(boxes):
    """Rows of the `MAX_INSTANCES` largest boxes, in ascending order."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.sort(np.argsort(-area, kind="stable")[:MAX_INSTANCES])


class Crops:
    """The crops of a folder of `write_crops`: a sequence of (image, boxes, masks).

    image uint8 [H, W, 3]; boxes float32 [n, 4], x1, y1, x2, y2 in pixels; masks bool [n, H, W]. All are nuclei.
    """

    def __init__(self, folder):
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.boxes = np.load(folder / "boxes.npy")
        self.offsets = np.load(folder / "offsets.npy")
        shape = (len(self.boxes), CANVAS, CANVAS // 8)
        self.masks = np.memmap(folder / "masks.bin", np.uint8, "r", shape=shape)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        rows = slice(self.offsets[place], self.offsets[place + 1])
        masks = np.unpackbits(self.masks[rows], axis=-1).view(bool)
        return np.array(self.images[place]), self.boxes[rows], masks


def write_pictures(dataset, folder):
    """Writes the images of a data set at their own size: `0000.npy` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, sample in enumerate(dataset):
        np.save(folder / f"{place:04d}.npy", sample["image"])


def read_pictures(folder):
    """Generator of the images of `write_pictures`: uint8 [H, W, 3]."""
    return (np.load(path) for path in sorted(folder.glob("*.npy")))


def write_found(found, path):
    """Writes detections: per image (boxes [n, 4], scores [n], masks bool [n, H, W])."""
    arrays = {}
    for place, (boxes, scores, masks) in enumerate(found):
        arrays[f"{place}_boxes"], arrays[f"{place}_scores"] = boxes, scores
        arrays[f"{place}_masks"], arrays[f"{place}_width"] = np.packbits(masks, axis=-1), masks.shape[-1]
    np.savez(path, **arrays)


def read_found(path):
    """Generator of the detections of `write_found`, as dicts like those of `MaskRCNN.detect`."""
    with np.load(path) as arrays:
        for place in range(len(arrays) // 4):
            boxes, scores, masks, width = (arrays[f"{place}_{name}"] for name in ("boxes", "scores", "masks", "width"))
            masks = np.unpackbits(masks, axis=-1, count=int(width)).view(bool)
            yield {"boxes": boxes, "scores": scores, "labels": np.ones(len(scores), np.int32), "masks": masks}


class Progress:
    """Prints losses and speed periodically, and keeps them for the record.

    Args:
        name: name of the run.
        images: total number of images.
    """

    def __init__(self, name, images):
        self.name, self.images, self.history = name, images, []
        self.start = self._since = time.perf_counter()
        self.seconds, self._sums, self._images_since = 0.0, {}, 0

    def step(self, seen, losses):
        """Adds the losses (dict of float) of one step, after which `seen` images are processed."""
        self._sums = {name: self._sums.get(name, 0.0) + float(value) for name, value in losses.items()}
        now, count = time.perf_counter(), seen - self._images_since
        self.seconds = now - self.start
        if seen % REPORT_EVERY and seen < self.images:
            return
        means = {name: round(value * BATCH / count, 4) for name, value in self._sums.items()}
        speed = count / (now - self._since)
        self.history.append({"images": seen, "seconds": round(self.seconds, 1), **means})
        told = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"{self.name}  {seen:6d}/{self.images} images  {speed:5.2f} images/s  {told}", flush=True)
        self._sums, self._since, self._images_since = {}, now, seen

    def record(self, **more):
        """The content of the worker's JSON file: seconds up to the end of the last step, and the history."""
        return {"seconds": round(self.seconds, 1), "history": self.history, **more}


def worker(run, description):
    """The program of a side: trains, detects, and writes `OUTPUT.npz` and `OUTPUT.json`.

    Args:
        run: function from the arguments to (record, found): a dict of `Progress.record`, and detections for
            `write_found`.
        description: for `--help`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=pathlib.Path, required=True, help="folder of `write_crops`")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder of `write_pictures`")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="path of the output files without suffix")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and samplers")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    arguments = parser.parse_args()
    record, found = run(arguments)
    write_found(found, arguments.output.with_suffix(".npz"))
    arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
