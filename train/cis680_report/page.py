"""The report as one HTML file: the steps of a Markdown template with the values of a run, images embedded."""

import base64
import collections
import html
import io
import math
import numbers
import pathlib
import re
import string

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
LARGEST_SIDE = 2200  # pixels; larger images are shrunk to limit the size of the file

# header: names of the columns; rows: lists of cells, not empty.
Table = collections.namedtuple("Table", "header rows")
Step = collections.namedtuple("Step", "part title blocks")


class Report:
    """A report whose steps are filled one after the other.

    The template is Markdown with fields of `str.format`: lines `# part`, `## Step n: title` and `### question`;
    paragraphs, which end at a blank line; and figures `![caption](name)`, where `name` is a value of the step: an image
    (uint8 `[H, W, 3]`), a matplotlib Figure, a `Table`, a list of these, or None, which omits the figure. All text is
    escaped. `values` are for all steps; `template` is by default the text of `report.md`.
    """

    def __init__(self, title, introduction, template=None, **values):
        self.title, self.introduction, self.values = html.escape(title), html.escape(introduction), values
        self._steps = _steps(template or (FOLDER / "report.md").read_text(encoding="utf-8"))
        self._contents = self._sections = ""

    def step(self, number, **values):
        """Fills a step of the template; raises KeyError for a field without a value."""
        step, values = self._steps.pop(number), {**self.values, **values}
        part, title = (html.escape(text) for text in (step.part, step.title))
        heading = f'<p class="part">{part}</p>' * bool(part)
        blocks = "\n".join(_block(block, values) for block in step.blocks)
        self._contents += f'{heading}<a href="#step-{number}"><span>{number}</span>{title}</a>'
        self._sections += f'{heading}<section id="step-{number}"><h2>Step {number}: {title}</h2>\n{blocks}</section>\n'

    def write(self, path):
        """Writes the page with the steps filled so far, and returns the path."""
        page = string.Template((FOLDER / "page.html").read_text(encoding="utf-8"))
        texts = {"title": self.title, "introduction": self.introduction}
        path.write_text(page.substitute(**texts, contents=self._contents, steps=self._sections), encoding="utf-8")
        return path


def _steps(template):
    """Steps of a template by number; the first step of a part has the part's title, the others an empty one."""
    steps, part = {}, ""
    spaced = re.sub(r"(?m)^(#.*)$", r"\n\1\n", template).replace("\n![", "\n\n![")
    for block in re.split(r"\n{2,}", spaced.strip()):
        if block.startswith("# "):
            part = block[2:]
        elif heading := re.fullmatch(r"## Step (\d+): (.+)", block):
            steps[int(heading[1])] = step = Step(part, heading[2], [])
            part = ""
        else:
            step.blocks.append(block)
    return steps


def _block(block, values):
    """HTML of one block of the template."""
    if figure := re.fullmatch(r"!\[(.*)\]\((\w+)\)", block, re.DOTALL):
        if (content := values[figure[2]]) is None:
            return ""
        caption = html.escape(figure[1].format(**values))
        return f"<figure>{_content(content, caption)}<figcaption>{caption}</figcaption></figure>"
    text = html.escape(block.format(**values))
    return f"<h3>{text[4:]}</h3>" if text.startswith("### ") else f"<p>{text}</p>"


def _content(content, caption):
    """HTML of a table, an image, a Figure, or a list of them."""
    if isinstance(content, list):
        return "".join(_content(item, caption) for item in content)
    if isinstance(content, Table):
        rows = _row("th", content.header, content.rows[0]), *(_row("td", row, content.rows[0]) for row in content.rows)
        return f"<table>{''.join(rows)}</table>"
    file, kind = io.BytesIO(), "png" if isinstance(content, Figure) else "jpeg"
    if kind == "png":
        content.savefig(file, format=kind, dpi=110, facecolor="white")
        image = Image.open(file)
    else:
        image = Image.fromarray(content)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        image.save(file, kind, quality=88, subsampling=0)  # full chroma for thin coloured lines
    code = base64.b64encode(file.getvalue()).decode("ascii")
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/{kind};base64,{code}" {size} loading="lazy" alt="{caption}">'


def _row(tag, cells, sample):
    """HTML of a row of a table; a cell is right-aligned if the row `sample` has a number in its column."""
    looks = [' class="number"' * _is_number(cell) for cell in sample]
    row = zip(cells, looks, strict=True)
    return "<tr>" + "".join(f"<{tag}{look}>{html.escape(_text(cell))}</{tag}>" for cell, look in row) + "</tr>"


def _is_number(value):
    return value is None or isinstance(value, numbers.Real | np.number)


def _text(value):
    """A cell as text: floats with three decimals, a dash for None and NaN."""
    if value is None or (_is_number(value) and not math.isfinite(value)):
        return "–"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    return f"{float(value):.3f}" if _is_number(value) else str(value)
