"""Pascal VOC's layout, generated."""

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn import data


def palette(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768).astype("uint8").tobytes())
    image.save(path)


@pytest.fixture
def folder(tmp_path):
    objects, classes = np.zeros((20, 30), int), np.zeros((20, 30), int)
    objects[2:8, 3:9], objects[10:16, 20:30] = 1, 2
    classes[2:8, 3:9], classes[10:16, 20:30] = 15, 1  # person, aeroplane
    objects[2, 3:9], classes[2, 3:9] = 255, 255
    classes[10, 20:22] = 15
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, split in (("2007_000001", "train"), ("2007_000002", "val")):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        palette(objects, tmp_path / "SegmentationObject" / f"{name}.png")
        palette(classes, tmp_path / "SegmentationClass" / f"{name}.png")
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(name)
    return tmp_path


def test_objects_and_their_classes(folder):
    train, val = data.splits(folder)
    [sample] = train
    assert type(train) is data.Voc and sample["image_id"] == "2007_000001" and val[0]["image_id"] == "2007_000002"
    assert [train.class_names[label - 1] for label in sample["labels"]] == ["person", "aeroplane"]
    np.testing.assert_array_equal(sample["boxes"], [[3, 3, 9, 8], [20, 10, 30, 16]])
    assert len(data.Voc(folder, "all")) == 2


def test_faults_are_one_line(folder):
    with pytest.raises(data.DataError, match=r"trainval\.txt: no such list"):
        data.Voc(folder, "trainval")
    with pytest.raises(data.DataError, match="no such folder"):
        data.Voc(folder / "none")
    with pytest.raises(data.DataError, match="object 1 has the class 15, of 2 in SegmentationClass"):
        data.Voc(folder, class_names=["a", "b"])[0]
    palette(np.zeros((20, 30)), folder / "SegmentationClass" / "2007_000001.png")
    with pytest.raises(data.DataError, match="object 1 has no class in SegmentationClass"):
        data.Voc(folder)[0]
    palette(np.zeros((10, 30)), folder / "SegmentationClass" / "2007_000001.png")
    with pytest.raises(data.DataError, match=r"the mask has shape \[10, 30\]"):
        data.Voc(folder)[0]
