"""Every kind of finding is found in a set made for it, and a clean set has none."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data.doctor import findings, survey

CASES = {}


def case(code, *details):
    """Registers a function of the fixture `coco_set` that returns a path with findings of these details only."""
    return lambda function: CASES.setdefault(code, (function, details))


def clean(coco_set, **changes):
    rectangle = coco_set.rectangle
    return coco_set([[rectangle(5, 5, 20, 30), rectangle(30, 4, 25, 20)], [rectangle(8, 8, 40, 30)]], **changes)


def one(coco_set, *annotations, picture=None, **changes):
    """A set of one image."""
    return coco_set([list(annotations)], [picture or coco_set.noise(0)], **changes)


@case("unreadable", "cannot be read as an image")
def unreadable(coco_set):
    path = clean(coco_set)
    file = path / "images" / "1.png"
    file.write_bytes(file.read_bytes()[:300])
    return path


@case("size-differs", "the image has 60 x 40 pixels, its annotations 40 x 60, as if width and height were swapped")
def size_differs(coco_set):
    path = one(coco_set, coco_set.rectangle(2, 2, 20, 20), picture=coco_set.noise(0, (60, 40)))
    coco_set.noise(0).save(path / "images" / "1.png")
    return path


@case("exif", "orientation 6; the annotations fit the stored image")
def exif(coco_set):
    path = one(coco_set, coco_set.rectangle(2, 2, 20, 20))
    turned = Image.Exif()
    turned[0x0112] = 6
    coco_set.noise(0).save(path / "images" / "1.png", exif=turned)
    return path


@case("mode", "stored as P")
def mode(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 20, 20), picture=coco_set.noise(0).convert("P"))


@case("transparent", "stored as RGBA with transparent pixels")
def transparent(coco_set):
    picture = coco_set.noise(0)
    picture.putalpha(Image.fromarray(np.full((40, 60), 200, np.uint8)))
    return one(coco_set, coco_set.rectangle(2, 2, 20, 20), picture=picture)


@case("frames", "2 frames")
def frames(coco_set):
    path = one(coco_set, coco_set.rectangle(2, 2, 20, 20))
    coco_set.noise(0).save(path / "images" / "1.png", save_all=True, append_images=[coco_set.noise(1)])
    return path


@case("empty", "no annotation")
def empty(coco_set):
    return coco_set([[coco_set.rectangle(2, 2, 20, 20)], []])


@case("crowded", "105 objects")
def crowded(coco_set):
    grid = [coco_set.rectangle(4 * x, 4 * y, 4, 4) for x in range(15) for y in range(7)]
    return one(coco_set, *grid)


@case("degenerate", "annotation 1: 12, 0 pixels wide and high", "annotation 2: 0, 0 pixels wide and high")
def degenerate(coco_set):
    flat, point = coco_set.rectangle(2, 2, 12, 9, bbox=[2, 2, 12, 0]), coco_set.rectangle(3, 3, 0, 0)
    return one(coco_set, flat, point, coco_set.rectangle(2, 2, 20, 20))


@case("outside", "annotation 1: 5.0 pixels outside of 60 x 40")
def outside(coco_set):
    return one(coco_set, coco_set.rectangle(50, 10, 15, 20), coco_set.rectangle(0, 30.5, 20, 10.2))


@case("swapped", "x up to 35 and y up to 55 in 60 x 40 pixels")
def swapped(coco_set):
    return one(coco_set, coco_set.rectangle(10, 30, 25, 25))


@case("box-off-mask", "annotation 1: 3.00 pixels, box 5, 5, 28, 25, mask 5, 5, 25, 25")
def box_off_mask(coco_set):
    off = coco_set.rectangle(5, 5, 20, 20, bbox=[5, 5, 23, 20])
    return one(coco_set, off, coco_set.rectangle(30, 5, 20, 20, bbox=[30, 5, 22, 20]))


@case("small", "30 x 15 pixels")
def small(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 30, 15), coco_set.rectangle(2, 20, 16, 16))


@case("tiny", "15 pixels")
def tiny(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 5, 3), coco_set.rectangle(20, 20, 4, 4))


@case("parts", "2 parts of 400, 25 pixels")
def parts(coco_set):
    two = [*coco_set.rectangle(2, 2, 20, 20)["segmentation"], *coco_set.rectangle(30, 2, 5, 5)["segmentation"]]
    return one(coco_set, coco_set.rectangle(2, 2, 33, 20, segmentation=two))


@case("polygons", "annotation 1: 2 polygons")
def polygons(coco_set):
    two = [*coco_set.rectangle(2, 2, 20, 20)["segmentation"], *coco_set.rectangle(20, 2, 5, 20)["segmentation"]]
    return one(coco_set, coco_set.rectangle(2, 2, 23, 20, segmentation=two))


@case("uncompressed", "annotation 1: 3 counts, area 400")
def uncompressed(coco_set):
    run = {"size": [40, 60], "counts": [400, 800, 1200]}  # columns 10 to 29
    return one(coco_set, coco_set.rectangle(10, 0, 20, 40, segmentation=run, area=400))


@case("crowd", "crowd region")
def crowd(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 20, 20), coco_set.rectangle(30, 2, 20, 20, iscrowd=1))


@case("overlap", "2 pairs; most, 100 pixels, are shared by instances 1 and 2")
def overlap(coco_set):
    corners = ((2, 2), (20, 2), (35, 2))
    return one(coco_set, *(coco_set.rectangle(x, y, 20, 20) for x, y in corners))


@case("twice", "instance 1 is instance 0 again")
def twice(coco_set):
    other = coco_set.rectangle(2, 2, 20, 20, category_id=2)
    classes = [{"id": 1, "name": "pear"}, {"id": 2, "name": "fig"}]
    first, second = coco_set.rectangle(2, 2, 20, 20), coco_set.rectangle(2, 2, 20, 21)
    return one(coco_set, first, second, other, categories=classes)


@case("left-out", "its mask is missing")
def left_out(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 20, 20), coco_set.rectangle(2, 2, 20, 20, segmentation=[]))


@case("no-object-of-class", "no object")
def no_object_of_class(coco_set):
    return clean(coco_set, categories=[{"id": 1, "name": "pear"}, {"id": 2, "name": "fig"}])


@case("rare-class", "3 objects")
def rare_class(coco_set):
    return clean(coco_set)


@case("imbalance", "51 objects of pear, 1 of fig")
def imbalance(coco_set):
    pears = [[coco_set.rectangle(2, 2, 30, 30)] for _ in range(51)]
    pears[0].append(coco_set.rectangle(40, 2, 18, 18, category_id=2))
    return coco_set(pears, categories=[{"id": 1, "name": "pear"}, {"id": 2, "name": "fig"}])


@case("mostly-empty", "2 of 3 images")
def mostly_empty(coco_set):
    return coco_set([[coco_set.rectangle(2, 2, 30, 30)], [], []])


@case("sizes", "2 sizes: 60 x 40 (2), 50 x 50 (1)")
def sizes(coco_set):
    pictures = [coco_set.noise(0), coco_set.noise(1), coco_set.noise(2, (50, 50))]
    return coco_set([[coco_set.rectangle(2, 2, 30, 30)]] * 3, pictures)


@case("grey", "1 of 3 images")
def grey(coco_set):
    pictures = [coco_set.noise(0).convert("L").convert("RGB"), coco_set.noise(1).convert("L"), coco_set.noise(2)]
    return coco_set([[coco_set.rectangle(2, 2, 30, 30)]] * 3, pictures)


@case("mixture", "1 grey and 1 coloured images", "1 dark and 1 bright images")
def mixture(coco_set):
    dark = coco_set.noise(0).convert("L").point(lambda value: value / 8)
    bright = coco_set.noise(1).point(lambda value: 200 + value / 8)
    return coco_set([[coco_set.rectangle(2, 2, 30, 30)]] * 2, [dark, bright])


@case("no-info", "no info and no licenses")
def no_info(coco_set):
    path = clean(coco_set)
    content = json.loads((path / "set.json").read_text())
    (path / "set.json").write_text(
        json.dumps({key: content[key] for key in content if key not in ("info", "licenses")})
    )
    return path


@case("ids", "annotations: ids 7 to 9, 1 missing in between", "categories: ids 2 to 2, 0 missing in between")
def ids(coco_set):
    first, second = (coco_set.rectangle(2, 2, 20, 20, category_id=2, id=number) for number in (7, 9))
    return coco_set([[first], [second]], categories=[{"id": 2, "name": "pear"}])


@case("fractions", "1 of 2 boxes are floating-point numbers")
def fractions(coco_set):
    return one(coco_set, coco_set.rectangle(2, 2, 20, 20), coco_set.rectangle(30, 2, 20.5, 20))


@case("licences", "1 images: Attribution-NoDerivs License")
def licences(coco_set):
    path = clean(coco_set, licenses=[{"id": 6, "name": "Attribution-NoDerivs License"}, {"id": 4, "name": "CC BY"}])
    content = json.loads((path / "set.json").read_text())
    content["images"][0]["license"], content["images"][1]["license"] = 6, 4
    (path / "set.json").write_text(json.dumps(content))
    return path


def via(folder, regions, noise, **entry):
    folder.mkdir()
    noise(0).save(folder / "a.png")
    content = {"a.png9": {"filename": "a.png", "size": (folder / "a.png").stat().st_size, "regions": regions, **entry}}
    (folder / "via_region_data.json").write_text(json.dumps(content))
    return folder


SQUARE = {"name": "rect", "x": 2, "y": 2, "width": 20, "height": 20}
PEAR = {"shape_attributes": SQUARE, "region_attributes": {"name": "pear"}}


@case("via-size", "size 12, the file has")
def via_size(coco_set):
    return via(coco_set.folder / "via", [PEAR], coco_set.noise, size=12)


@case("via-layout", "1 of 1 images have regions as a dict (VIA 1)")
def via_layout(coco_set):
    return via(coco_set.folder / "via", {"0": PEAR}, coco_set.noise)


@case("no-class", "1 of 1 regions; classes of the reader: object")
def no_class(coco_set):
    return via(coco_set.folder / "via", [{**PEAR, "region_attributes": {}}], coco_set.noise)


def yolo(coco_set, images, labels):
    folder = coco_set.folder / "yolo"
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for number, name in enumerate(images):
        coco_set.noise(number).save(folder / "images" / "train" / f"{name}.png")
    for name in labels:
        (folder / "labels" / "train" / f"{name}.txt").write_text("0 0.1 0.1 0.6 0.1 0.6 0.9")
    return folder


@case("rectangles", "10 of 10 objects with sides of 16 pixels or more")
def rectangles(coco_set):
    return coco_set([[coco_set.rectangle(3 + 30 * j, 4, 16 + j, 20 + i) for j in (0, 1)] for i in range(5)])


@case("same-name", "2 classes")
def same_name(coco_set):
    return clean(coco_set, categories=[{"id": 1, "name": "pear"}, {"id": 2, "name": "pear"}])


@case("one-id", "has the id 255 only")
def one_id(coco_set):
    folder = coco_set.folder / "masks_of_foreground"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    coco_set.noise(0).save(folder / "images" / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[2:20, 2:20] = mask[24:38, 30:50] = 255
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    return folder


@case("no-label-file", "no label file")
def no_label_file(coco_set):
    return yolo(coco_set, "ab", "a")


@case("no-image", "no image")
def no_image(coco_set):
    return yolo(coco_set, "a", "ab")


@case("duplicate", "the same pixels as")
def duplicate(coco_set):
    path = clean(coco_set)
    coco_set.noise(0).save(path / "images" / "2.png")
    return path


@case("near-duplicate", "2 images: also 3.png")
def near_duplicate(coco_set):
    pictures = [coco_set.noise(0), coco_set.noise(1), coco_set.noise(0).point(lambda value: value * 0.8)]
    return coco_set([[coco_set.rectangle(2, 2, 30, 30)]] * 3, pictures)


@case("unlisted", "is in no list")
def unlisted(coco_set):
    path = clean(coco_set)
    coco_set.noise(5).save(path / "images" / "5.png")
    return path


def two_sets(coco_set, pictures, **changes):
    for name, picture in zip(("train", "val"), pictures, strict=True):
        path = one(coco_set, coco_set.rectangle(2, 2, 20, 20), picture=picture, name=f"two/{name}", **changes)
        (path / "set.json").rename(path / "_annotations.coco.json")
        (path / "images" / "1.png").rename(path / "1.png")
    return path.parent


@case("leak", "the same pixels as")
def leak(coco_set):
    return two_sets(coco_set, [coco_set.noise(0)] * 2)


@case("near-leak", "looks like")
def near_leak(coco_set):
    return two_sets(coco_set, [coco_set.noise(0), coco_set.noise(0).point(lambda value: value * 0.8)])


@case("class-unseen", "1 objects, none in train")
def class_unseen(coco_set):
    classes = [{"id": 1, "name": "pear"}, {"id": 2, "name": "fig"}]
    path = two_sets(coco_set, [coco_set.noise(0), coco_set.noise(1)], categories=classes)
    file = path / "val" / "_annotations.coco.json"
    file.write_text(file.read_text().replace('"category_id": 1', '"category_id": 2'))
    return path


@case("set", "has the unknown category_id 9", "has the id 1 of another one, and gets a new one", "lacks image_id")
def records(coco_set):
    path = one(coco_set, *(coco_set.rectangle(x, 2, 10, 30, id=1) for x in (2, 14)))
    content = json.loads((path / "set.json").read_text())
    first = content["annotations"][0]
    content["annotations"] += [{**first, "id": 5, "category_id": 9}, {"id": 6, "category_id": 1}]
    (path / "set.json").write_text(json.dumps(content))
    return path


def test_every_kind_has_a_case():
    assert set(CASES) == set(findings.KINDS)


@pytest.mark.parametrize("code", CASES)
def test_the_kind_is_found(coco_set, code):
    build, expected = CASES[code]
    found = data.inspect(build(coco_set)).findings
    details = [finding.detail for finding in found.of(code)]
    assert len(details) == found.count(code) == len(expected), details
    for part in expected:
        assert any(part in detail for detail in details), details


def test_a_clean_set_is_fine(coco_set):
    report = data.inspect(clean(coco_set))
    assert {kind.code for kind in report.findings.kinds()} == {"rare-class"}
    assert (report.verdict, report.exit_code) == ("fine", 0)


def test_the_convention_of_a_wrong_box_is_named(coco_set):
    rectangle = coco_set.rectangle
    corners = rectangle(5, 6, 20, 25, bbox=[5, 6, 25, 31])
    transposed = rectangle(5, 6, 20, 25, bbox=[6, 5, 25, 20])
    centred = rectangle(5, 6, 20, 25, bbox=[15, 18.5, 20, 25])
    found = data.inspect(one(coco_set, corners, transposed, centred)).findings.of("box-off-mask")
    names = [finding.detail.rpartition("fits as ")[2] for finding in found]
    assert names == ["x1, y1, x2, y2", "y, x, height, width", "centre, width, height"]


def test_damaged_sets_do_not_stop_the_others(coco_set, tmp_path):
    folder = tmp_path / "labelme"
    folder.mkdir()
    shape = {"label": "pear", "points": [[1, 1], [30, 1], [30, 30]], "shape_type": "polygon"}
    for number, name in enumerate("ab"):
        coco_set.noise(number + 5).save(folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.png", "shapes": [shape]}))
    (folder / "c.json").write_text("{")
    path = clean(coco_set)
    (path / "images" / "2.png").write_bytes(b"no image")
    report = data.inspect(folder, path)
    assert [len(part.rows) for part in report.parts] == [2, 1] and report.exit_code == 2
    (broken,) = report.findings.of("set")
    assert broken.source == str(folder / "c.json") and "cannot be read as JSON" in broken.detail
    (unreadable,) = report.findings.of("unreadable")
    assert unreadable.source == str(path / "images" / "2.png")


def test_a_set_that_cannot_be_opened_is_named(coco_set):
    path = two_sets(coco_set, [coco_set.noise(0), coco_set.noise(1)])
    (path / "val" / "_annotations.coco.json").write_text("{")
    report = data.inspect(path)
    assert report.closed == ["val"] and report.verdict == "cannot be opened: val" and report.exit_code == 2
    assert [part.name for part in report.parts] == ["train"]
    assert "is not valid JSON" in report.findings.of("set")[0].detail


def test_kinds_are_complete_texts():
    for kind in findings.KINDS.values():
        assert kind.level in findings.LEVELS and len(kind.advice) > 20 and kind.title[-1] != "."
    with pytest.raises(ValueError, match="exists already"):
        findings.image_check("tiny", "note", "t", "a")(lambda facts: ())


def test_findings_are_counted_beyond_the_examples():
    found = findings.Findings()
    for number in range(findings.EXAMPLES + 7):
        found.add(findings.Finding("tiny", "train", str(number), ""))
    found.add(findings.Finding("tiny", "val", "x", ""))
    assert len(found.of("tiny", "train")) == findings.EXAMPLES and found.count("tiny", "train") == findings.EXAMPLES + 7
    assert found.count("tiny") == findings.EXAMPLES + 8 and found.worst == "warning"


def test_the_worst_images_come_first(coco_set):
    rectangle = coco_set.rectangle
    bad = [rectangle(5, 5, 20, 20, bbox=[5, 5, 30, 30]), rectangle(30, 5, 3, 3)]
    report = data.inspect(coco_set([[rectangle(2, 2, 20, 20)], bad, [rectangle(5, 5, 20, 20, bbox=[5, 5, 26, 20])]]))
    assert [position for _, position in report.worst(5)] == [1, 2]
    assert report.weights[("all", 1)] == 2 * survey.WEIGHTS["warning"]


def test_progress_counts_all_sets(coco_set):
    seen = []
    data.inspect(clean(coco_set), data.Shapes(2), step=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
