"""Pieces of the CIS 680 report: the page, its plots, its answers, the arithmetic of part A."""

import html.parser
import pathlib
import re
import sys
import types

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train"))

from cis680_report import answers, drawings, part_a_training, plots
from cis680_report.page import Page
from keras_maskrcnn import backbones, data
from keras_maskrcnn.models import options


class Tags(html.parser.HTMLParser):
    """Checks that tags nest, and collects what a page holds."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.images, self.links, self.text = [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def noise(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def pixels(figure):
    page = Page("one figure")
    page.figure(figure, "a figure")
    return page.pictures()[0]


def colours(picture):
    return len(np.unique(picture.reshape(-1, 3), axis=0))


# The page ------------------------------------------------------------------------------------------------------------


def small_page():
    page = Page("Report <1>")
    page.text("What it ran on.")
    page.part("Part A")
    page.step(1, "The backbone")
    page.text("First.\n\nSecond & third.")
    page.text(["a point", "another"])
    page.table(["layer", "size", "share"], [["conv1", 1216, 0.5], ["pool <b>", None, float("nan")]], "Layers.")
    page.step(2, "The anchor")
    page.answer("Why?", "Because.")
    page.picture(noise(), 'a "noisy" picture')
    page.figure(plots.curves({"loss": [3.0, 2.0, 1.0]}), "the loss")
    return page


def test_page_has_its_sections_contents_and_pictures(tmp_path):
    path = small_page().write(tmp_path / "new" / "report.html")
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.ids == ["step-1", "step-2"] and tags.links == ["#step-1", "#step-2"]
    assert "Step 1: The backbone" in tags.text and "Step 2: The anchor" in tags.text and "Part A" in tags.text
    assert "First." in text and "<p>Second &amp; third.</p>" in text and text.count("<li>") >= 4
    assert [image["alt"] for image in tags.images] == ['a "noisy" picture', "the loss"]
    assert [image["src"].split(";")[0] for image in tags.images] == ["data:image/jpeg", "data:image/png"]
    assert (tags.images[0]["width"], tags.images[0]["height"]) == ("60", "40")


def test_page_needs_nothing_from_outside_and_fits_a_phone_and_the_dark():
    text = small_page().html()
    outside = re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|<script|<link""", text)
    assert not outside
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_page_escapes_text_and_sets_numbers_right():
    text = small_page().html()
    assert "Report &lt;1&gt;" in text and "<b>" not in text
    assert '<td class="number">1,216</td>' in text and '<td class="number">0.500</td>' in text
    assert text.count('<td class="number">–</td>') == 2
    assert '<th class="number">size</th>' in text and "<th>layer</th>" in text


def test_page_gives_its_pictures_as_arrays():
    page = small_page()
    photo, plot = page.pictures()
    assert photo.shape == (40, 60, 3) and photo.dtype == np.uint8 and photo.std() > 20
    assert plot.std() > 5
    assert len(page.pictures(step=2)) == 2 and not page.pictures(step=1)


def test_a_picture_wider_than_any_screen_is_shrunk():
    page = Page("wide")
    page.picture(np.zeros((30, 4400, 3), np.uint8), "wide", lossless=True)
    assert page.pictures()[0].shape == (15, 2200, 3)


def test_page_refuses_a_step_without_content_a_second_of_one_number_and_what_is_no_picture(tmp_path):
    page = small_page()
    page.step(7, "Nothing")
    with pytest.raises(ValueError, match="step 7 of the report has no content"):
        page.write(tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ValueError, match="a step 2 already"):
        page.step(2, "Again")
    with pytest.raises(ValueError, match="float64"):
        page.picture(np.zeros((4, 4, 3)), "no picture")
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        page.table(["one"], [["a", "b"]])


# Plots ---------------------------------------------------------------------------------------------------------------


def test_mode_of_made_up_boxes():
    scales = np.array([10.0, 11, 12, 50, 51, 52, 53, 54, 90, 110])
    edges = plots.bin_edges(scales, 10)
    assert edges[0] == 10 and edges[-1] == 110 and len(edges) == 11
    assert plots.mode(scales, edges) == pytest.approx((55, 50, 60))
    ratios = [0.5, 0.52, 0.55, 1.0, 2.0]
    middle, low, high = plots.mode(ratios, plots.bin_edges(ratios, 4, logarithmic=True))
    assert (low, high) == pytest.approx((0.5, 0.5 * 2**0.5)) and middle == pytest.approx((low * high) ** 0.5)


def test_bins_of_a_single_value_lie_around_it():
    edges = plots.bin_edges([7.0], 3)
    assert edges[0] < 7 < edges[-1] and plots.mode([7.0], edges)[0] == pytest.approx(7)


FIGURES = {
    "histograms": lambda: plots.histograms([
        ([10.0, 11, 40], plots.bin_edges([10.0, 40], 5), "scale"),
        ([0.5, 1.0, 1.1], plots.bin_edges([0.5, 1.1], 5, logarithmic=True), "ratio"),
    ]),
    "curves": lambda: plots.curves({"loss": [3, 2, 1.0], "val_loss": [3, 3, 3.0], "box_loss": [1, 1, 0.5]}),
    "compared": lambda: plots.compared_curves({"joint": {"loss": [2, 1]}, "alternating": {"loss": [3, 1]}}),
    "bars": lambda: plots.bars({"seconds": {"joint": 10, "alternating": 14}, "AP": {"joint": 0.5, "alternating": 0.4}}),
    "confusion": lambda: plots.confusion([[5, 1], [0, 9]], ["car", "background"]),
    "receptive": lambda: plots.receptive_map(np.random.default_rng(0).random((30, 40)), (5, 5, 25, 25), "field"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_not_blank(name):
    picture = pixels(FIGURES[name]())
    assert picture.std() > 8 and colours(picture) > 20


def test_curves_mark_the_total_and_the_test_pictures():
    axes = plots.curves({"loss": [2.0, 1.0], "val_loss": [2.0, 2.0], "mask_loss": [1.0, 0.5]}).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"loss", "loss, test", "mask_loss"}
    assert lines["loss, test"].get_linestyle() == "--" and lines["loss"].get_linestyle() == "-"
    assert lines["loss"].get_color() == lines["loss, test"].get_color() != lines["mask_loss"].get_color()
    assert lines["loss"].get_linewidth() > lines["mask_loss"].get_linewidth()
    assert list(lines["mask_loss"].get_xdata()) == [1, 2]


def test_curves_under_names_of_their_own():
    axes = plots.curves({"loss": [1.0], "class_loss": [1.0], "other": [1.0]}, {"class_loss": "classifier"}).axes[0]
    assert [line.get_label() for line in axes.lines] == ["classifier"]


def has(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1).any()


def test_boxes_are_drawn_where_they_are():
    picture = drawings.outlined(np.zeros((64, 64, 3), np.uint8), [("a", [[8, 16, 40, 48]], drawings.CYAN, 1)], scale=1)
    rows, columns = np.nonzero((picture[:64] == np.array(drawings.CYAN)).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (8, 16, 40, 48)
    assert picture.shape[0] > 64 and has(picture[64:], drawings.CYAN)


def test_anchors_and_proposals_have_the_colours_of_their_roles():
    anchors = np.array([[0, 0, 20, 20], [20, 20, 40, 40], [30, 30, 50, 50], [50, 50, 70, 70]], np.float32)
    roles, crossing = np.array([1, 0, -1, -1]), np.array([False, False, False, True])
    picture = drawings.anchor_roles(np.zeros((64, 64, 3), np.uint8), anchors, roles, crossing, [[1, 1, 19, 19]])
    for colour in (drawings.GREEN, drawings.BLUE, drawings.GREY, drawings.PURPLE, drawings.YELLOW):
        assert has(picture, colour)
    picture = drawings.proposals_by_role(
        np.zeros((64, 64, 3), np.uint8), anchors, [True, False, False, False], negatives=1
    )
    assert has(picture, drawings.GREEN) and has(picture, drawings.BLUE)
    refined = drawings.refinement(np.zeros((64, 64, 3), np.uint8), anchors[:1], anchors[1:2])
    assert has(refined, drawings.YELLOW) and has(refined, drawings.CYAN) and not has(refined, drawings.WHITE)


def test_sample_points_lie_on_the_grid_or_anywhere_in_their_bin():
    regular = drawings.sample_points((10, 20, 26, 28), bins=2, samples=2)
    assert regular.shape == (4, 4, 2)
    assert np.unique(regular[..., 0]).tolist() == [12, 16, 20, 24] and np.unique(regular[..., 1]).tolist() == [
        21,
        23,
        25,
        27,
    ]
    spread = drawings.sample_points((10, 20, 26, 28), bins=2, samples=2, rng=np.random.default_rng(0))
    for bin_index, points in enumerate(spread):
        low = np.array([10 + 8 * (bin_index % 2), 20 + 4 * (bin_index // 2)])
        assert (points >= low).all() and (points <= low + np.array([8, 4])).all()
    assert np.abs(spread - regular).max() > 0.5


def test_sampled_box_crops_and_pyramid_are_pictures():
    points = drawings.sample_points((10, 10, 40, 30), 3)
    shown = drawings.sampled_box(noise(60, 80), (10, 10, 40, 30), points, 3)
    assert has(shown, drawings.CYAN) and has(shown, drawings.YELLOW)
    sheet = drawings.crops([[noise(7, 7), np.arange(49.0).reshape(7, 7)]], [["P = 7", "channel 3"]])
    assert sheet.dtype == np.uint8 and colours(sheet) > 40
    rng = np.random.default_rng(0)
    levels = drawings.pyramid({"P2": rng.normal(size=(16, 20, 8)), "P3": rng.normal(size=(8, 10, 8))})
    assert levels.dtype == np.uint8 and colours(levels) > 100


def test_components_tell_regions_apart_and_stand_a_constant_map():
    feature = np.zeros((6, 8, 5))
    feature[:, 4:, 2] = 1.0
    picture = drawings.components(feature)
    assert np.abs(picture[0, 0].astype(int) - picture[0, 7]).max() > 50
    assert colours(drawings.components(np.ones((4, 4, 2)))) == 1


def test_table_of_the_backbone():
    header, rows = plots.layer_table(backbones.SimpleCNN())
    assert [row[1] for row in rows] == [*["5 × 5", "2 × 2"] * 4, "5 × 5"]
    assert [row[2] for row in rows if row[1] == "5 × 5"] == [16, 32, 64, 128, 256]
    assert rows[-1][header.index("stride of its output")] == 16
    assert rows[0][header.index("followed by")] == "BatchNorm, ReLU"
    assert rows[0][-1] == 5 * 5 * 3 * 16 + 4 * 16


# Answers -------------------------------------------------------------------------------------------------------------

ANSWERS = {
    3: lambda: answers.anchor_truth(11.2, 240, 30, 190, 0.4),
    5: lambda: answers.receptive_field(172, 16, (172, 172), 61.0, [30, 90, 200, 210], (80, 80)),
    6: lambda: answers.sampling(11, 242, 32),
    7: lambda: answers.normalisation(32, 8),
    8: lambda: answers.fine_tuning({"frozen": (0.31, 30), "fine-tuned": (0.44, 50)}, 1000),
    10: lambda: answers.pyramid((4, 8, 16, 32, 64), (800, 1088), 3, 217_000, 1000),
    11: lambda: answers.training_schemes((0.52, 100), (0.48, 120)),
    12: lambda: answers.roi_align(7, 16, {"regular": 0.51, "random": 0.5}),
    13: lambda: answers.two_stages(217_000, 1000),
    14: lambda: answers.box_head(3, 10, 30),
    15: lambda: answers.post_processing({"vehicle": 0.5, "background": None}, {"vehicle": 0.71}),
    16: lambda: answers.masks(3, 28, {"box": 5, "class": 1, "mask": 2}),
}


def test_every_question_is_answered_at_a_readable_length():
    assert set(ANSWERS) == set(answers.QUESTIONS)
    for number, answer in ANSWERS.items():
        assert 80 <= len(answer().split()) <= 215, number


def test_answers_speak_of_the_numbers_of_the_run():
    assert "172 × 172" in ANSWERS[5]() and "50.0% of the training objects are longer" in ANSWERS[5]()
    small = answers.receptive_field(172, 16, (160, 172), 61.0, [30, 90], (200, 60))
    assert "No object of the training pictures is longer" in small and "cannot see all of it" in small
    assert "160 × 172: where the picture's border" in small
    assert "22 times as many" in ANSWERS[6]() and "256 (less" in ANSWERS[7]()
    assert "Best is “fine-tuned”" in ANSWERS[8]() and "P6 (13 × 17)" in ANSWERS[10]()
    assert "Joint training is ahead by 0.040" in ANSWERS[11]()
    assert "differ by 0.010" in answers.training_schemes((0.52, 100), (0.51, 120))
    assert "differ by nan" in answers.training_schemes((None, 100), (0.51, 120))
    assert "no object to find" in answers.fine_tuning({"frozen": (None, 30)}, 10)
    assert "Alternating training is ahead by 0.200" in answers.training_schemes((0.3, 1), (0.5, 1))
    assert "weakest is vehicle" in ANSWERS[15]() and "background –" not in ANSWERS[15]()
    assert "3.0 to one: near the 3:1" in ANSWERS[14]() and "allow" in answers.box_head(3, 10, 60)


# Part A --------------------------------------------------------------------------------------------------------------


class Boxes(data.Dataset):
    """Pictures of 30 × 40 pixels with the same boxes, the last of them a crowd."""

    class_names = ("thing",)
    always_readable = True

    def __len__(self):
        return 3

    def read(self, position):
        if position == 2:
            raise data.DataError("third", "is broken")
        boxes = np.array([[0, 0, 10, 20], [0, 0, 10, 20], [5, 5, 35, 25], [0, 0, 40, 30]], np.float32)
        masks = np.zeros((4, 30, 40), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
        return {
            "image": noise(30, 40), "boxes": boxes, "labels": np.ones(4, np.int32), "masks": masks,
            "crowd": np.array([False, False, False, True]), "source": "made up",
        }  # fmt: skip


def test_anchor_comes_from_the_modes_in_pixels_of_the_canvas():
    boxes, pictures = part_a_training.training_boxes(Boxes(), (60, 80))
    assert pictures == 2 and boxes.shape == (6, 4) and boxes[0].tolist() == [0, 0, 20, 40]
    anchor = part_a_training.find_anchor(Boxes(), (60, 80))
    width, height = 20, 40
    scale = (width * height) ** 0.5
    last = plots.bin_edges([scale, (60 * 40) ** 0.5], anchor.bins)
    assert anchor.bins == 4  # Sturges: log2(6) up, and one
    assert anchor.scale == pytest.approx((last[0] + last[1]) / 2, abs=0.05)
    assert anchor.ratio > 1.5
    assert anchor.sides[0] / anchor.sides[1] == pytest.approx(anchor.ratio)
    assert anchor.sides[0] * anchor.sides[1] == pytest.approx(anchor.scale**2)


def test_no_box_no_anchor():
    class Empty(Boxes):
        def read(self, position):
            sample = super().read(0)
            return {**sample, "crowd": np.ones(4, bool)}

    with pytest.raises(ValueError, match="no box to make an anchor of"):
        part_a_training.find_anchor(Empty(), (60, 80))


def test_sample_is_twice_the_positives_within_bounds():
    assert [part_a_training.sample_size(positives) for positives in (0.5, 11.7, 500)] == [16, 24, 256]


def test_roles_of_anchors():
    model = types.SimpleNamespace(
        anchors=options.Anchors(sizes=((16,),), ratios=(1.0,), offset=0.5),
        strides=(16,),
        rpn_sampling=options.AnchorSampling(cross_boundary="ignore"),
    )
    inputs = {
        "images": np.zeros((1, 48, 64, 3), np.uint8), "sizes": np.array([[48, 56]], np.float32),
        "boxes": np.array([[[16, 16, 32, 32], [1, 1, 9, 9], [0, 0, 0, 0]]], np.float32),
        "labels": np.array([[1, 1, 0]]), "masks": np.zeros((1, 3, 8, 8), np.uint8),
        "crowd": np.zeros((1, 3), bool), "valid": np.array([[True, True, False]]),
    }  # fmt: skip
    found = part_a_training.roles(model, inputs)
    assert len(found["anchors"]) == 12
    assert np.flatnonzero(found["crossing"][0]).tolist() == [3, 7, 11]  # the picture ends at 56 of 64 pixels
    assert np.flatnonzero(found["role"][0] == 1).tolist() == [0, 5]
    assert np.flatnonzero(found["forced"][0]).tolist() == [0]  # the best of the small box, by an IoU of 0.25
    assert (found["role"][0][[3, 7, 11]] == -1).all()
    assert (found["role"][0] == 0).sum() == 7


def test_test_pictures_come_once_in_small_batches():
    shapes = data.Shapes(6, image_size=(32, 48))
    batches = list(part_a_training.first_batches(shapes, (32, 48), 5))
    assert [len(x["images"]) for x, _ in batches] == [4, 1]
