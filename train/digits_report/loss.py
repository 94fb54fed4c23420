"""Step 3: the softmax loss of pixels, where it comes from in an image, and pixels that are ignored."""

import csv

import numpy as np
from keras import ops
from PIL import Image

from cis680_report.page import Table
from digits_report import networks
from keras_maskrcnn import plots, visualize
from keras_maskrcnn.data.sample import Same
from keras_maskrcnn.drawing.sheets import titled
from keras_maskrcnn.ops.losses import softmax_cross_entropy
from keras_maskrcnn.ops.maps import enlarge

MISSING = 0.5  # share of the digits without annotation
IGNORE = 255
REACH = 1  # pixels on both sides of a border of the map that belong to it


class Unannotated(Same):
    """A data set in whose maps some digits, chosen at random, have another label.

    Args:
        dataset: `data.Digits`.
        label: 0, as if they were background, or `IGNORE`.
    """

    def __init__(self, dataset, label):
        super().__init__(dataset)
        self.label = label

    def read(self, position):
        """Returns a sample of the original data set with its changed map."""
        sample = self.dataset[position]
        chosen = np.random.default_rng(position).random(len(sample["labels"])) < MISSING
        semantic = sample["semantic"].copy()
        semantic[sample["masks"][chosen].any(axis=0)] = self.label
        return {**sample, "semantic": semantic}


def pixel_losses(model, sample):
    """The loss of each pixel of an image that has the size of the model's canvas: float32 [H, W]."""
    image = sample["image"][None]
    logits = model({"images": image, "sizes": np.array([image.shape[1:3]], np.float32)})["semantic"]
    logits = enlarge(logits, image.shape[1] // logits.shape[1])
    labels = ops.convert_to_tensor(sample["semantic"][None], "int32")
    return ops.convert_to_numpy(softmax_cross_entropy(logits, labels))[0]


def borders(semantic, reach=REACH):
    """Pixels that are at most `reach` pixels from a pixel of another label in their row or column: bool [H, W]."""
    near = np.zeros(semantic.shape, bool)
    for axis in (0, 1):
        count = semantic.shape[axis]
        for step in range(1, reach + 1):
            one, other = (np.take(semantic, range(*ends), axis) for ends in ((0, count - step), (step, count)))
            places = np.moveaxis(near, axis, 0)
            unequal = np.moveaxis(one != other, axis, 0)
            places[:-step] |= unequal
            places[step:] |= unequal
    return near


def fill(report, work, folder, model, complete):
    """Fills step 3.

    Args:
        report: `cis680_report.page.Report`.
        work: `networks.Work`.
        folder: folder of the pictures.
        model: the trained FCN.
        complete: figures of a short training with all digits annotated.

    Returns:
        dict, the figures for JSON.
    """
    annotations = {"missing digits are background": 0, "missing digits are ignored": IGNORE}
    figures = {"all digits annotated": complete}
    for name, label in annotations.items():
        figures[name] = networks.short(work, Unannotated(work.train, label))[1]
        print(f"{name}: mean IoU {figures[name]['mean_IoU']:.3f}", flush=True)
    sample = work.val[0]
    losses, near = pixel_losses(model, sample), borders(sample["semantic"])
    drawn = picture(sample, losses)
    Image.fromarray(drawn).save(folder / "loss.png")
    sheet = plots.curves({"": {name: found["loss"] for name, found in figures.items()}}, "tenth of the steps", "loss")
    sheet.savefig(folder / "loss_curves.png", dpi=110)
    border = {
        "mean_loss": float(losses.mean()),
        "without_borders": float(losses[~near].mean()),
        "share_of_pixels": float(near.mean()),
        "share_of_loss": float(losses[near].sum() / max(losses.sum(), 1e-12)),
    }
    report.step(
        3,
        uniform=float(np.log(1 + work.val.num_classes)),
        missing=MISSING,
        border=border,
        map=drawn,
        curves=[sheet, plots.curves({"trained FCN": _history(work.output / "fcn" / "history.csv")}, ylabel="loss")],
        annotations=Table(
            ["training", "mean IoU", "boundary F"],
            [[name, found["mean_IoU"], found["boundary_F"]] for name, found in figures.items()],
        ),
    )
    return {**{name: figures[name] for name in annotations}, "border": border}


def picture(sample, losses):
    """An image, its map and the loss of each pixel, from dark (0) to light (the maximum)."""
    scale = visualize.fitting_scale(sample["image"])
    panels = {
        "image": sample["image"].repeat(scale, axis=0).repeat(scale, axis=1),
        "classes": visualize.draw_semantic(sample["image"], sample["semantic"], list("0123456789"), scale=scale),
        "loss": plots.shaded(losses).repeat(scale, axis=0).repeat(scale, axis=1),
    }
    return visualize.grid([titled(panel, name, 20) for name, panel in panels.items()], columns=3)


def _history(path):
    """Losses of the epochs of a run: dict of `loss` and `val_loss`."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in ("loss", "val_loss") if name in rows[0]}
