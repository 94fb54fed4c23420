"""Plots of numbers: nothing is blank, and the marks are where the numbers are."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import plots


def test_mode_is_the_centre_of_the_fullest_bin():
    scales = np.array([10.0, 11, 12, 50, 51, 52, 53, 54, 90, 110])
    edges = plots.bin_edges(scales, 10)
    assert edges[0] == 10 and edges[-1] == 110 and len(edges) == 11
    assert plots.mode(scales, edges) == pytest.approx(55)
    ratios = [0.5, 0.52, 0.55, 1.0, 2.0]
    assert plots.mode(ratios, plots.bin_edges(ratios, 4, logarithmic=True)) == pytest.approx(0.5 * 2**0.25)


def test_bins_of_a_single_value_lie_around_it():
    edges = plots.bin_edges([7.0], 3)
    assert edges[0] < 7 < edges[-1] and plots.mode([7.0], edges) == pytest.approx(7)


FIGURES = {
    "histograms": lambda: plots.histograms([
        ([10.0, 11, 40], plots.bin_edges([10.0, 40], 5), "scale"),
        ([0.5, 1.0, 1.1], plots.bin_edges([0.5, 1.1], 5, logarithmic=True), "ratio"),
    ]),
    "curves": lambda: plots.curves({"": {"loss": [3, 2, 1.0], "val_loss": [3, 3, 3.0], "box_loss": [1, 1, 0.5]}}),
    "bars": lambda: plots.bars({"seconds": {"joint": 10, "alternating": 14}, "AP": {"joint": 0.5, "alternating": 0.4}}),
    "beside": lambda: plots.beside(
        {"AP": {"RoIPool": ([20.0, 22, 21], 26.9), "RoIAlign": ([25.0, 26], 30.3)}, "AP75": {"RoIPool": ([], None)}},
        "points",
    ),
    "ranking": lambda: plots.ranking({"pear": 40, "fig": 3, "date": 0}, "objects"),
    "reached": lambda: plots.reached({"default": [0.2, 0.6, 0.9], "proposed": [0.5, 0.8, 0.9]}, (0.5, 0.7), "IoU"),
    "confusion": lambda: plots.confusion(np.array([[5, 1], [0, 9]]), ["car", "background"]),
    "gradient": lambda: plots.gradient_map(np.random.default_rng(0).random((30, 40)), (5, 5, 25, 25), "field"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_not_blank(name):
    file = io.BytesIO()
    FIGURES[name]().savefig(file, format="png")
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert pixels.std() > 8 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_curves_mark_the_total_and_validation():
    axes = plots.curves({"": {"loss": [2.0, 1.0], "val_loss": [2.0, 2.0], "mask_loss": [1.0, 0.5]}}).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"loss", "val_loss", "mask_loss"}
    assert lines["val_loss"].get_linestyle() == "--" and lines["loss"].get_linestyle() == "-"
    assert lines["loss"].get_color() == lines["val_loss"].get_color() != lines["mask_loss"].get_color()
    assert lines["loss"].get_linewidth() > lines["mask_loss"].get_linewidth()
    assert list(lines["mask_loss"].get_xdata()) == [1, 2]


def test_scores_of_masks_are_dashed_in_the_colour_of_those_of_boxes():
    columns = {"val_bbox_AP": [0.1], "val_bbox_AP50": [0.3], "val_segm_AP": [0.2], "val_segm_AP50": [0.2]}
    lines = {line.get_label(): line for line in plots.curves({"": columns}).axes[0].lines}
    assert set(lines) == set(columns)
    for end in ("AP", "AP50"):
        boxes, masks = lines[f"val_bbox_{end}"], lines[f"val_segm_{end}"]
        assert (boxes.get_linestyle(), masks.get_linestyle()) == ("-", "--") and boxes.get_color() == masks.get_color()
    assert lines["val_bbox_AP"].get_color() != lines["val_bbox_AP50"].get_color()
    alone = plots.curves({"": {"val_segm_AP": [0.1]}}).axes[0].lines[0]
    assert alone.get_linestyle() == "-"


def test_components_separate_regions_and_accept_a_constant_map():
    feature = np.zeros((6, 8, 5))
    feature[:, 4:, 2] = 1.0
    image = plots.components(feature)
    assert np.abs(image[0, 0].astype(int) - image[0, 7]).max() > 50
    assert len(np.unique(plots.components(np.ones((4, 4, 2))).reshape(-1, 3), axis=0)) == 1


def test_shades_run_from_dark_to_light():
    image = plots.shaded([[0.0, 1.0], [2.0, 3.0]])
    assert image.shape == (2, 2, 3) and (np.diff(image.astype(int).sum(axis=2).ravel()) > 0).all()


def test_ranking_has_the_largest_on_top_and_names_what_it_leaves_out():
    axes = plots.ranking({"fig": 3, "pear": 40, "date": 0}, "objects", most=2).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pear", "fig"] and axes.yaxis_inverted()
    assert axes.get_title() == "objects (1 smaller ones not shown)"


def test_reached_is_the_share_at_or_above_each_threshold():
    (line, *marks) = plots.reached({"all": [0.25, 0.5, 0.75, 1.0]}, (0.5, 0.7), "IoU").axes[0].lines
    shares = dict(zip(line.get_xdata().round(2).tolist(), line.get_ydata().tolist(), strict=True))
    assert [shares[level] for level in (0, 0.25, 0.26, 0.5, 0.8, 1)] == [1, 1, 0.75, 0.75, 0.25, 0.25]
    assert [mark.get_xdata()[0] for mark in marks] == [0.5, 0.7]


def test_measurements_are_drawn_beside_published_values():
    lines = {"RoIPool": ([20.0, 22.0], 26.9), "RoIAlign": ([], 30.3)}
    sheet = plots.beside({"AP": lines, "AP75": lines, "AP50": {"other": ([3.0], None)}}, "points", columns=2)
    assert [axes.get_title() for axes in sheet.axes] == ["AP", "AP75", "AP50"]
    axes = sheet.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [21.0]
    assert [list(np.atleast_1d(line.get_xdata())) for line in axes.lines] == [[20, 22], [26.9], [30.3]]
    assert [list(np.atleast_1d(line.get_ydata())) for line in axes.lines] == [[0, 0], [0], [1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["RoIPool", "RoIAlign"]
