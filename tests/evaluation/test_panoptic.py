"""Panoptic quality: by hand, and against a second implementation that compares every pair of segments."""

import math
import pathlib

import numpy as np
import pytest

from keras_maskrcnn.evaluation import PanopticQuality, panoptic_quality
from keras_maskrcnn.inference.panoptic import Panoptic, Segment


def map_of(ids, *segments):
    """`Panoptic` from ids and (id, thing, label[, crowd])."""
    ids = np.atleast_2d(np.array(ids, np.int32))
    rows = [
        Segment(number, bool(thing), label, int((ids == number).sum()), None, any(crowd))
        for number, thing, label, *crowd in segments
    ]
    return Panoptic(ids, rows)


def figures(*pairs):
    quality = PanopticQuality(["cat", "dog"], ["sky", "sea", "sand"])
    for truth, found in pairs:
        quality.add(truth, found)
    return quality.result()


def test_by_hand():
    truth = map_of([1, 1, 1, 1, 2, 2, 3, 3, 3, 3], (1, 1, 1), (2, 1, 1), (3, 0, 1))
    found = map_of([9, 9, 9, 5, 5, 5, 5, 4, 4, 4], (9, 1, 1), (5, 1, 1), (4, 0, 1))
    result = figures((truth, found))
    # Cats: the IoU of 9 is 3 / 4, that of 5 with the second cat 2 / 4, no match. Sky: 3 / 4.
    cat, sky = result["per_class"]["cat"], result["per_class"]["sky"]
    assert cat == {"PQ": 0.75 / 2, "SQ": 0.75, "RQ": 0.5, "TP": 1, "FP": 1, "FN": 1}
    assert sky == {"PQ": 0.75, "SQ": 0.75, "RQ": 1, "TP": 1, "FP": 0, "FN": 0}
    assert result["PQ"] == pytest.approx((0.375 + 0.75) / 2) and result["RQ"] == 0.75
    assert (result["PQ_things"], result["PQ_stuff"], result["SQ_things"]) == (0.375, 0.75, 0.75)
    assert list(result["per_class"]) == ["cat", "sky"]


def test_sums_are_over_all_images():
    right = map_of([1, 1], (1, 1, 2))
    result = figures((right, right), (right, map_of([0, 0])), (map_of([0, 1], (1, 0, 2)), map_of([0, 1], (1, 0, 2))))
    assert result["per_class"]["dog"] == {"PQ": 1 / 1.5, "SQ": 1, "RQ": 1 / 1.5, "TP": 1, "FP": 0, "FN": 1}
    assert result["PQ"] == pytest.approx((1 / 1.5 + 1) / 2) and result["per_class"]["sea"]["PQ"] == 1


def test_pixels_without_a_segment_are_left_out():
    truth = map_of([1, 1, 0, 0, 0, 0, 0, 0], (1, 1, 1))
    # Two right pixels, one void: IoU 2 / 2. The other one lies on void by more than half, and is not counted.
    found = map_of([5, 5, 5, 6, 6, 6, 0, 0], (5, 1, 1), (6, 1, 2))
    assert figures((truth, found))["per_class"] == {"cat": {"PQ": 1, "SQ": 1, "RQ": 1, "TP": 1, "FP": 0, "FN": 0}}
    half = map_of([5, 5, 6, 6, 6, 6, 0, 0], (5, 1, 1), (6, 1, 2))
    other = map_of([1, 1, 2, 2, 0, 0, 0, 0], (1, 1, 1), (2, 0, 1))
    assert figures((other, half))["per_class"]["dog"]["FP"] == 1  # half of it is not more than half


def test_crowds():
    truth = map_of([1, 1, 1, 2, 2, 2], (1, 1, 1, True), (2, 1, 2))
    found = map_of([5, 5, 6, 7, 7, 7], (5, 1, 1), (6, 1, 2), (7, 1, 2))
    result = figures((truth, found))["per_class"]
    assert "cat" not in result  # ignored on a crowd of its class, which is not missed either
    assert result["dog"] == {"PQ": 1 / 1.5, "SQ": 1, "RQ": 1 / 1.5, "TP": 1, "FP": 1, "FN": 0}


def test_nothing_at_all():
    result = figures((map_of([0, 0]), map_of([0, 0])))
    assert math.isnan(result["PQ"]) and math.isnan(result["PQ_stuff"]) and result["per_class"] == {}


def by_pairs(pairs):
    """PQ, TP, FP and FN per class: every pair of masks is compared."""
    totals = {}
    for truth, found in pairs:
        void, hits = truth.ids == 0, set()
        for one in truth.segments:
            for other in found.segments:
                mask, ours = truth.ids == one.id, found.ids == other.id
                same = (one.thing, one.label) == (other.thing, other.label)
                union = np.logical_or(mask, ours & ~void).sum()
                iou = np.logical_and(mask, ours).sum() / union
                if same and not one.crowd and iou > 0.5:
                    hits |= {("true", one.id), ("found", other.id)}
                    totals.setdefault((one.thing, one.label), []).append(("TP", iou))
        for one in truth.segments:
            if ("true", one.id) not in hits and not one.crowd:
                totals.setdefault((one.thing, one.label), []).append(("FN", 0))
        for other in found.segments:
            left_out = void.copy()
            for one in truth.segments:
                if one.crowd and (one.thing, one.label) == (other.thing, other.label):
                    left_out |= truth.ids == one.id
            ours = found.ids == other.id
            if ("found", other.id) not in hits and left_out[ours].mean() <= 0.5:
                totals.setdefault((other.thing, other.label), []).append(("FP", 0))
    answer = {}
    for place, events in totals.items():
        kinds = [kind for kind, _ in events]
        counts = {kind: kinds.count(kind) for kind in ("TP", "FP", "FN")}
        weight = counts["TP"] + counts["FP"] / 2 + counts["FN"] / 2
        answer[place] = {"PQ": sum(iou for _, iou in events) / weight, **counts}
    return answer


def random_map(rng, base=None):
    """A map of up to eight rectangles, or one like another, with some pixels and labels changed."""
    if base is None:
        ids = np.zeros((24, 30), np.int32)
        for number in range(1, 9):
            y, x = rng.integers(0, 20, 2)
            ids[y : y + rng.integers(3, 14), x : x + rng.integers(3, 14)] = number
        labels = {number: (rng.integers(2), rng.integers(1, 3), rng.random() < 0.2) for number in range(1, 9)}
    else:
        ids = np.roll(base.ids, rng.integers(-2, 3, 2), (0, 1))
        ids[rng.integers(0, 20) :, rng.integers(0, 26) :] = rng.integers(0, 9)
        labels = {s.id: (s.thing, s.label, False) for s in base.segments if rng.random() < 0.8}
        labels |= {n: (1, 1, False) for n in range(1, 9) if n not in labels and rng.random() < 0.7}
        ids[~np.isin(ids, list(labels))] = 0
    return map_of(ids, *((n, *of) for n, of in labels.items() if (ids == n).any()))


def test_random_maps_against_every_pair():
    rng, counts = np.random.default_rng(0), np.zeros(3)
    for _ in range(40):
        pairs = [(truth, random_map(rng, truth)) for truth in (random_map(rng) for _ in range(3))]
        expected = by_pairs(pairs)
        result = figures(*pairs)
        names = {(True, 1): "cat", (True, 2): "dog", (False, 1): "sky", (False, 2): "sea"}
        assert set(result["per_class"]) == {names[place] for place in expected}
        for place, wanted in expected.items():
            ours = result["per_class"][names[place]]
            assert {name: ours[name] for name in wanted} == pytest.approx(wanted)
            assert ours["PQ"] == pytest.approx(ours["SQ"] * ours["RQ"])
            counts += [ours["TP"], ours["FP"], ours["FN"]]
        assert result["PQ"] == pytest.approx(np.mean([row["PQ"] for row in expected.values()]))
    assert counts.min() > 50


def test_what_cannot_be_scored_is_named():
    from keras_maskrcnn import data

    with pytest.raises(ValueError, match=r"needs the field 'semantic', a data\.LabelMap, which the data set lacks"):
        panoptic_quality(None, data.Shapes(1))
    with pytest.raises(ValueError, match="pixels, the ground truth"):
        PanopticQuality([], []).add(map_of([0, 0]), map_of([0]))


def test_a_model_that_returns_the_truth_has_quality_one():
    from keras_maskrcnn import data

    scenes = data.Scenes(3, (64, 64), seed=3)

    class Perfect:
        class_names, num_classes = scenes.class_names, 3

        def detect(self, images, score_threshold, max_detections):
            samples = {sample["image"].tobytes(): sample for sample in scenes}
            for image in images:
                sample = samples[image.tobytes()]
                scores = np.linspace(0.9, 0.6, len(sample["labels"]))
                yield {**{name: sample[name] for name in ("boxes", "labels", "masks", "semantic")}, "scores": scores}

    result = panoptic_quality(Perfect(), scenes, stuff_area=1)
    assert result["PQ"] == result["PQ_things"] == result["SQ_stuff"] == 1
    assert set(result["per_class"]) <= {"circle", "square", "triangle", "sky", "ground", "water"}


def test_counts_are_those_of_panopticapi():
    """See golden/make_panoptic.py."""
    with np.load(pathlib.Path(__file__).parents[1] / "golden" / "panoptic.npz") as file:
        golden = dict(file)

    def side(name, image):
        rows = golden[f"{name}_segments"]
        rows = rows[rows[:, 0] == image].tolist()
        return map_of(golden[name][image], *((n, of <= 2, 1 + (of - 1) % 2, crowd) for _, n, of, crowd in rows))

    quality = PanopticQuality(["1", "2"], ["3", "4"])
    for image in range(len(golden["truth"])):
        quality.add(side("truth", image), side("found", image))
    result = quality.result()
    assert set(result["per_class"]) == {"1", "2", "3", "4"}
    for of, iou, hits, false, missed in golden["counts"].tolist():
        ours = result["per_class"][str(int(of))]
        assert (ours["TP"], ours["FP"], ours["FN"]) == (hits, false, missed) and min(hits, false, missed) > 3
        assert ours["SQ"] == pytest.approx(iou / hits) and ours["PQ"] == pytest.approx(
            iou / (hits + false / 2 + missed / 2)
        )
