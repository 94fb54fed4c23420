"""Readers of VIA, LabelMe and YOLO files: shapes by hand, faults that are named, and the real sets."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data.yolo import read_classes


def photo(path, size=(40, 60), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


def region(name, attributes=None, **shape):
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes or {}}


SQUARE = region("polygon", all_points_x=[10, 20, 20, 10], all_points_y=[5, 5, 15, 15])


def via(folder, *regions, wrap=lambda entries: entries, as_dict=False, image="a.jpg"):
    photo(folder / image)
    listed = {str(i): r for i, r in enumerate(regions)} if as_dict else list(regions)
    entries = {f"{image}99": {"filename": image, "size": 99, "regions": listed, "file_attributes": {}}}
    (folder / "via_region_data.json").write_text(json.dumps(wrap(entries)))
    return folder


# VIA ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"_via_settings": {}, "_via_img_metadata": e}])
def test_both_versions_and_projects_of_via(tmp_path, as_dict, wrap):
    dataset = data.Via(via(tmp_path, SQUARE, as_dict=as_dict, wrap=wrap), default="droplet")
    [sample] = dataset
    assert dataset.class_names == ["droplet"] and sample["image_id"] == "a.jpg"
    np.testing.assert_array_equal(sample["boxes"], [[10, 5, 20, 15]])
    assert sample["masks"].sum() == 100


def test_every_shape_of_via(tmp_path):
    shapes = [
        region("rect", x=2, y=3, width=10, height=4),
        region("circle", cx=30, cy=20, r=10),
        region("ellipse", cx=30, cy=20, rx=20, ry=5),
        region("ellipse", cx=30, cy=20, rx=15, ry=5, theta=np.pi / 2),
        region("polyline", all_points_x=[10, 20, 20, 10], all_points_y=[5, 5, 15, 15]),
    ]
    [sample] = data.Via(via(tmp_path, *shapes))
    areas = sample["masks"].sum(axis=(1, 2))
    np.testing.assert_allclose(areas, [40, np.pi * 100, np.pi * 100, np.pi * 75, 100], rtol=0.03)
    np.testing.assert_allclose(sample["boxes"][1:4], [[20, 10, 40, 30], [10, 15, 50, 25], [25, 5, 35, 35]], atol=1)


def test_classes_of_via_are_an_attribute(tmp_path):
    with_names = [{**SQUARE, "region_attributes": {"kind": value}} for value in ("pear", {"apple": True, "fig": False})]
    dataset = data.Via(via(tmp_path, *with_names, SQUARE), default="other")
    assert dataset.class_names == ["apple", "other", "pear"]
    assert dataset[0]["labels"].tolist() == [3, 1, 2]
    two = [{**SQUARE, "region_attributes": {"kind": "pear", "ripe": "yes"}}]
    with pytest.raises(data.DataError, match="regions have the attributes kind, ripe: choose one by attribute="):
        data.Via(via(tmp_path / "two", *two))
    assert data.Via(tmp_path / "two", attribute="ripe").class_names == ["yes"]


def test_regions_that_cannot_be_used_are_named(tmp_path):
    bad = [
        region("point", cx=3, cy=3),
        region("polygon", all_points_x=[1, 2], all_points_y=[1]),
        region("polygon", all_points_x=[1, 2, "x"], all_points_y=[1, 2, 3]),
        region("polygon", all_points_x=[1, 2], all_points_y=[1, 2]),
        region("polygon", all_points_x=[500, 510, 510], all_points_y=[500, 500, 510]),
        region("rect", x=float("nan"), y=3, width=10, height=4),
        region("circle", cx=1e9, cy=1e9, r=1e9),
    ]
    dataset = data.Via(via(tmp_path, SQUARE, *bad))
    assert len(dataset[0]["labels"]) == 1 and dataset.labels_at(0).tolist() == [1]
    assert list(dataset.dropped) == [f"a.jpg, region {number}" for number in (1, 2, 3, 6, 4, 5, 7)]
    reasons = list(dataset.dropped.values())
    assert reasons[0] == "its shape 'point' has no area" and "2 x and 1 y" in reasons[1] and "not finite" in reasons[3]


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": 1}', '{"a": {"regions": [1]}}', "[" * 100_000, "{"])
def test_other_json_is_one_line(tmp_path, content):
    (tmp_path / "via_region_data.json").write_text(content)
    with pytest.raises(data.DataError) as caught:
        data.Via(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    via(tmp_path, SQUARE)
    text = (tmp_path / "via_region_data.json").read_text()
    for name in ("../a.jpg", "/etc/a.jpg", "x/../../a.jpg"):
        (tmp_path / "via_region_data.json").write_text(text.replace('"filename": "a.jpg"', f'"filename": "{name}"'))
        with pytest.raises(data.DataError, match="outside the folder of images"):
            data.Via(tmp_path)


def test_photos_of_via_are_upright(tmp_path):
    folder = via(tmp_path, region("rect", x=30, y=50, width=10, height=10))
    photo(folder / "a.jpg", (40, 60), orientation=6)  # upright: 60 rows, 40 columns
    [sample] = data.Via(folder)
    assert sample["image"].shape == (60, 40, 3) and sample["boxes"].tolist() == [[30, 50, 40, 60]]


# LabelMe ------------------------------------------------------------------------------------------------------------


def labelme(folder, *shapes, size=(40, 60), name="a"):
    photo(folder / f"{name}.jpg", size)
    content = {"imagePath": f"..\\elsewhere\\{name}.jpg", "imageHeight": size[0], "imageWidth": size[1]}
    (folder / f"{name}.json").write_text(json.dumps({"version": "5.0", "shapes": shapes, **content}))
    return folder


def shape(label, points, kind="polygon", group=None):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def test_shapes_and_groups_of_labelme(tmp_path):
    corners = [[10, 5], [20, 5], [20, 15], [10, 15]]
    shapes = [
        shape("pear", corners, group=1),
        shape("pear", [[30, 5], [40, 5], [40, 15], [30, 15]], group=1),
        shape("apple", [[20, 15], [10, 5]], "rectangle"),
        shape("apple", [[30, 20], [30, 30]], "circle"),
        shape("apple", [[1, 1]], "point"),
        shape("apple", [[1, 1]], "circle"),
        {"points": corners},
    ]
    dataset = data.LabelMe(labelme(tmp_path, *shapes))
    [sample] = dataset
    assert dataset.class_names == ["apple", "pear"] and sample["labels"].tolist() == [2, 1, 1]
    assert sample["boxes"][:2].tolist() == [[10, 5, 40, 15], [10, 5, 20, 15]] and sample["masks"][0].sum() == 200
    assert sample["masks"][2].sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert list(dataset.dropped) == ["a, shape 4", "a, shape 5", "a, shape 6"]


def test_an_image_of_another_size_than_labelme_states(tmp_path):
    labelme(tmp_path, shape("pear", [[1, 1], [9, 1], [9, 9]]))
    photo(tmp_path / "a.jpg", (30, 60))
    with pytest.raises(data.DataError, match="is 60 x 30 pixels, but 60 x 40 in its annotations"):
        data.LabelMe(tmp_path)[0]


# YOLO ---------------------------------------------------------------------------------------------------------------


def yolo(root, lines, split="train", name="a"):
    photo(root / "images" / split / f"{name}.jpg")
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    (root / "labels" / split / f"{name}.txt").write_text(lines, encoding="utf-8")
    return root / "images" / split


def test_polygons_and_boxes_of_yolo(tmp_path, caplog):
    images = yolo(tmp_path, "1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n\n0 0.5 0.5 0.5 0.5\n")
    photo(images / "empty.jpg")
    (tmp_path / "labels" / "train" / "orphan.txt").write_text("")
    dataset = data.Yolo(images, ["pear", "apple", "fig"])
    assert dataset.class_names == ["pear", "apple", "fig"] and len(dataset) == 2
    assert "1 label files have no image (orphan.txt)" in caplog.text
    assert dataset[0]["labels"].tolist() == [2, 1] and len(dataset[1]["labels"]) == 0
    np.testing.assert_allclose(dataset[0]["boxes"], [[6, 4, 30, 20], [15, 10, 45, 30]])
    assert data.Yolo(images).class_names == ["0", "1"]


def test_files_that_editors_on_windows_and_ultralytics_write_are_read(tmp_path):
    line = "0.1 0.1 0.5 0.1 0.5 0.5"
    images = yolo(tmp_path, f"\N{BYTE ORDER MARK}0 {line}\r\n1.0 {line}\r\n0.5 {line}\r\n")
    (tmp_path / "classes.txt").write_text("\N{BYTE ORDER MARK}pear\r\nfig\r\n", encoding="utf-8")
    names = read_classes(tmp_path / "classes.txt")
    dataset = data.Yolo(images, names)
    assert names == ["pear", "fig"] and dataset[0]["labels"].tolist() == [1, 2]
    assert dataset.dropped == {"a.txt, line 3": "it is not a class number and coordinates"}


def test_lines_that_cannot_be_used_are_named(tmp_path):
    bad = ["x 0.1 0.1", "0 0.1 0.1 0.2", "0 0.1 nan 0.2 0.2 0.3 0.3", "9 0.1 0.1 0.5 0.1 0.5 0.5", "0"]
    dataset = data.Yolo(yolo(tmp_path, "\n".join([*bad, "0 0.1 0.1 0.5 0.1 0.5 0.5"])), ["pear"])
    assert dataset[0]["labels"].tolist() == [1]
    assert list(dataset.dropped) == [f"a.txt, line {number}" for number in range(1, 6)]
    assert dataset.dropped["a.txt, line 4"] == "its class 9 is not among the 1 names"


# Real sets ----------------------------------------------------------------------------------------------------------


def test_droplets(kmr_data):
    train = data.Via(kmr_data / "droplets_via" / "balloon" / "train", default="droplet")
    assert len(train) == 72 and sum(len(train.labels_at(i)) for i in range(72)) == 1241 and not train.dropped
    sample = train[0]
    assert sample["image"].shape == (1024, 1280, 3) and len(sample["masks"]) == len(train.labels_at(0))


def test_coco128(kmr_data, caplog):
    dataset = data.Yolo(kmr_data / "coco128-seg" / "images" / "train2017")
    assert len(dataset) == 104 and sum(len(dataset.labels_at(i)) for i in range(104)) == 667
    assert "2 label files have no image" in caplog.text and not dataset.dropped
    empty = [record.image_id for record in dataset.records if not record.instances]
    assert empty == ["000000000250", "000000000508"]
    grey = next(i for i, record in enumerate(dataset.records) if record.image_id == "000000000086")
    assert dataset[grey]["image"].shape[2] == 3
