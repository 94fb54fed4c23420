"""Draws what augmentations make of generated shapes: the contact sheets of docs/fine_tuning.md.

python benchmarks/augmentations.py --output docs/images
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from keras_maskrcnn import data, visualize
from keras_maskrcnn.data.augment import PRESETS
from keras_maskrcnn.drawing.sheets import grid, titled

CANVAS, SIDE = (192, 192), 192


def sheet(name, dataset, rows=2, columns=4, seed=1):
    """The first samples of a data set, one per row, each followed by what an augmentation makes of it."""
    batches = data.batches(
        dataset, CANVAS, rows, mask_size=56, augment=name, shuffle=False, seed=seed, repeat=True, backend="numpy"
    )
    panels = [[titled(_drawn(dataset[row], dataset), "image" if row == 0 else "")] for row in range(rows)]
    for column in range(columns):
        x, y = batches[column * len(dataset) // rows]
        for row, panel in enumerate(panels):
            panel.append(titled(_drawn(_sample(x, y, row), dataset), name if row == 0 and column == 0 else ""))
    return grid([part for panel in panels for part in panel], columns=columns + 1, gap=4)


def _sample(x, y, row):
    """A row of a batch as a sample."""
    valid = y["valid"][row]
    boxes = y["boxes"][row][valid]
    masks = data.paste_masks(y["masks"][row][valid], boxes, CANVAS)
    return {"image": x["images"][row], "boxes": boxes, "masks": masks, "labels": y["labels"][row][valid]}


def _drawn(sample, dataset):
    return visualize.draw(sample["image"], sample, dataset.class_names, colour_by="class", labels=False, line_width=1)


def main():
    """Writes one picture for each augmentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the pictures")
    parser.add_argument("--augment", nargs="+", default=["lsj", "copy_paste"], choices=tuple(PRESETS))
    options = parser.parse_args()
    dataset = data.Shapes(12, image_size=(144, SIDE), seed=4, objects=(2, 4), object_size=(30, 80))
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.augment:
        path = options.output / f"augment_{name}.jpg"
        Image.fromarray(np.asarray(sheet(name, dataset))).save(path, quality=60)
        print(path)


if __name__ == "__main__":
    main()
