"""Open Images' layouts, generated."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data

HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
TABLE = "annotations-object-segmentation.csv"
SIZE = (20, 40)  # of the images; the masks are twice as large


def mask(path, x1, y1, x2, y2, size=(40, 80)):
    values = np.zeros(size, bool)
    values[y1:y2, x1:x2] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folder(tmp_path):
    for part, names in (("train", "ab"), ("validation", "c")):
        rows = [HEADER]
        for name in names:
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(tmp_path / part / f"0{name}.jpg")
            for label, (x1, y1, x2, y2) in {"m0dog": (4, 4, 24, 20), "m0cat": (40, 20, 60, 40)}.items():
                mask(tmp_path / f"{part}-masks" / f"0{name}_{label}.png", x1, y1, x2, y2)
                # The box of the cat is one pixel wider than its mask.
                shares = (x1 / 80, (x2 + 2 * (label == "m0cat")) / 80, y1 / 40, y2 / 40)
                stated = ",".join(str(share) for share in shares)
                rows.append(f"0{name}_{label}.png,0{name},/m/{label[1:]},box,{stated},0.8,0.1 0.2 1;0.3 0.4 0")
        rows.append("0z.png,0z,/m/0fish,box,0,1,0,1,0.8,")  # an image that is not downloaded
        (tmp_path / f"{part}-{TABLE}").write_text("\n".join(rows))
    (tmp_path / "class-descriptions-boxable.csv").write_text('/m/0cat,Cat\n/m/0dog,"Dog, small"\n/m/0fish,Fish\n')
    return tmp_path


def test_masks_are_scaled_to_the_images(folder, caplog, assert_round_trip):
    train, val = data.splits(folder)
    assert type(train) is data.OpenImages and train.class_names == ["Cat", "Dog, small", "Fish"] == val.class_names
    assert "1 of 3 images are not in" in caplog.text and len(val) == 1
    sample = train[0]
    assert sample["image_id"] == "0a" and sample["labels"].tolist() == [2, 1] == train.labels_at(0).tolist()
    np.testing.assert_array_equal(sample["boxes"], [[2, 2, 12, 10], [20, 10, 31, 20]])
    np.testing.assert_array_equal(data.mask_boxes(sample["masks"]), [[2, 2, 12, 10], [20, 10, 30, 20]])
    assert_round_trip(train, folder / "out.json")


def test_a_pixel_that_is_covered_by_half_belongs_to_the_object(folder):
    mask(folder / "train-masks" / "0a_m0dog.png", 5, 4, 25, 20)
    np.testing.assert_array_equal(data.mask_boxes(data.open(folder, "train")[0]["masks"])[0], [2, 2, 13, 10])


def test_classes_are_those_of_the_list_of_classes_with_masks(folder):
    (folder / "classes-segmentation.txt").write_text("/m/0fish\n/m/0dog\n/m/0cat\n")
    assert data.splits(folder)[0].class_names == ["Fish", "Dog, small", "Cat"]
    (folder / "classes-segmentation.txt").write_text("/m/0fish\n/m/0dog\n")
    with pytest.raises(data.DataError, match="has the class '/m/0cat', which is not one of 2"):
        data.open(folder, "train")
    (folder / "class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n/m/0dog,Dog\n")
    (folder / "classes-segmentation.txt").unlink()
    assert data.open(folder, "train").class_names == ["/m/0cat", "Dog", "/m/0fish"]


def test_a_part_without_images_is_left_out(folder):
    shutil.rmtree(folder / "train")
    [sample] = data.open(folder)
    assert sample["image_id"] == "0c" and sample["labels"].tolist() == [2, 1]


def test_other_layouts(folder, tmp_path_factory):
    expected = [sample["boxes"] for sample in data.open(folder, "train")]
    cvat, fiftyone, archives = (tmp_path_factory.mktemp(name) for name in ("cvat", "fiftyone", "archives"))
    (cvat / "annotations").mkdir()
    for name in (f"train-{TABLE}", "class-descriptions-boxable.csv"):
        shutil.copy(folder / name, cvat / "annotations" / name.replace("-boxable", ""))
    shutil.copytree(folder / "train", cvat / "images" / "train")
    shutil.copytree(folder / "train-masks", cvat / "masks" / "train")

    for place in ("labels", "metadata"):
        (fiftyone / "train" / place).mkdir(parents=True)
    shutil.copy(folder / f"train-{TABLE}", fiftyone / "train" / "labels" / "segmentations.csv")
    shutil.copy(folder / "class-descriptions-boxable.csv", fiftyone / "train" / "metadata" / "classes.csv")
    shutil.copytree(folder / "train", fiftyone / "train" / "data")
    shutil.copytree(folder / "train-masks", fiftyone / "train" / "labels" / "masks" / "0")

    for name in (f"train-{TABLE}", "class-descriptions-boxable.csv"):
        shutil.copy(folder / name, archives / name)
    shutil.copytree(folder / "train", archives / "train")
    shutil.copytree(folder / "train-masks", archives / "train-masks" / "train-masks-0")
    for path in (cvat, fiftyone, archives):
        found = data.open(path)
        assert found.class_names == ["Cat", "Dog, small", "Fish"], path
        for sample, boxes in zip(found, expected, strict=True):
            np.testing.assert_array_equal(sample["boxes"], boxes)
    shutil.rmtree(archives / "train-masks")
    with pytest.raises(data.DataError, match=f"Open Images: no folder .*train-masks for train-{TABLE}"):
        data.open(archives)


def test_objects_that_cannot_be_used_are_named(folder):
    path = folder / f"train-{TABLE}"
    header, first, *rest = path.read_text().splitlines()
    rows = [
        "flat.png,0a,/m/0dog,b,0,1,0,1,0.8,",
        "empty.png,0a,/m/0dog,b,0,1,0,1,0.8,",
        "thin.png,0a,/m/0dog,b,0.5,0.5,0,1,0.8,",
        ",0a,/m/0dog,b,0,1,0,1,0.8,",
        "x.png,0a,/m/0dog,b,0,wide,0,1,0.8,",
        "x.png,0a,/m/0dog",
    ]
    path.write_text("\n".join([header, *rows, first, *rest]))
    mask(folder / "train-masks" / "flat.png", 0, 0, 9, 9, (40, 40))
    mask(folder / "train-masks" / "empty.png", 0, 0, 0, 0)
    mask(folder / "train-masks" / "thin.png", 0, 0, 9, 9)
    train = data.open(folder, "train")
    assert train[0]["labels"].tolist() == [2, 1] == train.labels_at(0).tolist()
    assert train.dropped == {
        "line 5": "it has no MaskPath, ImageID, LabelName",
        "line 6": "could not convert string to float: 'wide'",
        "line 7": "it has 3 columns, not 10",
        "flat.png": "its mask of 40 x 40 pixels does not fit its image of 40 x 20",
        "empty.png": "its mask is empty",
        "thin.png": "its box has no width",
    }


def test_boxes_may_be_missing(folder):
    path = folder / f"train-{TABLE}"
    lines = [",".join(line.split(",")[:3]) for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    np.testing.assert_array_equal(data.open(folder, "train")[0]["boxes"], [[2, 2, 12, 10], [20, 10, 30, 20]])


def test_faults_are_one_line(folder):
    arguments = folder / f"train-{TABLE}", folder / "train", folder / "train-masks"
    (folder / "train-masks" / "0a_m0dog.png").write_bytes(b"no image")
    with pytest.raises(data.DataError, match=r"0a_m0dog\.png: cannot be read as a mask"):
        data.OpenImages(*arguments)[0]
    (folder / "train-masks" / "0a_m0dog.png").unlink()
    with pytest.raises(data.DataError, match=r"0a_m0dog\.png: no such file"):
        data.OpenImages(*arguments)[0]
    with pytest.raises(data.DataError, match=r"names 3 images, none of which is in .*train-masks"):
        data.OpenImages(arguments[0], arguments[2], arguments[2])
    with pytest.raises(data.DataError, match="no such folder"):
        data.OpenImages(arguments[0], folder / "none", arguments[2])
    with pytest.raises(data.DataError, match="is no table of masks: it has no columns MaskPath, ImageID, LabelName"):
        data.OpenImages(folder / "class-descriptions-boxable.csv", *arguments[1:])
    with pytest.raises(data.DataError, match=r"none\.csv: no such file"):
        data.OpenImages(folder / "none.csv", *arguments[1:])
    (folder / f"train-{TABLE}").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(data.DataError, match="cannot be read as a table"):
        data.OpenImages(*arguments)
    (folder / f"train-{TABLE}").write_text("MaskPath,ImageID,LabelName\n../a.png,0a,/m/0dog")
    with pytest.raises(data.DataError, match="which is outside the folder of images"):
        data.OpenImages(*arguments)[0]
