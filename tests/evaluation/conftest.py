"""Detections and ground truth made of rectangles."""

import numpy as np
import pytest

from keras_maskrcnn.evaluation import Collected, encode_mask

SIDE = 100


def region(box):
    """Box and mask of a rectangle x1, y1, x2, y2 in an image of 100 x 100 pixels, as in a COCO file."""
    x1, y1, x2, y2 = box
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": encode_mask(mask)}


@pytest.fixture
def collected():
    """Makes `Collected` of images, each (objects, detections).

    An object is (label, box) or (label, box, "crowd"), a detection (label, box, score).
    """

    def make(*images, class_names=("cat", "dog")):
        categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
        truth = {"images": [], "annotations": [], "categories": categories}
        found = []
        for image_id, (objects, detections) in enumerate(images, start=1):
            truth["images"].append({"id": image_id, "height": SIDE, "width": SIDE, "file_name": f"{image_id}.png"})
            for label, box, *crowd in objects:
                row = {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": label, **region(box)}
                area = (box[2] - box[0]) * (box[3] - box[1])
                truth["annotations"].append({**row, "area": area, "iscrowd": len(crowd)})
            for label, box, score in detections:
                found.append({"image_id": image_id, "category_id": label, "score": score, **region(box)})
        return Collected(truth, found)

    return make


def rectangle(rng):
    x, y = rng.integers(0, 70, 2)
    width, height = rng.integers(6, 30, 2)
    return int(x), int(y), int(x + width), int(y + height)


@pytest.fixture
def random_images():
    """Makes images for `collected` with every kind of error, and crowds if wanted."""

    def make(seed, count=6, classes=2, crowds=False):
        rng, images = np.random.default_rng(seed), []
        for _ in range(count):
            objects, detections = [], []
            for _ in range(rng.integers(0, 5)):
                label, box = int(rng.integers(1, classes + 1)), rectangle(rng)
                objects.append((label, box, "crowd") if crowds and rng.random() < 0.3 else (label, box))
                for _ in range(rng.choice([0, 1, 1, 2])):
                    shift = rng.integers(-5, 6, 2)
                    moved = np.clip(np.array(box) + np.tile(shift, 2), 0, SIDE)
                    other = int(rng.integers(1, classes + 1))
                    label_found = label if rng.random() < 0.7 else other
                    detections.append((label_found, tuple(map(int, moved)), round(float(rng.uniform(0.1, 1)), 1)))
            if rng.random() < 0.4:
                detections.append((int(rng.integers(1, classes + 1)), rectangle(rng), float(rng.random())))
            images.append((objects, detections))
        return images

    return make
