"""The HTML page of `inspect`: verdict, numbers, findings, plots, the worst images and random ones."""

import collections
import html
import importlib
import pathlib

import numpy as np

from keras_maskrcnn.cli.inspect_anchors import THRESHOLDS
from keras_maskrcnn.data.doctor.statistics import objects
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.drawing import page

SIDE = 480  # pixels, longer side of an image on a contact sheet
COLUMNS = 4
EXAMPLES = 8  # findings of a kind
LIMITS = (
    "What cannot be seen in the files: objects that nobody annotated, wrong classes, masks that are drawn carelessly "
    "but consistently, and x and y that are swapped in square images. Look at the drawn images for these. A kind of "
    "finding lists its first cases only; its count is complete."
)


def write_page(path, report, anchors, count=12):
    """Writes the page; a missing folder is created.

    Args:
        path: Path of the file.
        report: `data.doctor.survey.Report`.
        anchors: `inspect_anchors.Fit`.
        count: number of the worst images and of the random ones; fewer if there are not so many.
    """
    importlib.import_module("keras_maskrcnn.quiet")  # drawing imports Keras
    parts = [
        f"<p><b>Verdict: {html.escape(report.verdict)}</b></p>",
        page.table(_numbers(report), ["", *(part.name for part in report.parts)]),
        *(f"<p>{html.escape(line)}</p>" for line in anchors.lines),
        "<h2>Findings</h2>",
        page.table(_findings(report), ["level", "count", "what", "what to do"]),
        f"<p>{LIMITS}</p>",
        "<h2>Distributions</h2>",
        *map(page.plot, _plots(report, anchors)),
        *_sheet("Images with the heaviest findings", report, report.worst(count)),
        *_sheet("Random images", report, _random(report, count)),
    ]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.document("Inspection of annotated images", parts), encoding="utf-8")


def _numbers(report):
    """Rows of the table of numbers, a column for each set."""
    statistics = report.statistics.values()

    def spread(values):
        return "" if values is None else f"{values['min']:.3g} / {values['median']:.3g} / {values['max']:.3g}"

    rows = [
        ("images", [numbers["images"] for numbers in statistics]),
        ("unreadable", [numbers["unreadable"] for numbers in statistics]),
        ("objects", [numbers["objects"] for numbers in statistics]),
        ("crowd regions", [numbers["crowds"] for numbers in statistics]),
        ("images without an object", [numbers["without_objects"] for numbers in statistics]),
        ("objects per image: min / median / max", [spread(numbers["objects_per_image"]) for numbers in statistics]),
        ("classes", [len(numbers["classes"]) for numbers in statistics]),
        ("image sizes", [len(numbers["image_sizes"]) for numbers in statistics]),
        ("smallest side of an image", [numbers["smallest_image_side"] for numbers in statistics]),
        ("root of the mask's area, pixels", [spread(numbers["object_side"]) for numbers in statistics]),
        ("smallest mask, pixels", [numbers["smallest_mask"] for numbers in statistics]),
        ("height / width of boxes", [spread(numbers["aspect_ratio"]) for numbers in statistics]),
        ("objects with a side under 16 pixels", [numbers["under_16_pixels"] for numbers in statistics]),
    ]
    return [(name, *("" if value is None else value for value in values)) for name, values in rows]


def _findings(report):
    for kind in report.findings.kinds():
        found = report.findings.of(kind.code)
        lines = (f"{f.part}: {f.source}: {f.detail}" for f in found[:EXAMPLES])
        examples = "".join(f"<br>{html.escape(line)}" for line in lines)
        count = report.findings.count(kind.code)
        examples += f"<br>… and {count - EXAMPLES} more" if count > EXAMPLES else ""
        what = f"<details><summary>{html.escape(kind.title)} [{kind.code}]</summary>{examples}</details>"
        yield page.raw(f'<span class="{kind.level}">{kind.level}</span>'), count, page.raw(what), kind.advice


def _plots(report, anchors):
    """Figures of the numbers of all sets together; of the classes and anchors of the first."""
    from keras_maskrcnn import plots

    areas = np.concatenate([objects(part)[1] for part in report.parts] or [[]])
    if len(areas):
        boxes = np.concatenate([objects(part)[0] for part in report.parts])
        sides = np.sqrt(areas)
        ratios = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
        counts = np.array([(~row.crowd).sum() for part in report.parts for row in part.rows])
        panels = [(sides, "root of the mask's area, pixels", True), (ratios, "height / width of boxes", True)]
        panels.append((counts, "objects per image", False))
        yield plots.histograms([(v, plots.bin_edges(v, 30, logarithmic=log), name) for v, name, log in panels])
    for part in report.parts:
        classes = report.statistics[part.name]["classes"]
        if len(classes) > 1:
            yield plots.ranking(classes, f"objects of each class, {part.name}")
    if anchors.overlaps:
        name, of = next(iter(anchors.overlaps.items()))
        yield plots.reached(
            {f"{kind} anchors, {name}": iou for kind, iou in of.items()}, THRESHOLDS, "IoU of an object's best anchor"
        )


def _random(report, count):
    """Readable images of all sets, chosen with a fixed seed."""
    places = [(part, row.position) for part in report.parts for row in part.rows]
    chosen = np.random.default_rng(0).permutation(len(places))[:count]
    return [places[index] for index in sorted(chosen)]


def _sheet(title, report, places):
    """A section with one drawing of images and what was found in each; nothing without images."""
    from keras_maskrcnn.drawing.sheets import grid, titled

    found = _by_image(report)
    drawn, rows = [], []
    for part, position in places:
        try:
            sample = part.dataset[position]
        except DataError:  # among the findings
            continue
        drawn.append(titled(_drawn(sample, part.dataset.class_names), f"{len(drawn) + 1}"))
        lines = found.get((part.name, sample["source"]), [])
        text = "<br>".join(map(html.escape, lines[:EXAMPLES]))
        rows.append((str(len(drawn)), part.name, sample["source"], page.raw(text)))
    if drawn:
        yield f"<h2>{html.escape(title)}</h2>"
        yield f"<figure>{page.picture(grid(drawn, COLUMNS))}</figure>"
        yield page.table(rows, ["", "set", "image", "findings"])


def _by_image(report):
    """Lines on each image: dict from (name of the set, source)."""
    lines = collections.defaultdict(list)
    for kind in report.findings.kinds():
        for finding in report.findings.of(kind.code):
            lines[finding.part, finding.source].append(f"{kind.code}: {finding.detail}")
    return lines


def _drawn(sample, class_names):
    """An image with its annotations, at most `SIDE` pixels long or wide."""
    from PIL import Image

    from keras_maskrcnn import visualize

    pixels = visualize.draw(sample["image"], sample, class_names, scale=visualize.fitting_scale(sample["image"]))
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)
