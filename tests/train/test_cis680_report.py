"""The page of the CIS 680 report, its template, and the arithmetic of part A."""

import html.parser
import pathlib
import re
import sys
import types

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train"))

from cis680_report import page, part_a
from keras_maskrcnn import backbones, data, plots

TEMPLATE = """
# Part A
## Step 1: The backbone
First, {count:,} layers & {run[name]}.
Still first.

Second.
![Layers "of" the {run[name]}.](layers)

## Step 2: The anchor
![photo and plots](images)
![left out {missing}](nothing)
### Why?
Because.
"""


class Tags(html.parser.HTMLParser):
    """Checks that tags nest, and collects the content of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.images, self.links, self.text = [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []
        self.links += [attributes["href"]] if tag == "a" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def text(tmp_path):
    report = page.Report("Report <1>", "The data.", TEMPLATE, run={"name": "net <b>"})
    rows = [["conv1", 1216, 0.5], ["pool <b>", None, float("nan")]]
    report.step(1, count=1000, layers=page.Table(["layer", "size", "share"], rows))
    photo = np.random.default_rng(0).integers(0, 256, (30, 4400, 3)).astype(np.uint8)
    report.step(2, images=[photo, plots.curves({"": {"loss": [3.0, 2.0, 1.0]}})], nothing=None)
    return report.write(tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_has_its_steps_contents_and_images(text):
    tags = Tags(text)
    assert tags.ids == ["step-1", "step-2"] and tags.links == ["#step-1", "#step-2"]
    assert "Step 1: The backbone" in tags.text and "Step 2: The anchor" in tags.text and tags.text.count("Part A") == 2
    assert "<p>First, 1,000 layers &amp; net &lt;b&gt;.\nStill first.</p>\n<p>Second.</p>" in text
    assert "<h3>Why?</h3>\n<p>Because.</p>" in text and "left out" not in text
    assert [image["alt"] for image in tags.images] == ["photo and plots"] * 2
    assert [image["src"].split(";")[0] for image in tags.images] == ["data:image/jpeg", "data:image/png"]
    assert (tags.images[0]["width"], tags.images[0]["height"]) == ("2200", "15")  # shrunk


def test_page_has_no_external_resources_and_supports_small_screens_and_dark_mode(text):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|<script|<link""", text)
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_page_escapes_text_and_aligns_numbers(text):
    assert "Report &lt;1&gt;" in text and "<b>" not in text
    assert '<td class="number">1,216</td>' in text and '<td class="number">0.500</td>' in text
    assert text.count('<td class="number">–</td>') == 2
    assert '<th class="number">size</th>' in text and "<th>layer</th>" in text


def test_page_rejects_missing_values_and_unknown_steps():
    report = page.Report("Report", "The data.", TEMPLATE)
    with pytest.raises(KeyError, match="count"):
        report.step(1, run={"name": "net"})
    with pytest.raises(KeyError, match="3"):
        report.step(3)


def test_template_has_all_steps_and_questions():
    steps = page._steps((page.FOLDER / "report.md").read_text(encoding="utf-8"))
    assert list(steps) == list(range(1, 19))
    assert [number for number, step in steps.items() if step.part] == [1, 8]
    questions = {number for number, step in steps.items() for block in step.blocks if block.startswith("### ")}
    assert questions == {3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16}


def test_table_of_the_backbone():
    header, rows = part_a.layer_table(backbones.SimpleCNN())
    assert [row[1] for row in rows] == [*["5 × 5", "2 × 2"] * 4, "5 × 5"]
    assert [row[2] for row in rows if row[1] == "5 × 5"] == [16, 32, 64, 128, 256]
    assert rows[-1][header.index("stride of its output")] == 16
    assert rows[0][header.index("followed by")] == "BatchNorm, ReLU"
    assert rows[0][-1] == 5 * 5 * 3 * 16 + 4 * 16


def batch(crowd):
    """Two images with two boxes of 20 × 40 pixels, a wider one, a crowd region, and an empty row of padding."""
    boxes = np.array([[[0, 0, 20, 40], [0, 0, 20, 40], [10, 10, 70, 50], [0, 0, 80, 60], [0, 0, 0, 0]]] * 2, np.float32)
    valid = np.array([[True] * 4 + [False]] * 2)
    return {}, {"boxes": boxes, "valid": valid, "crowd": np.array([crowd] * 2)}


def test_anchor_comes_from_the_modes():
    anchor = part_a.find_anchor([batch([False, False, False, True, False])])
    scale = (20 * 40) ** 0.5
    edges = plots.bin_edges([scale, (60 * 40) ** 0.5], anchor.bins)
    assert (anchor.images, len(anchor.boxes), anchor.bins) == (2, 6, 4)  # Sturges: log2(6) rounded up, plus one
    assert anchor.scale == pytest.approx((edges[0] + edges[1]) / 2, abs=0.05)
    assert anchor.ratio > 1.5
    assert anchor.height / anchor.width == pytest.approx(anchor.ratio)
    assert anchor.height * anchor.width == pytest.approx(anchor.scale**2)


def test_no_box_no_anchor():
    with pytest.raises(ValueError, match="no box to derive the anchor from"):
        part_a.find_anchor([batch([True] * 5)])


def test_first_images_come_once_in_small_batches():
    shapes, setup = data.Shapes(6, image_size=(32, 48)), types.SimpleNamespace(canvas_a=(32, 48))
    assert [len(x["images"]) for x, _ in part_a.first_batches(shapes, setup, 5)] == [4, 1]
