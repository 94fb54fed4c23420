"""The report of `explain` as one HTML file without links to other files: plots, tables, and the worst images drawn."""

import base64
import html
import io
import pathlib

from PIL import Image

from keras_maskrcnn.evaluation import charts, tables
from keras_maskrcnn.evaluation.drawn import draw_errors
from keras_maskrcnn.evaluation.errors import image_errors
from keras_maskrcnn.evaluation.per_image import worst
from keras_maskrcnn.evaluation.ranked import ranked

WIDTH = 1400  # pixels, maximum width of a drawn image
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22252a; max-width: 1240px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5em 2em 1em 0; }
td, th { text-align: right; padding: 0.15em 0.8em; border-bottom: 1px solid #e3e5e8; }
td:first-child, th:first-child { text-align: left; }
.row { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }
.row img { max-width: 100%; } figure { margin: 1.5em 0; } figure img { max-width: 100%; }
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
        f"<h1>Evaluation</h1><p>{summary}</p>",
        *_tables(figures),
        _section("Plots", f'<div class="row">{"".join(map(_svg, _charts(found, figures)))}</div>'),
        *_worst_images(found, figures, dataset, count),
    ]
    head = f'<meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
    return f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body>\n{chr(10).join(sections)}\n</body></html>\n"


def _tables(figures):
    """Sections with the tables."""
    for title, rows in tables.all_tables(figures).items():
        header, *body = [[html.escape(cell) for cell in row] for row in rows]
        lines = ["".join(f"<th>{cell}</th>" for cell in header)]
        lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
        content = "\n".join(f"<tr>{line}</tr>" for line in lines)
        yield _section(title, f'<div class="scroll"><table>{content}</table></div>')


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
        drawn.append(f"<figure>{_jpeg(drawing)}<figcaption>{caption}</figcaption></figure>")
    title = f"The {len(rows)} images with the lowest F1 at score {figures['score_threshold']:g}"
    yield _section(title, "\n".join(drawn))


def _section(title, content):
    return f"<h2>{html.escape(title)}</h2>\n{content}"


def _svg(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="svg")
    return _img("image/svg+xml", stream.getvalue())


def _jpeg(pixels):
    image, stream = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((WIDTH, 10 * WIDTH))
    image.save(stream, "JPEG", quality=88)
    return _img("image/jpeg", stream.getvalue())


def _img(kind, content):
    return f'<img alt="" src="data:{kind};base64,{base64.b64encode(content).decode("ascii")}">'
