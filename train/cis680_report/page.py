"""A report as one HTML file: numbered steps, text, tables, pictures inside; readable on a phone, in light and dark."""

import base64
import dataclasses
import html
import io
import math
import numbers
import pathlib

import numpy as np
from PIL import Image

LARGEST_SIDE = 2200  # pixels; a larger picture is shrunk, for no screen shows it and the file would grow by megabytes

STYLE = """
:root { color-scheme: light dark; --ground: #fbfaf8; --ink: #22252a; --soft: #646a73; --line: #e2dfd9; --card: #fff;
  --accent: #00629b; --tint: #f1f5f7; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181c; --ink: #e3e4e6; --soft: #9aa1ab; --line: #32363d;
  --card: #1d2025; --accent: #7cc4f0; --tint: #1f262c; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 17px/1.62 "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif; }
h1, h2, h3, nav, table, figcaption, caption, .part, .question, footer { font-family: system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.sheet { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 1.2rem; }
h2 { font-size: 1.4rem; line-height: 1.3; letter-spacing: -0.01em; margin: 0 0 1rem; }
h3 { font-size: 1.02rem; margin: 2rem 0 0.4rem; }
p, ul { max-width: 42rem; margin: 0 0 1rem; }
ul { padding-left: 1.3rem; }
a { color: var(--accent); text-underline-offset: 0.2em; }
section { border-top: 1px solid var(--line); padding: 2.2rem 0 1.4rem; scroll-margin-top: 0.5rem; }
.part { color: var(--soft); font-size: 0.82rem; font-weight: 600; letter-spacing: 0.09em; text-transform: uppercase;
  margin: 3.5rem 0 1rem; }
nav { font-size: 0.9rem; line-height: 1.45; margin: 0 0 2.5rem; padding: 1rem 1.2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 0.6rem; }
nav strong { display: block; margin: 0.7rem 0 0.3rem; color: var(--soft); font-size: 0.78rem; font-weight: 600;
  letter-spacing: 0.07em; text-transform: uppercase; }
nav strong:first-child { margin-top: 0; }
nav ul { list-style: none; margin: 0; padding: 0; max-width: none; }
nav a { display: grid; grid-template-columns: 1.8rem 1fr; padding: 0.18rem 0; color: inherit; text-decoration: none; }
nav a:hover, nav a:focus { color: var(--accent); text-decoration: underline; }
nav a span { color: var(--soft); font-variant-numeric: tabular-nums; }
figure { margin: 1.6rem 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 0.4rem; border: 1px solid var(--line); }
figure.plot img { background: #fff; padding: 0.4rem; }
figcaption, caption { color: var(--soft); font-size: 0.87rem; line-height: 1.5; max-width: 46rem; }
figcaption { margin-top: 0.55rem; }
.wide { overflow-x: auto; margin: 1.6rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; }
caption { caption-side: bottom; text-align: left; padding-top: 0.55rem; }
th, td { padding: 0.42rem 1.1rem 0.42rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  }
th { font-weight: 600; border-bottom-color: var(--soft); vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.answer { max-width: 44rem; margin: 1.6rem 0; padding: 1rem 1.3rem 0.2rem; background: var(--tint);
  border-left: 3px solid var(--accent); border-radius: 0 0.5rem 0.5rem 0; }
.question { font-weight: 600; font-size: 0.95rem; line-height: 1.45; margin-bottom: 0.5rem; }
footer { color: var(--soft); font-size: 0.83rem; border-top: 1px solid var(--line); padding-top: 1.2rem;
  margin-top: 2rem; }
@media (min-width: 68rem) {
  .columns { display: grid; grid-template-columns: 15.5rem minmax(0, 1fr); gap: 3.5rem; }
  nav { position: sticky; top: 1.5rem; align-self: start; max-height: calc(100vh - 3rem); overflow-y: auto; }
}
@media (max-width: 34rem) { body { font-size: 16px; } .sheet { padding-top: 1.5rem; } }
@media print { nav { display: none; } .columns { display: block; } figure, tr { break-inside: avoid; } }
"""


@dataclasses.dataclass
class _Step:
    """A numbered section; number None is the introduction."""

    number: int | None
    title: str
    part: str | None = None
    blocks: list = dataclasses.field(default_factory=list)
    pictures: list = dataclasses.field(default_factory=list)


class Page:
    """A report that grows from top to bottom and is written once.

    What is added before the first `step` is the introduction. All text is escaped: nothing that is passed in is read
    as HTML.

    Args:
        title: heading of the page.
    """

    def __init__(self, title):
        self.title = str(title)
        self._steps = [_Step(None, "")]
        self._part = None

    def part(self, title):
        """Starts a part: a word above the next step, in the page and in the table of contents."""
        self._part = str(title)

    def step(self, number, title):
        """Starts the section "Step `number`: `title`" with the id "step-`number`".

        Raises:
            ValueError: the page has a step of that number.
        """
        if number in [step.number for step in self._steps]:
            raise ValueError(f"the page has a step {number} already")
        self._steps.append(_Step(int(number), str(title), self._part))
        self._part = None

    def heading(self, title):
        """A small heading inside a step."""
        self._add(f"<h3>{_escaped(title)}</h3>")

    def text(self, text):
        """A paragraph, several where a blank line divides the text, or a list of points where `text` is a list."""
        if isinstance(text, str):
            self._add(_paragraphs(text))
        else:
            self._add("<ul>" + "".join(f"<li>{_escaped(point)}</li>" for point in text) + "</ul>")

    def answer(self, question, text):
        """A written question of the assignment and its answer, set apart from the rest."""
        self._add(f'<div class="answer"><p class="question">{_escaped(question)}</p>{_paragraphs(text)}</div>')

    def table(self, header, rows, caption=""):
        """A table.

        Args:
            header: names of the columns.
            rows: lists of cells, as long as the header. Numbers stand on the right, floats with three decimals; None
                and NaN become a dash.
            caption: text below.

        Raises:
            ValueError: a row is not as long as the header.
        """
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {list(row)}")
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        right = [bool(column) and all(map(_is_number, column)) for column in columns]
        head = "".join(_cell("th", name, side) for name, side in zip(header, right, strict=True))
        body = "".join(
            "<tr>" + "".join(_cell("td", cell, side or _is_number(cell)) for cell, side in zip(row, right, strict=True))
            + "</tr>"
            for row in rows
        )  # fmt: skip
        note = f"<caption>{_escaped(caption)}</caption>" if caption else ""
        self._add(f'<div class="wide"><table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def picture(self, picture, caption, lossless=False):
        """A picture with its caption, which is its alternative text too.

        Args:
            picture: uint8 [H, W, 3].
            caption: text below.
            lossless: PNG instead of JPEG; for drawings.

        Raises:
            ValueError: the array is not uint8 [H, W, 3].
        """
        picture = np.asarray(picture)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"a picture must be uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
        image = Image.fromarray(picture)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        file = io.BytesIO()
        if lossless:
            image.save(file, "PNG", optimize=True)
        else:
            # Full chroma: thin coloured lines of boxes would fade otherwise.
            image.save(file, "JPEG", quality=88, subsampling=0)
        self._image(file.getvalue(), "png" if lossless else "jpeg", image.size, caption, "photo")

    def figure(self, figure, caption):
        """A matplotlib Figure with its caption, as a PNG."""
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110, facecolor="white")
        size = Image.open(file).size
        self._image(file.getvalue(), "png", size, caption, "plot")

    def pictures(self, step=None):
        """All pictures and figures, or those of one step, as uint8 [H, W, 3] arrays of what the page shows."""
        steps = [part for part in self._steps if step is None or part.number == step]
        return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for part in steps for data in part.pictures]

    def html(self):
        """The whole page.

        Raises:
            ValueError: a step has no content.
        """
        introduction, *steps = self._steps
        empty = [str(step.number) for step in steps if not step.blocks]
        if empty:
            raise ValueError(f"step {', '.join(empty)} of the report has no content")
        sections = "".join(map(_section, steps))
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_escaped(self.title)}</title><style>{STYLE}</style></head>\n"
            f'<body><div class="sheet"><h1>{_escaped(self.title)}</h1><div class="columns">'
            f"{_contents(steps)}<main>{''.join(introduction.blocks)}{sections}</main></div></div></body></html>\n"
        )

    def write(self, path):
        """Writes the page; its folder is made.

        Args:
            path: file to write.

        Returns:
            pathlib.Path of the file.

        Raises:
            ValueError: a step has no content.
        """
        path = pathlib.Path(path)
        content = self.html()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def _add(self, block):
        self._steps[-1].blocks.append(block + "\n")

    def _image(self, data, kind, size, caption, look):
        code = base64.b64encode(data).decode("ascii")
        text = _escaped(caption)
        self._steps[-1].pictures.append(data)
        self._add(
            f'<figure class="{look}"><img src="data:image/{kind};base64,{code}" width="{size[0]}" height="{size[1]}" '
            f'loading="lazy" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )


def _section(step):
    part = f'<p class="part">{_escaped(step.part)}</p>' if step.part else ""
    title = f"<h2>Step {step.number}: {_escaped(step.title)}</h2>"
    return f'{part}<section id="step-{step.number}">{title}\n{"".join(step.blocks)}</section>\n'


def _contents(steps):
    rows = ""
    for step in steps:
        if step.part:
            rows += f"<li><strong>{_escaped(step.part)}</strong></li>"
        link = f'<a href="#step-{step.number}"><span>{step.number}</span>{_escaped(step.title)}</a>'
        rows += f"<li>{link}</li>"
    return f'<nav aria-label="Steps"><ul>{rows}</ul></nav>\n'


def _paragraphs(text):
    return "".join(f"<p>{_escaped(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def _cell(kind, value, right):
    look = ' class="number"' if right else ""
    return f"<{kind}{look}>{_escaped(_text(value))}</{kind}>"


def _is_number(value):
    return value is None or (isinstance(value, numbers.Real | np.number) and not isinstance(value, bool | np.bool_))


def _text(value):
    if value is None or (_is_number(value) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    return f"{float(value):.3f}" if _is_number(value) else str(value)


def _escaped(text):
    return html.escape(str(text), quote=True)
