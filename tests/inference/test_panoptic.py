"""Panoptic merging by hand; maps in tiles and in views of an image."""

import numpy as np
import pytest

from keras_maskrcnn import data, visualize
from keras_maskrcnn.data.cropped_masks import Crop, CroppedMasks
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, Output, to_image
from keras_maskrcnn.inference.augmented import TestTimeAugmentation
from keras_maskrcnn.inference.panoptic import Panoptic, Segment, panoptic, panoptic_truth
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.inference.tiles import detect_each

SCHEMA = (*OUTPUTS, Output("masks", "box_masks"), Output("semantic", "map"))


def masks_of(*rows):
    """Masks [n, 1, 10] of ranges of columns."""
    masks = np.zeros((len(rows), 1, 10), bool)
    for mask, (low, high) in zip(masks, rows, strict=True):
        mask[0, low:high] = True
    return masks


def found_of(*objects, semantic):
    """Detections in an image of one row from (score, label, first column, end column)."""
    return {
        "scores": np.array([score for score, *_ in objects], "float32"),
        "labels": np.array([label for _, label, *_ in objects], "int32"),
        "masks": masks_of(*(columns for _, _, *columns in objects)),
        "semantic": np.array([semantic], np.uint8),
    }


OBJECTS = [(0.9, 2, 0, 4), (0.8, 1, 2, 6), (0.7, 1, 3, 6), (0.4, 1, 8, 10)]
SEMANTIC = [0, 1, 1, 1, 1, 1, 1, 1, 0, 3]


@pytest.mark.parametrize("cropped", [False, True])
def test_merging_by_hand(cropped):
    found = found_of(*OBJECTS, semantic=SEMANTIC)
    if cropped:
        found["masks"] = CroppedMasks([Crop.around(mask).packed() for mask in found["masks"]], (1, 10))
    merged = panoptic(found, stuff_area=1)
    # The second object loses half of its pixels, which is allowed; the third loses all; the fourth scores too low.
    assert merged.ids.tolist() == [[1, 1, 1, 1, 2, 2, 3, 3, 0, 4]]
    things = [(s.id, s.thing, s.label, s.area) for s in merged.segments]
    assert things == [(1, True, 2, 4), (2, True, 1, 2), (3, False, 1, 2), (4, False, 3, 1)]
    assert [s.score for s in merged.segments] == [pytest.approx(0.9), pytest.approx(0.8), None, None]
    assert panoptic(found, stuff_area=2).ids.tolist() == [[1, 1, 1, 1, 2, 2, 3, 3, 0, 0]]
    strict = panoptic(found, overlap=0.4, stuff_area=1)
    assert [s.score for s in strict.segments if s.thing] == [pytest.approx(0.9), pytest.approx(0.7)]
    low = panoptic(found, score_threshold=0.3, stuff_area=1)
    assert low.ids.tolist() == [[1, 1, 1, 1, 2, 2, 4, 4, 3, 3]]


def test_an_image_without_objects_or_stuff():
    merged = panoptic(found_of(semantic=[0] * 10), stuff_area=1)
    assert not merged.ids.any() and merged.segments == []
    with pytest.raises(ValueError, match="panoptic merging needs masks and semantic, which the model does not predict"):
        panoptic({"scores": [], "labels": []})


def test_ground_truth_by_hand():
    sample = {
        "masks": masks_of((0, 3), (2, 5)),
        "labels": np.array([3, 1]),
        "crowd": np.array([False, True]),
        "semantic": np.array([[0, 0, 0, 0, 0, 0, 2, 2, 9, 1]], np.uint8),
        "fields": (data.LabelMap("semantic", ignore=9),),
    }
    truth = panoptic_truth(sample)
    assert truth.ids.tolist() == [[1, 1, 1, 2, 2, 0, 4, 4, 0, 3]]
    assert truth.segments == [
        Segment(1, True, 3, 3),
        Segment(2, True, 1, 2, None, True),
        Segment(3, False, 1, 1),
        Segment(4, False, 2, 2),
    ]


def test_rows_keep_the_map_and_the_image_has_its_own_pixels():
    logits = np.zeros((4, 4, 3), "float32")
    logits[:, 1, 2] = 5
    rows = {"boxes": np.array([[0, 0, 4, 4], [4, 4, 8, 8]], "float32"), "scores": np.ones(2), "labels": np.ones(2, int)}
    rows |= {"masks": np.ones((2, 2, 2), "float32"), "semantic": logits}
    found = to_image(SCHEMA, rows, (2, 1), (16, 32))  # 16 x 16 pixels of the network's input
    assert found["semantic"].shape == (16, 32) and found["semantic"].dtype == np.uint8
    assert set(np.flatnonzero(found["semantic"][3])) == set(range(4, 20))  # up to the centres of the other cells
    assert list(found) == [output.name for output in SCHEMA]
    one = found.rows([1])
    assert len(one["boxes"]) == 1 and one["semantic"] is found["semantic"]
    assert found.full()["semantic"].shape == (16, 32)


def by_pixels(images, masks="cropped"):
    """The map of an image is its first channel; there are no objects."""
    for image in images:
        rows = {"boxes": np.zeros((0, 4), "float32"), "scores": np.zeros(0), "labels": np.zeros(0, int)}
        rows |= {"masks": np.zeros((0, *image.shape[:2]), bool), "semantic": image[..., 0]}
        yield Detections(rows, SCHEMA)


@pytest.mark.parametrize(("size", "overlap"), [((150, 170), 24), ((64, 200), 0), ((65, 66), 63)])
def test_maps_of_tiles_are_put_together(size, overlap):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype("uint8")
    (found,) = detect_each(by_pixels, [image], (64, 64), overlap, 10)
    np.testing.assert_array_equal(found["semantic"], image[..., 0])


def test_neighbouring_tiles_end_in_the_middle_of_what_they_share():
    def numbered(images):
        for number, image in enumerate(images):
            yield next(by_pixels([np.full_like(image, number)]))

    (found,) = detect_each(numbered, [np.zeros((64, 104, 3), np.uint8)], (64, 64), 24, 10)
    assert found["semantic"][5].tolist() == [0] * 52 + [1] * 52


def test_views_of_an_image_have_the_map_of_the_image():
    class Network:
        dynamic = True

        def __call__(self, inputs, limits):
            del limits
            count = len(inputs["images"])
            cells = inputs["images"][:, ::4, ::4, :1] / 255
            empty = {"boxes": np.zeros((count, 1, 4)), "scores": np.zeros((count, 1)), "labels": np.zeros((count, 1))}
            empty |= {"masks": np.zeros((count, 1, 2, 2)), "valid": np.zeros((count, 1), bool)}
            return {**empty, "semantic": np.concatenate([cells, 1 - cells], -1)}

    from keras_maskrcnn.heads.detection import Detection

    class Model(Detector):
        class_names, num_classes, schema = None, 1, SCHEMA
        predictor = Predictor(Network(), Placement(None, Resize(scale=1.0), 16), SCHEMA, Detection())

    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 20:] = 255
    plain, augmented = Model().detect(image), TestTimeAugmentation(Model(), scales=(2.0,)).detect(image)
    np.testing.assert_array_equal(plain["semantic"], augmented["semantic"])
    assert list(augmented) == list(plain) and plain["semantic"][0, 0] == 1 and plain["semantic"][0, -1] == 0


def test_drawing():
    ids = np.zeros((20, 30), np.int32)
    ids[:10], ids[10:, :15] = 1, 2
    merged = Panoptic(ids, [Segment(1, True, 1, 300, 0.9), Segment(2, False, 2, 150)])
    image = np.full((20, 30, 3), 100, np.uint8)
    drawn = visualize.draw_panoptic(image, merged, labels=False, scale=2)
    assert drawn.shape == (40, 60, 3) and (drawn[30, 50] == 100).all()
    colours = {tuple(drawn[y, x]) for y, x in ((5, 5), (30, 5), (30, 50))}
    assert len(colours) == 3 and (drawn[19, 5] == 255).all() and (drawn[30, 29] == 255).all()
    labelled = visualize.draw_panoptic(image, merged, ["cat"], ["sky", "sea"], scale=16)
    assert (labelled != visualize.draw_panoptic(image, merged, labels=False, scale=16)).any()
    with pytest.raises(ValueError, match=r"the map has \(20, 30\) pixels, the image \(20, 31\)"):
        visualize.draw_panoptic(np.zeros((20, 31, 3), np.uint8), merged)
