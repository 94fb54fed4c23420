import numpy as np

from keras_maskrcnn import data


def test_a_scene_depends_on_seed_and_index_alone():
    one, other, third = data.Scenes(3, seed=4)[2], data.Scenes(9, seed=4)[2], data.Scenes(3, seed=5)[2]
    for name in ("image", "masks", "semantic"):
        np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(one["image"], third["image"]) and one["source"] == "Scenes(seed=4)[2]"


def test_maps_and_masks_agree():
    scenes = data.Scenes(60, (48, 64), seed=1, objects=(1, 4))
    assert scenes.fields[0].class_names == ("things", "sky", "ground", "water")
    water = 0
    for sample in scenes:
        semantic = sample["semantic"]
        assert semantic.dtype == np.uint8 and set(np.unique(semantic)) <= {0, 1, 2, 3}
        assert not semantic[sample["masks"].any(0)].any()
        below = np.where(semantic == 0, 0, semantic)
        for column in below.T:  # sky above ground above water
            assert (np.diff(column[column > 0].astype(int)) >= 0).all()
        assert (semantic == 1).any() and (semantic == 2).any()
        water += (semantic == 3).any()
    assert 25 < water < 50


def test_regions_look_different():
    samples = list(data.Scenes(20))
    means = []
    for label in (1, 2, 3):
        pixels = [sample["image"][sample["semantic"] == label] for sample in samples]
        means.append(np.concatenate(pixels).mean(0))
    assert min(np.abs(means[a] - means[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 40


def test_shapes_that_are_hidden_are_things_without_a_mask():
    everything, annotated = (data.Scenes(40, seed=2, min_visible=share) for share in (0, 0.9))
    for one, other in zip(everything, annotated, strict=True):
        np.testing.assert_array_equal(one["semantic"], other["semantic"])
    assert sum(len(sample["labels"]) for sample in everything) > sum(len(sample["labels"]) for sample in annotated)
