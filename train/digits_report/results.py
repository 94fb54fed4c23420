"""Step 5: the two networks on the same images; and the text of the page."""

import pathlib

import numpy as np
from PIL import Image

from cis680_report.page import Table
from keras_maskrcnn import visualize
from keras_maskrcnn.drawing.sheets import titled

REPORT = (pathlib.Path(__file__).parent / "report.md").read_text(encoding="utf-8")
SHOWN = 4  # images


def introduction(work):
    """What the images are."""
    height, width = work.train.image_size
    source = work.arguments.digits.name if work.arguments.digits else "scikit-learn's digits"
    return (
        f"Images of {height} × {width} pixels, composed from {source}: {len(work.train.singles):,} single digits for "
        f"training and {len(work.val.singles):,} others for validation, up to {work.train.digits[1]} in each image."
    )


def fill(report, work, folder, models, summaries):
    """Fills step 5, and saves its picture in a folder.

    Args:
        report: `cis680_report.page.Report`.
        work: `networks.Work`.
        folder: folder of the picture.
        models: dict of the trained networks "fcn" and "mask_rcnn".
        summaries: dict of the summaries of their runs.
    """
    fcn, mask_rcnn = summaries["fcn"], summaries["mask_rcnn"]
    names = ("parameters", "steps", "fit_seconds", "images_per_second")
    scores = (
        ("FCN", fcn, "mean IoU", "mean_IoU"),
        ("FCN", fcn, "pixel accuracy", "pixel_accuracy"),
        ("FCN", fcn, "boundary F", "boundary_F"),
        ("Mask R-CNN", mask_rcnn, "AP of boxes", "bbox_AP"),
        ("Mask R-CNN", mask_rcnn, "AP of masks", "segm_AP"),
        ("Mask R-CNN", mask_rcnn, "AP of masks at IoU 0.5", "segm_AP50"),
    )
    drawn = picture(models, [work.val[index] for index in range(min(SHOWN, len(work.val)))], work.val.class_names)
    Image.fromarray(drawn).save(folder / "results.png")
    report.step(
        5,
        images=len(work.val),
        scores=Table(["network", "score", "value"], [[name, title, run[key]] for name, run, title, key in scores]),
        runs=Table(
            ["network", *(name.replace("_", " ") for name in names)],
            [[name, *(run[key] for key in names)] for name, run in (("FCN", fcn), ("Mask R-CNN", mask_rcnn))],
        ),
        classes=Table(["class", "IoU (FCN)", "AP of masks (Mask R-CNN)"], [*_classes(fcn, mask_rcnn)]),
        pictures=drawn,
    )


def _classes(fcn, mask_rcnn):
    for name, figures in fcn["per_class"].items():
        yield [name, figures["IoU"], mask_rcnn["per_class"].get(name, {}).get("segm_AP")]


def picture(models, samples, class_names):
    """Images with their ground truth, the map of the FCN and the objects of Mask R-CNN."""
    panels = []
    for sample in samples:
        image, scale = sample["image"], visualize.fitting_scale(sample["image"])
        drawn = {
            "ground truth": visualize.draw(image, sample, class_names, colour_by="class", scale=scale),
            "FCN": visualize.draw_semantic(image, models["fcn"].segment(image), class_names, scale=scale),
            "Mask R-CNN": visualize.draw(
                image, models["mask_rcnn"].detect(image), class_names, colour_by="class", scale=scale
            ),
        }
        image = image.repeat(scale, axis=0).repeat(scale, axis=1)
        panels += [titled(np.asarray(panel), name, 20) for name, panel in {"image": image, **drawn}.items()]
    return visualize.grid(panels, columns=4)
