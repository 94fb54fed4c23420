"""What a recipe leaves: the model, its export, curves, pictures, and the lines that name them."""

import re
from shlex import quote

import numpy as np
from PIL import Image

from keras_maskrcnn import visualize
from keras_maskrcnn.data.cache import read_or_skip


def save(model, output, export):
    """Saves the model and the curves, and exports it.

    Args:
        model: the trained model.
        output: folder of the run, which has `history.csv`.
        export: whether to write a SavedModel.

    Returns:
        dict of paths by their names in the summary; None for an export left out.
    """
    paths = {
        "keras_file": output / "model.keras",
        "saved_model": output / "saved_model" if export else None,
        "tensorboard": output / "logs",
        "pictures": output / "pictures",
        "curves": output / "curves.png",
    }
    model.save(paths["keras_file"])
    visualize.curves(output / "history.csv", paths["curves"])
    if export:
        model.export(paths["saved_model"])
    return paths


def draw(served, val_data, folder, count=12):
    """Draws ground truth next to the detections of `served` in `count` images, spread over the validation set."""
    folder.mkdir(exist_ok=True)
    for i in np.unique(np.linspace(0, len(val_data) - 1, count).astype(int)):
        sample = read_or_skip(val_data, int(i))
        if sample is None:
            continue
        pair = visualize.side_by_side(sample["image"], sample, served.detect(sample["image"]), val_data.class_names)
        Image.fromarray(pair).save(folder / image_name(i, sample["image_id"]))


def image_name(position, image_id):
    """Name of the file of a drawn image; ids of COCO files may be any text, such as a path."""
    name = re.sub(r"[^\w.-]", "_", str(image_id))[-100:]
    return f"{position:05d}_{name}.png"


def report(summary, output):
    """The lines about a finished run that a person reads, as one text."""
    model, best = summary["keras_file"], summary["best"]
    export = (
        f"KERAS_BACKEND=tensorflow python -m keras_maskrcnn export --model {model} --output {output / 'saved_model'}"
    )
    why = "--overfit checks a model, and exports none" if summary["overfit"] else f"export needs TensorFlow. {export}"
    lines = [
        f"{summary['images_per_second']} images/s, {summary['training_seconds']:.0f} s of training, "
        f"{summary['scoring_seconds']:.0f} s of scoring",
        f"figures      {output / 'summary.json'}",
        f"curves       {summary['curves']}, or: tensorboard --logdir {summary['tensorboard']}",
        f"images       {summary['pictures']} (ground truth next to detections)",
        f"model        {model}",
        f"SavedModel   {summary['saved_model'] or 'left out: ' + why}",
    ]
    if best:
        of = f"epoch {best['epoch']}, {best['score'].replace('_', ' ')} {best['figure']:.3f}"
        lines.insert(5, f"best         {best['keras_file']} ({of})")
    if not summary["overfit"]:
        lines.append(
            f"next         python -m keras_maskrcnn predict --model {quote(str(model))} "
            f"--output {quote(str(output / 'predictions'))} YOUR_IMAGES"
        )
    return "\n" + "\n".join(lines)
