"""The report of `explain` as one HTML file without links to other files: plots, tables, and the worst images drawn."""

import html
import pathlib

from keras_maskrcnn.drawing import page as html_page
from keras_maskrcnn.evaluation import charts, tables
from keras_maskrcnn.evaluation.drawn import draw_errors
from keras_maskrcnn.evaluation.errors import image_errors
from keras_maskrcnn.evaluation.per_image import worst
from keras_maskrcnn.evaluation.ranked import ranked

WIDTH = 1400  # pixels, maximum width of a drawn image
# Numbers are aligned on the right, names on the left.
STYLE = """
table { margin: 0.5em 2em 1em 0; } td, th { text-align: right; } td:first-child, th:first-child { text-align: left; }
.row { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }
.scroll { max-height: 30em; overflow: auto; display: inline-block; }
"""


def write_page(path, found, figures, dataset, count=20):
    """Writes the page; a missing folder is created.

    Args:
        path: file to write.
        found: `Collected`.
        figures: result of `explain`.
        dataset: the reader that was evaluated; the pixels of the worst images are read from it again.
        count: maximum number of images that are drawn.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(found, figures, dataset, count), encoding="utf-8")


def page(found, figures, dataset, count=20):
    """The text of the page, see `write_page`."""
    overlap = {"segm": "masks", "bbox": "boxes"}[figures["kind"]]
    summary = (
        f"{figures['images']} images, {figures['objects']} objects, {figures['detections']} detections of all scores, "
        f"at most {figures['max_detections']} per image. Unless a table states otherwise, a detection is right if its "
        f"{overlap[:-1]} overlaps an object of its class by an IoU of 0.5 or more."
    )
    sections = [
        f"<p>{summary}</p>",
        *_tables(figures),
        _section("Plots", f'<div class="row">{"".join(map(html_page.plot, _charts(found, figures)))}</div>'),
        *_worst_images(found, figures, dataset, count),
    ]
    return html_page.document("Evaluation", sections, STYLE)


def _tables(figures):
    """Sections with the tables."""
    for title, rows in tables.all_tables(figures).items():
        header, *body = rows
        yield _section(title, f'<div class="scroll">{html_page.table(body, header)}</div>')


def _charts(found, figures):
    rows = ranked(found, figures["kind"])
    return (
        charts.precision_recall_curves(rows, found.class_names),
        charts.threshold_curves(rows, figures["best_f1"]["overall"], figures["score_threshold"]),
        charts.error_bars(figures["tide"]),
        charts.calibration_plot(figures["calibration"]),
        charts.confusion_matrix(figures["report"]),
    )


def _worst_images(found, figures, dataset, count):
    """A section with the worst images, or none if nothing is wrong."""
    rows = worst(figures["per_image"], count)
    if not rows:
        return
    images = {image.image["id"]: image for image in found.images(figures["kind"])}
    drawn = []
    for row in rows:
        image = images[row["image_id"]].above(figures["score_threshold"])
        pixels = dataset[found.positions[row["image_id"]]]["image"]
        drawing = draw_errors(pixels, image, image_errors(image), found.class_names)
        path, name = html.escape(row["image"]), html.escape(pathlib.PurePath(row["image"]).name)
        caption = f'<b title="{path}">{name}</b> (F1 {row["f1"]:.2f}): {html.escape(row["wrong"])}'
        drawn.append(f"<figure>{html_page.picture(drawing, WIDTH)}<figcaption>{caption}</figcaption></figure>")
    title = f"The {len(rows)} images with the lowest F1 at score {figures['score_threshold']:g}"
    yield _section(title, "\n".join(drawn))


def _section(title, content):
    return f"<h2>{html.escape(title)}</h2>\n{content}"
