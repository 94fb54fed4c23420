"""Label maps from the masks of instances."""

import numpy as np
import pytest

from keras_maskrcnn import data


class Three(data.Dataset):
    """A large object, a small one inside it, and a crowd beside them that the large one covers in part."""

    class_names = ("a", "b")

    def __len__(self):
        return 1

    def read(self, position):
        masks = np.zeros((3, 6, 8), bool)
        masks[0, 1:3, 1:3], masks[1, :5, :5], masks[2, :, 4:] = True, True, True
        return {
            "image": np.zeros((6, 8, 3), np.uint8),
            "labels": [2, 1, 1],
            "masks": masks,
            "crowd": np.array([False, False, True]),
            "source": "three",
        }


def test_the_smallest_mask_has_the_pixel_and_crowds_are_ignored():
    dataset = data.SemanticMasks(Three())
    expected = np.zeros((6, 8), np.uint8)
    expected[:, 4:] = 255
    expected[:5, :5] = 1
    expected[1:3, 1:3] = 2
    sample = dataset[0]
    np.testing.assert_array_equal(sample["semantic"], expected)
    assert sample["fields"][-1].class_names == ("background", "a", "b")
    assert dataset.class_names == ("a", "b") and data.SemanticMasks(Three(), ignore=9)[0]["semantic"].max() == 9


def test_an_image_without_objects_is_background():
    class Empty(Three):
        def read(self, position):
            sample = super().read(position)
            return {**sample, "labels": [], "masks": np.zeros((0, 6, 8), bool), "crowd": np.zeros(0, bool)}

    assert not data.SemanticMasks(Empty())[0]["semantic"].any()


def test_batches_augmentation_and_wrappers_carry_it():
    dataset = data.Subset(data.SemanticMasks(Three()), [0, 0])
    _, y = data.batches(dataset, (12, 20), 2, mask_size=None, augment="flip", backend="numpy")[0]
    assert y["semantic"].shape == (2, 12, 20) and (y["semantic"][:, :, 16:] == 255).all()
    mirrored = dataset[0]["semantic"][:, ::-1].repeat(2, 0).repeat(2, 1)
    plain = dataset[0]["semantic"].repeat(2, 0).repeat(2, 1)
    for one in y["semantic"][:, :, :16]:
        assert (one == plain).all() or (one == mirrored).all()


def test_errors():
    with pytest.raises(ValueError, match="Scenes has the field 'semantic' already"):
        data.SemanticMasks(data.Scenes(1))
    with pytest.raises(ValueError, match="ignore=2 of 'semantic' must be a label up to 255 that no class has"):
        data.SemanticMasks(Three(), ignore=2)
