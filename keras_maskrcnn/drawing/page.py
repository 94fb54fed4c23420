"""Pieces of an HTML page in one file: no scripts, no links to other files, pictures and plots inline."""

import base64
import html
import io

from PIL import Image

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22252a; max-width: 1240px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5em 0 1em; }
td, th { text-align: left; vertical-align: top; padding: 0.15em 0.8em; border-bottom: 1px solid #e3e5e8; }
img { max-width: 100%; } figure { margin: 1em 0; } details { margin: 0.2em 0; }
.error { color: #b3261e; font-weight: 600; } .warning { color: #8a5a00; font-weight: 600; } .note { color: #5f6670; }
"""


def document(title, parts, style=""):
    """A page.

    Args:
        title: text.
        parts: list of HTML.
        style: CSS after `STYLE`.

    Returns:
        str.
    """
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}{style}</style>'
    body = "\n".join([f"<h1>{html.escape(title)}</h1>", *parts])
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def table(rows, header=None):
    """A table; cells are texts, which are escaped, or HTML of `raw`."""
    lines = [_row("th", header)] if header else []
    return f"<table>\n{chr(10).join([*lines, *(_row('td', row) for row in rows)])}\n</table>"


class raw(str):  # noqa: N801, a str that `table` does not escape
    """HTML."""

    __slots__ = ()


def picture(pixels, width=1600, quality=85):
    """An image uint8 [H, W, 3] as JPEG, reduced to `width` pixels."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((width, 20 * width))
    image.save(stream, "JPEG", quality=quality)
    return _inline("image/jpeg", stream.getvalue())


def plot(figure):
    """A Figure of matplotlib as SVG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg")
    return _inline("image/svg+xml", stream.getvalue())


def _row(tag, cells):
    escaped = (cell if isinstance(cell, raw) else html.escape(str(cell)) for cell in cells)
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in escaped)}</tr>"


def _inline(kind, content):
    return raw(f'<img alt="" src="data:{kind};base64,{base64.b64encode(content).decode("ascii")}">')
