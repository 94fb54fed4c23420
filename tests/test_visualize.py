"""Drawing: content is visible, edge cases work, inputs are not changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_maskrcnn import visualize
from keras_maskrcnn.drawing import colours, labels, sheets

NAMES = ["person", "dog"]


def blank(height=120, width=160, value=0):
    return np.full((height, width, 3), value, np.uint8)


def objects(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.8, (count, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.2, (count, 2)) * [width, height]], axis=1)
    masks = np.zeros((count, height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    scores = np.sort(rng.random(count))[::-1].astype(np.float32)
    labels = rng.integers(1, 3, count).astype(np.int32)
    return {"boxes": boxes.astype(np.float32), "labels": labels, "scores": scores, "masks": masks}


def one(height, width, box, label=1, mask=True):
    masks = np.zeros((1, height, width), bool)
    if mask:
        x1, y1, x2, y2 = box
        masks[0, y1:y2, x1:x2] = True
    return {
        "boxes": np.array([box], np.float32),
        "labels": np.array([label]),
        "scores": np.array([0.9]),
        "masks": masks,
    }


@pytest.mark.parametrize("count", [0, 1, 100])
@pytest.mark.parametrize("size", [(64, 64), (120, 500), (700, 30)])
def test_any_number_of_objects_on_any_size(count, size):
    image = blank(*size, value=200)
    drawn = visualize.draw(image, objects(*size, count), NAMES)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert np.array_equal(drawn, image) == (count == 0)


def test_the_image_and_the_detections_are_not_changed():
    image, found = blank(value=90), objects(120, 160, 5)
    before = {key: value.copy() for key, value in found.items()}
    visualize.draw(image, found, NAMES)
    assert (image == 90).all()
    for key, value in found.items():
        np.testing.assert_array_equal(value, before[key])


def test_fill_is_a_blend_inside_the_mask_and_nothing_outside():
    image = blank(value=100)
    found = one(120, 160, (40, 40, 100, 100))
    drawn = visualize.draw(image, found, boxes=False, labels=False, opacity=0.4)
    expected = (100 * 0.6 + np.array(visualize.colour(0)) * 0.4).astype(np.uint8)
    np.testing.assert_array_equal(drawn[70, 70], expected)
    np.testing.assert_array_equal(drawn[40, 70], visualize.colour(0))  # the outline, in full colour
    assert (drawn[~found["masks"][0]] == 100).all()


def test_box_line_lies_on_the_box_between_dark_seams():
    drawn = visualize.draw(blank(value=255), one(120, 160, (40, 30, 100, 90), mask=False), labels=False)
    np.testing.assert_array_equal(drawn[60, 40], visualize.colour(0))
    np.testing.assert_array_equal(drawn[60, 99], visualize.colour(0))  # x2 = 100 is the right edge of pixel 99
    np.testing.assert_array_equal(drawn[60, 39], visualize.SEAM)
    np.testing.assert_array_equal(drawn[60, 41], visualize.SEAM)
    assert (drawn[60, 50] == 255).all()


@pytest.mark.parametrize("ground", [0, 255])
def test_the_box_has_contrast_on_dark_and_light_images(ground):
    drawn = visualize.draw(blank(value=ground), one(120, 160, (40, 30, 100, 90), mask=False), labels=False)
    column = drawn[60, 36:46].astype(int)
    assert (column.max(axis=0) - column.min(axis=0)).max() > 150


@given(index=st.integers(0, 500))
def test_ink_contrasts_with_its_plate(index):
    tint, ink = visualize.colour(index), labels._ink(visualize.colour(index))

    def luminance(colour):
        value = np.array(colour) / 255
        return np.where(value <= 0.03928, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(tint), luminance(ink)])
    assert (high + 0.05) / (low + 0.05) > 4.3


def test_colours_of_twenty_one_neighbours_differ():
    colours = np.array([visualize.colour(index) for index in range(21)], int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 999 * np.eye(21, dtype=int)
    assert distance.min() > 40


@settings(max_examples=40, deadline=None)
@given(ground=st.tuples(*[st.integers(0, 255)] * 3), inside=st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_differ_from_the_pixels_under_an_object_and_around_it(ground, inside):
    image = np.full((120, 160, 3), ground, np.uint8)
    found = one(120, 160, (40, 30, 100, 90))
    found["masks"][0, 30:45] = False
    image[found["masks"][0]] = inside
    (tint,) = colours.contrasting(image, found)
    for pixels in (ground, inside):
        assert np.linalg.norm(colours.lab(tint) - colours.lab(pixels)) >= colours.CONTRAST
    drawn = visualize.draw(image, found, labels=False)
    np.testing.assert_array_equal(drawn[60, 40], tint)


def test_lab_of_white_black_and_red():
    # Reference values of sRGB under D65, as in Lindbloom's colour calculator.
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    np.testing.assert_allclose(colours.lab([(255, 255, 255), (0, 0, 0), (255, 0, 0)]), expected, atol=0.05)


def test_twenty_one_objects_on_one_ground_have_twenty_one_colours():
    found = {"boxes": np.tile([[40.0, 30, 100, 90]], (25, 1))}
    chosen = colours.contrasting(blank(value=128), found)
    assert len(set(chosen[:21])) == 21
    outside = {"boxes": np.array([[-50.0, -50, -10, -10], [500, 500, 600, 600], [np.nan] * 4])}
    assert len(set(colours.contrasting(blank(), outside))) == 3


def test_colours_can_be_given():
    found = objects(120, 160, 2)
    drawn = visualize.draw(blank(), found, labels=False, boxes=False, colour_by=[(1, 2, 3), (4, 5, 6)])
    assert has(drawn, (1, 2, 3)) and has(drawn, (4, 5, 6))


def test_colour_by_class_gives_one_colour_per_class():
    found = {key: np.concatenate([value, value]) for key, value in one(120, 160, (10, 40, 50, 80)).items()}
    found["boxes"][1], found["masks"][1] = (100, 40, 140, 80), np.roll(found["masks"][0], 90, axis=1)
    by_class = visualize.draw(blank(), found, boxes=False, labels=False, colour_by="class")
    by_instance = visualize.draw(blank(), found, boxes=False, labels=False)
    np.testing.assert_array_equal(by_class[60, 30], by_class[60, 120])
    assert (by_instance[60, 30] != by_instance[60, 120]).any()


@settings(max_examples=50, deadline=None)
@given(
    x=st.integers(-50, 400),
    y=st.integers(-50, 300),
    side=st.integers(1, 200),
    width=st.floats(5, 200),
    height=st.just(14),
)
def test_plates_stay_inside_the_frame(x, y, side, width, height):
    places = labels._places((x, y, x + side, y + side), width, height, (320, 240))
    assert (places[:, :2] >= 0).all()
    assert (places[:, 2] <= 320).all() and (places[:, 3] <= 240).all()


def test_label_is_written_even_for_a_box_that_fills_the_frame():
    found = one(120, 160, (0, 0, 160, 120), mask=False)
    with_label = visualize.draw(blank(), found, NAMES)
    without = visualize.draw(blank(), found, NAMES, labels=False)
    assert (with_label != without).any()


def test_plates_of_two_equal_boxes_do_not_cover_each_other():
    box = np.array([40.0, 40.0, 100.0, 100.0])
    first, _ = labels._free_place(labels._places(box, 50, 12, (320, 240)), np.zeros((0, 4)))
    second, hidden = labels._free_place(labels._places(box, 50, 12, (320, 240)), first[None])
    assert hidden == 0 and not np.array_equal(first, second)


def test_a_crowded_image_stays_visible():
    found = objects(512, 512, 300)
    plates = visualize.draw(blank(512, 512), found, NAMES, boxes=False) != visualize.draw(
        blank(512, 512), found, NAMES, boxes=False, labels=False
    )
    assert 0.05 < plates.any(axis=2).mean() <= labels.PLATES


def test_names_scores_crowds_and_unknown_labels():
    found = {"labels": [1, 5], "scores": [0.756, 0.1]}
    assert labels.label_text(found, 0, NAMES) == "person 0.76"
    assert labels.label_text(found, 1, NAMES) == "5 0.10"
    assert labels.label_text({"labels": [2], "crowd": [True]}, 0, NAMES) == "dog (crowd)"
    assert labels.label_text({"labels": [2]}, 0, None) == "2"


def test_the_name_of_the_only_class_is_omitted():
    found = {"labels": [1, 1, 2], "scores": [0.756, 0.1, 0.2]}
    assert labels.label_text(found, 0, ["person"]) == "0.76"
    assert labels.label_text(found, 2, ["person"]) == "2 0.20"  # no class of the model
    assert labels.label_text({"labels": [1], "crowd": [True]}, 0, ["person"]) == "crowd"
    truth = one(120, 160, (10, 40, 50, 80))
    del truth["scores"]
    with_labels, without = (visualize.draw(blank(), truth, ["person"], labels=flag) for flag in (True, False))
    np.testing.assert_array_equal(with_labels, without)  # neither a name nor a score: no plate


@pytest.mark.parametrize("size", [(400, 600), (4000, 6000), (600, 6000)])
def test_names_scale_with_the_image(size):
    """On a screen of 1500 pixels, on which larger images are reduced, a plate has at least 12 pixels."""
    image, box = blank(*size), [size[1] // 3, size[0] // 2, size[1] // 2, size[0] - 5]
    found = {"boxes": np.array([box]), "labels": [1], "scores": [0.9]}
    with_label = visualize.draw(image, found, NAMES, boxes=False)
    rows = np.flatnonzero((with_label != image).any(axis=(1, 2)))
    assert np.ptp(rows) + 1 >= 12 * max(1, max(size) / 1500)
    title = len(visualize.side_by_side(image, found, found)) - size[0]
    assert title >= 16 * max(1, max(size) / 1500)
    legend = len(visualize.outline(image, [("object", [box], visualize.CYAN, 2)])) - size[0]
    assert legend >= 16 * max(1, max(size) / 1500)


def test_sample_without_scores_and_detections_without_masks():
    found = objects(120, 160, 3)
    sample = {key: found[key] for key in ("boxes", "labels", "masks")}
    boxes_only = {key: found[key] for key in ("boxes", "labels", "scores")}
    assert (visualize.draw(blank(), sample, NAMES) > 0).any()
    assert (visualize.draw(blank(), boxes_only, NAMES) > 0).any()


def test_grey_is_accepted_and_other_arrays_are_rejected():
    assert visualize.draw(np.zeros((20, 30), np.uint8), objects(20, 30, 0)).shape == (20, 30, 3)
    for image in (np.zeros((20, 30, 3), np.float32), np.zeros((20, 30, 9), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ValueError, match="an image must be uint8"):
            visualize.draw(image, objects(20, 30, 0))
    with pytest.raises(ValueError, match="colour_by"):
        visualize.draw(blank(), objects(120, 160, 1), colour_by="score")


@pytest.mark.parametrize(
    ("channels", "shown"),
    [(1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2]), (4, [0, 1, 2]), (8, [0, 1, 2])],
)
def test_channels_are_shown_by_a_rule(channels, shown):
    """Grey; magenta and green; the first three of more. 16 bits are stretched from their darkest to their brightest."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    nothing = objects(20, 30, 0)
    expected = image[..., shown]
    np.testing.assert_array_equal(visualize.draw(image, nothing), expected)
    dim = visualize.draw(image.astype(np.uint16) * 16 + 100, nothing)
    assert dim.dtype == np.uint8 and np.abs(dim.astype(int) - expected).max() <= 2
    assert visualize.side_by_side(image, nothing, nothing).shape[2] == 3


def test_scale_enlarges_image_and_boxes_together():
    found = one(60, 60, (10, 10, 40, 40))
    drawn = visualize.draw(blank(60, 60, 255), found, labels=False, boxes=False, scale=4)
    assert drawn.shape == (240, 240, 3)
    changed = (drawn != 255).any(axis=2)
    assert changed[40:160, 40:160].all() and changed.sum() == 120 * 120


def test_save_creates_folders_and_enlarges_small_images(tmp_path):
    path = visualize.save(tmp_path / "new" / "out.png", blank(64, 64), objects(64, 64, 2), NAMES)
    assert Image.open(path).size == (512, 512)
    path = visualize.save(tmp_path / "big.png", blank(600, 800), objects(600, 800, 2), NAMES)
    assert Image.open(path).size == (800, 600)


def test_side_by_side_holds_both_under_titles():
    image = blank(400, 600, 30)
    sheet = visualize.side_by_side(image, objects(400, 600, 2), objects(400, 600, 0), NAMES)
    height, width = sheet.shape[:2]
    assert width == 2 * 600 + 8 and height > 400
    np.testing.assert_array_equal(sheet[-400:, -600:], image)  # nothing was found on the right
    assert (sheet[-400:, :600] != image).any()


def test_an_object_has_the_same_colour_on_both_sides():
    """Three objects; one is missed, two are detected in another order, and there are two false detections."""
    image = blank(400, 600, 30)
    truth = {"boxes": np.array([[10.0, 10, 90, 90], [200, 200, 300, 300], [400, 50, 500, 150]]), "labels": [1, 1, 2]}
    boxes = [[402, 52, 502, 152], [210, 210, 310, 310], [20, 300, 80, 380], [205, 205, 250, 250]]
    found = {"boxes": np.array(boxes, np.float32), "labels": [1, 1, 1, 1], "scores": [0.9, 0.8, 0.7, 0.6]}
    sheet = visualize.side_by_side(image, truth, found, NAMES, labels=False)[-400:]
    left, right = sheet[:, :600], sheet[:, -600:]
    first, second, third = (tuple(left[y, x]) for x, y in ((10, 50), (200, 250), (400, 100)))
    assert len({first, second, third}) == 3
    assert tuple(right[100, 402]) == third and tuple(right[260, 210]) == second
    alone = {tuple(right[340, 20]), tuple(right[230, 205])}
    assert len(alone) == 2 and not alone & {first, second, third}


def test_side_by_side_without_objects_and_by_class():
    image, nothing = blank(400, 600, 30), {"boxes": np.zeros((0, 4)), "labels": []}
    found = {"boxes": np.array([[10.0, 10, 90, 90]]), "labels": [2], "scores": [0.5]}
    visualize.side_by_side(image, nothing, nothing)
    assert has(visualize.side_by_side(image, nothing, found), visualize.colour(0))
    assert has(visualize.side_by_side(image, found, nothing, colour_by="class"), visualize.colour(1))


def test_grid_places_equal_images_unchanged():
    sheet = visualize.grid([blank(20, 10, value) for value in (0, 50, 90)], columns=2, gap=4)
    assert sheet.shape == (44, 24, 3)
    assert (sheet[:20, :10] == 0).all() and (sheet[:20, 14:] == 50).all() and (sheet[24:, :10] == 90).all()
    assert (sheet[20:24] == sheets.PAPER).all() and (sheet[24:, 10:] == sheets.PAPER).all()
    with pytest.raises(ValueError, match="at least one"):
        visualize.grid([])


@pytest.mark.parametrize(
    ("sizes", "columns"),
    [
        ([(480, 640), (640, 480), (480, 640)], 1),  # upright and lying photos
        ([(480, 640), (640, 480), (300, 640), (640, 427)], 2),
        ([(480, 640), (640, 480), (480, 640), (600, 600), (300, 640), (640, 427)], 3),
        ([(480, 1288), (640, 968), (512, 1032)], 1),
    ],
)
def test_grid_has_no_wide_blank_bands(sizes, columns):
    sheet = visualize.grid([blank(*size, value=index) for index, size in enumerate(sizes)], columns, gap=0)
    assert (sheet == sheets.PAPER).all(axis=2).mean() < 0.01
    areas = [(sheet == index).all(axis=2).sum() / np.prod(size) for index, size in enumerate(sizes)]
    assert min(areas) > 0.4 and max(areas) <= sheets.ENLARGED**2
    assert sheet[0, 0, 0] == 0 and sheet[-5, -5, 0] == len(sizes) - 1


def test_grid_of_extreme_shapes_enlarges_at_most_twice():
    sheet = visualize.grid([blank(30, 700, 1), blank(700, 30, 2), blank(200, 300, 3)], columns=1)
    for value, (height, width) in ((1, (30, 700)), (2, (700, 30)), (3, (200, 300))):
        rows, columns = np.nonzero((sheet == value).all(axis=2))
        assert np.ptp(rows) + 1 <= 2 * height and np.ptp(columns) + 1 <= 2 * width


def has(image, tint):
    return (image == np.array(tint, np.uint8)).all(axis=-1).any()


def test_a_title_wider_than_the_image_pads_it():
    titled = visualize.titled(blank(20, 30, 50), "a title of many letters", size=12)
    assert titled.shape[0] > 20 and titled.shape[1] > 100
    assert (titled[-20:, :30] == 50).all() and (titled[-20:, 30:] == sheets.PAPER).all()


def test_outlines_are_where_their_boxes_are():
    drawn = visualize.outline(blank(64, 64), [("a", [[8, 16, 40, 48]], visualize.CYAN, 1)], scale=1)
    rows, columns = np.nonzero((drawn[:64] == np.array(visualize.CYAN)).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (8, 16, 40, 48)
    assert has(drawn[64:], visualize.CYAN)  # the legend
    unnamed = visualize.outline(
        blank(64, 64), [("", [[8, 16]], visualize.CYAN, 2), ("b", [], visualize.BLUE, 1)], scale=2
    )
    rows, columns = np.nonzero((unnamed == np.array(visualize.CYAN)).all(axis=-1))
    assert (rows.mean(), columns.mean()) == (32, 16)


def test_anchors_have_the_colours_of_their_roles():
    anchors = np.array([[0, 0, 20, 20], [20, 20, 40, 40], [30, 30, 50, 50], [50, 50, 70, 70]], np.float32)
    roles, crossing = np.array([1, 0, -1, -1]), np.array([False, False, False, True])
    drawn = visualize.anchor_roles(blank(64, 64), anchors, roles, crossing, [[1, 1, 19, 19]])
    for tint in (visualize.GREEN, visualize.BLUE, visualize.GREY, visualize.PURPLE, visualize.YELLOW):
        assert has(drawn[:512], tint)


def test_curves_from_a_history_and_from_a_csv_file(tmp_path):
    history = {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "val_segm_AP": [0.1, 0.2], "gradient_norm": [9, 9]}
    path = visualize.curves(history, tmp_path / "plots" / "curves.png")
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape[0] > 300
    left, right = np.split(image, 2, axis=1)
    for half in (left, right):  # each panel holds a line in the first colour
        assert (half == visualize.PALETTE[0]).all(axis=2).sum() > 100
    csv = tmp_path / "log.csv"
    csv.write_text("epoch,loss,val_segm_AP\n0,3.0,\n1,2.0,0.2\n")
    assert visualize.curves(csv, tmp_path / "csv.png").stat().st_size > 1000


def test_curves_without_any_epoch(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n")
    assert visualize.curves(tmp_path / "log.csv", tmp_path / "empty.png").is_file()
