"""What the notes on the real data sets call odd is found, one test each."""

import functools

import pytest

from keras_maskrcnn import data


@pytest.fixture(scope="module")
def inspected():
    """Function from paths to their report, which is made once; with `split`, of that list of nuclei."""
    return functools.cache(
        lambda *paths, split=None: data.inspect(*paths if split is None else [data.Nuclei(paths[0], split)])
    )


@pytest.fixture
def penn(kmr_data, inspected):
    return inspected(kmr_data / "PennFudanPed")


@pytest.fixture
def fruits(kmr_data, inspected):
    return inspected(kmr_data / "fruits_nuts")


@pytest.fixture
def droplets(kmr_data, inspected):
    return inspected(kmr_data / "droplets_via")


@pytest.fixture
def coco(kmr_data, inspected):
    return inspected(kmr_data / "coco_tiny")


@pytest.fixture
def yolo(kmr_data, inspected):
    return inspected(kmr_data / "coco128-seg")


@pytest.fixture
def cells(kmr_data, inspected):
    """The 50 validation images; the whole set is in the slow test."""
    return inspected(kmr_data / "nuclei", split="val")


def details(report, code, part=None):
    return [finding.detail for finding in report.findings.of(code, part)]


def names(report, code, part=None):
    return {finding.source.rpartition("/")[2] for finding in report.findings.of(code, part)}


# Penn-Fudan. That some visible people are not labelled cannot be seen in the files; the page says so.


def test_ten_people_have_several_parts(penn):
    assert penn.findings.count("parts") == 10


def test_the_text_box_of_person_6_is_wider_than_its_mask(penn):
    (finding,) = penn.findings.of("box-off-mask")
    assert finding.source.endswith("PennPed00019.png") and finding.detail.startswith("person 6: 3.00 pixels")


def test_the_smallest_person_and_the_sizes_of_the_photos(penn):
    assert min(numbers["smallest_mask"] for numbers in penn.statistics.values()) == 77
    assert penn.findings.count("sizes") == 2
    assert {name: (n["images"], n["objects"]) for name, n in penn.statistics.items()} == {
        "train": (120, 300),
        "val": (20, 48),
    }


# Nuclei.


def test_nuclei_are_rgba_and_opaque(cells):
    assert cells.findings.count("mode") == 50 and set(details(cells, "mode")) == {
        "stored as RGBA, alpha is 255 throughout"
    }


def test_nuclei_mix_fluorescence_and_stained_tissue(cells):
    assert details(cells, "mixture") == ["43 grey and 7 coloured images", "38 dark and 11 bright images"]


def test_masks_of_nuclei_in_the_original_layout_overlap_and_have_two_parts(kmr_data):
    report = data.inspect(data.Nuclei(kmr_data / "nuclei", "all", part="original_layout_sample"))
    (overlap,), (parts,) = names(report, "overlap"), names(report, "parts")
    assert overlap.startswith("0a7d30b2") and parts.startswith("ef3ef194")
    assert details(report, "overlap")[0].startswith("1 pairs; most, 2 pixels, are shared by instances")


@pytest.mark.slow
def test_all_nuclei(kmr_data, inspected):
    report = inspected(kmr_data / "nuclei")
    statistics = report.statistics.values()
    assert report.findings.count("mode") == 584
    assert details(report, "grey") == ["445 of 534 images", "43 of 50 images"]  # 488 of 584
    assert sum(n["objects"] for n in statistics) == 23_496 + 2_076
    assert min(n["objects_per_image"]["min"] for n in statistics) == 1
    assert max(n["objects_per_image"]["max"] for n in statistics) == 375
    assert min(n["smallest_mask"] for n in statistics) == 21
    assert len(set().union(*(n["image_sizes"] for n in statistics))) == 8
    assert {name[:8] for name in names(report, "parts")} == {"ef3ef194"}


# Fruits and nuts.


def test_fruits_have_no_info_and_licenses(fruits):
    assert details(fruits, "no-info") == ["no info and no licenses"]


def test_ids_of_fruits_start_at_0_and_have_gaps(fruits):
    images, annotations = details(fruits, "ids")
    assert images == "images: ids 0 to 17, 4 missing in between"
    assert annotations.startswith("annotations: ids 1 to ") and " 0 missing" not in annotations


def test_boxes_of_fruits_are_floats(fruits):
    assert details(fruits, "fractions") == ["131 of 131 boxes are floating-point numbers"]


def test_nothing_else_is_wrong_with_the_fruits(fruits):
    assert (fruits.verdict, fruits.exit_code) == ("fine", 0)


# Droplets. That some droplets are not labelled cannot be seen in the files.


def test_droplets_are_of_version_1_without_classes_and_keys_are_bare(droplets):
    version, keys = details(droplets, "via-layout", "train")
    assert version == "72 of 72 images have regions as a dict (VIA 1)"
    assert keys == "72 of 72 keys are the bare file name, not name and size"
    assert details(droplets, "no-class", "val") == ["63 of 63 regions; classes of the reader: object"]


def test_the_size_of_every_droplet_image_is_wrong(droplets):
    assert droplets.findings.count("via-size") == 74
    assert any(detail.startswith("size 1310720,") for detail in details(droplets, "via-size"))


def test_one_droplet_image_is_in_both_sets(droplets):
    (leak,) = droplets.findings.of("leak")
    assert leak.part == "val" and leak.source.endswith("val/video1image0.jpg")
    assert "train/video1image0.jpg in train" in leak.detail and droplets.exit_code == 1


def test_the_other_droplet_image_is_a_frame_next_to_one_in_train(droplets):
    assert "video6image11.jpg" in names(droplets, "near-leak", "val")


def test_droplets_are_neighbouring_frames(droplets):
    in_groups = sum(int(detail.partition(" ")[0]) for detail in details(droplets, "near-duplicate", "train"))
    assert in_groups > 72 / 2


def test_sizes_and_counts_of_droplets(droplets):
    sizes = set(droplets.statistics["train"]["image_sizes"]) | set(droplets.statistics["val"]["image_sizes"])
    assert sizes == {"1280 x 400", "1920 x 1080", "1280 x 1024", "1024 x 768"}
    per_image = droplets.statistics["train"]["objects_per_image"]
    assert (per_image["min"], per_image["max"]) == (3, 101)
    assert details(droplets, "crowded") == ["101 objects"]


# COCO.


def test_category_ids_have_gaps(coco):
    assert "categories: ids 1 to 90, 10 missing in between" in details(coco, "ids", "train")


def test_crowds_have_uncompressed_run_lengths_and_whole_areas(coco):
    assert [coco.findings.count("uncompressed", part) for part in ("train", "val")] == [26, 6]
    assert [coco.findings.count("crowd", part) for part in ("train", "val")] == [26, 6]
    assert all(detail.rpartition("area ")[2].isdigit() for detail in details(coco, "uncompressed"))


def test_two_images_have_no_annotation(coco):
    assert names(coco, "empty", "train") == {"000000262284.jpg", "000000058636.jpg"}


def test_annotations_of_more_than_one_polygon(coco):
    assert coco.findings.count("polygons", "train") == 131


def test_nine_masks_are_under_16_pixels(coco):
    assert coco.findings.count("tiny", "train") == 9


def test_instances_overlap_and_are_up_to_51(coco):
    assert coco.findings.count("overlap") > 100
    assert coco.statistics["train"]["objects_per_image"]["max"] == 51


def test_there_is_no_elephant_in_train(coco):
    assert [finding.source for finding in coco.findings.of("no-object-of-class", "train")] == ["elephant"]
    assert [finding.source for finding in coco.findings.of("class-unseen", "val")] == ["elephant"]


def test_eleven_boxes_are_more_than_three_pixels_off(coco):
    off = [float(detail.split(": ")[1].split()[0]) for detail in details(coco, "box-off-mask", "train")]
    assert len(off) == coco.findings.count("box-off-mask", "train")
    assert sum(pixels > 3.0 for pixels in off) == 11


def test_the_smallest_side_and_the_licences(coco):
    assert min(numbers["smallest_image_side"] for numbers in coco.statistics.values()) == 213
    assert sum(int(d.split()[0]) for d in details(coco, "licences", "train") if "NoDerivs" in d) == 80


def test_no_greyscale_file_and_no_exif(coco):
    assert not coco.findings.count("mode") and not coco.findings.count("exif")


# YOLO.


def test_two_images_have_no_label_file(yolo):
    assert names(yolo, "no-label-file") == {"000000000250", "000000000508"}


def test_two_label_files_have_no_image(yolo):
    assert names(yolo, "no-image") == {"000000000656.txt", "000000000659.txt"}


def test_one_photo_has_a_single_channel(yolo):
    assert names(yolo, "mode") == {"000000000086.jpg"} and details(yolo, "mode") == ["stored as L"]


# CIS 680.


def test_26_images_are_also_in_coco(kmr_data, inspected):
    report = inspected(kmr_data / "coco_tiny", kmr_data / "cis680_hw3_sample", kmr_data / "coco128-seg")
    parts = [f"cis680_hw3_sample/{name}" for name in ("train", "test")]
    assert sum(report.findings.count("near-leak", part) for part in parts) == 26
    assert report.findings.count("near-leak") == 26  # none in coco_tiny/val, none in coco128-seg


def test_counts_of_the_course_data(kmr_data, inspected):
    report = inspected(kmr_data / "cis680_hw3_sample")
    parts = [report.statistics[name] for name in ("train", "test")]
    assert [part["images"] for part in parts] == [36, 12]
    classes = {name: sum(part["classes"].get(name, 0) for part in parts) for name in parts[0]["classes"]}
    assert classes == {"vehicle": 29, "person": 63, "animal": 28}
    off = [float(detail.split(": ")[1].split()[0]) for detail in details(report, "box-off-mask")]
    assert max(off) < 2.15
