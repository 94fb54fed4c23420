import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_maskrcnn import data

BOXES = [[1, 1, 6, 5], [8, 2, 20, 9], [30, 10, 40, 30]]
GROUPS = {"late": ("c", "elephant"), "early": ("a",)}


def test_worked_by_hand(in_memory, sample):
    found = data.Grouped(in_memory([sample(BOXES, labels=[1, 2, 3], crowd=np.array([True, False, False]))]), GROUPS)
    assert found.class_names == ["late", "early"] and found.num_classes == 2
    assert found[0]["labels"].tolist() == [2, 1] and found.labels_at(0).tolist() == [2, 1]
    np.testing.assert_array_equal(found[0]["boxes"], np.array(BOXES)[[0, 2]])
    np.testing.assert_array_equal(found[0]["masks"], sample(BOXES)["masks"][[0, 2]])
    assert found[0]["crowd"].tolist() == [True, False]


def test_images_without_the_groups_are_left_out(in_memory, sample):
    images = [sample(BOXES[:1], labels=[label], seed=label) for label in (2, 1, 2, 3)] + [sample([])]
    found = data.Grouped(in_memory(images), GROUPS)
    assert len(found) == 2 and found.positions == [1, 3]
    assert [part["image_id"] for part in found] == [1, 3]


@given(labels=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_are_those_of_the_samples(in_memory, sample, labels):
    images = [sample(BOXES[: len(of_one)], labels=of_one, seed=seed) for seed, of_one in enumerate(labels)]
    expected = [of_one for of_one in ([[0, 2, 0, 1][label] for label in of_one] for of_one in labels) if any(of_one)]
    if not expected:
        with pytest.raises(data.DataError, match="no readable image"):
            data.Grouped(in_memory(images), GROUPS)
        return
    found = data.Grouped(in_memory(images), GROUPS)
    assert [part["labels"].tolist() for part in found] == [[label for label in of_one if label] for of_one in expected]


def test_an_image_that_cannot_be_read_is_skipped(in_memory, sample):
    found = data.Grouped(in_memory([data.DataError("broken.png", "a reason"), sample(BOXES[:1])]), GROUPS)
    assert len(found) == 1 and found.skipped == {"broken.png": "a reason"}


def test_a_group_without_any_class(in_memory, sample):
    dataset = in_memory([sample(BOXES[:1])])
    message = "InMemory: has none of the classes of the group 'big' (elephant, whale), only a, b, c"
    with pytest.raises(data.DataError, match=re.escape(message)):
        data.Grouped(dataset, {"big": ("elephant", "whale"), "early": ("a",)})


def test_invalid_groups(in_memory, sample):
    dataset = in_memory([sample(BOXES[:1])])
    with pytest.raises(ValueError, match="groups name no class"):
        data.Grouped(dataset, {})
    with pytest.raises(ValueError, match="groups name the class 'a' twice"):
        data.Grouped(dataset, {"one": ("a", "b"), "two": ("c", "a")})


def test_no_image_is_decoded_if_labels_are_available(coco_folder):
    square = {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]], "bbox": [2, 1, 4, 3]}
    path, folder = coco_folder([square, {**square, "image_id": 1, "category_id": 7}], images=("one.png", "two.png"))
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(b"")
    found = data.Grouped(data.Subset(data.Coco(path, folder), [1, 0]), {"insect": ("ant", "bee")})
    assert found.positions == [0] and found.labels_at(0).tolist() == [1] and not found.skipped


def test_groups_of_cocos_categories():
    groups = data.VEHICLES_PEOPLE_ANIMALS
    assert list(groups) == ["vehicle", "person", "animal"] and groups["person"] == ("person",)
    assert groups["vehicle"] == ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat")
    assert len(groups["animal"]) == 10 and {"bird", "giraffe"} < set(groups["animal"])


def test_coco_tiny(kmr_data):
    coco = data.Coco.from_folder(kmr_data / "coco_tiny", "val")
    found = data.Grouped(coco, data.VEHICLES_PEOPLE_ANIMALS)
    assert len(found) == 27 and found.class_names == ["vehicle", "person", "animal"]
    assert np.bincount(np.concatenate([part["labels"] for part in found])).tolist() == [0, 38, 131, 16]
    for index, part in enumerate(found):
        names = [coco.class_names[label - 1] for label in coco[found.positions[index]]["labels"]]
        groups = [name for old in names for name, group in data.VEHICLES_PEOPLE_ANIMALS.items() if old in group]
        assert [found.class_names[label - 1] for label in part["labels"]] == groups
