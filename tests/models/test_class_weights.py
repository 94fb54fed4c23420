"""Class weights: by hand in the box head, by name and by number in `compile`, from the data, in a file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import data, training
from keras_maskrcnn.heads.box import BoxHead
from keras_maskrcnn.heads.sampled_regions import SampledRegions
from keras_maskrcnn.models.class_weights import factors

NAMES = ["a", "b", "c"]


def test_classification_loss_by_hand():
    """Three regions of background, class 1 and class 2, and an empty slot; the logits are uniform but for the last."""
    label = tf.constant([[0, 1, 2, 0]])
    valid = tf.constant([[True, True, True, False]])
    boxes = tf.constant([[[0.0, 0, 8, 8]] * 4])
    regions = SampledRegions(boxes, label, tf.zeros((1, 4), tf.int32), label > 0, valid, 2)
    logits = tf.math.log(tf.constant([[[1.0, 1, 1], [1, 1, 1], [1, 2, 1], [1, 1, 1]]]))
    truth = {"boxes": boxes[:, :1]}
    head = BoxHead(2, {"delta_weights": (1.0,) * 4})

    def losses(weights):
        found = head.region_losses(logits, tf.ones((1, 4, 3, 4)), regions, truth, weights)
        return {name: float(value) for name, value in found.items()}

    # Errors log 3, log 3 and log 4; the divisor is the number of regions, 3.
    assert losses(None)["class_loss"] == pytest.approx((2 * np.log(3) + np.log(4)) / 3)
    weighted = losses(np.float32([0.5, 2, 10]))
    assert weighted["class_loss"] == pytest.approx((0.5 * np.log(3) + 2 * np.log(3) + 10 * np.log(4)) / 3)
    assert weighted["box_loss"] == losses(None)["box_loss"] > 0


def test_factors_by_name_and_by_number():
    assert factors(None, NAMES, 3) is None
    assert factors({"b": 4, "background": 0.5}, NAMES, 3).tolist() == [0.5, 1, 4, 1]
    assert factors([3, 2, 0], None, 3).tolist() == factors(np.array([3, 2, 0]), NAMES, 3).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("weights", "names", "reason"),
    [
        ({"d": 2}, NAMES, "class_weights names d; the classes are a, b, c"),
        ([1, 2], None, "class_weights has 2 factors for 3 classes"),
        ([1, 2, -1], NAMES, "must be finite numbers of at least 0"),
        ({"a": float("nan")}, NAMES, "must be finite numbers of at least 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tiny, weights, names, reason):
    with pytest.raises(ValueError, match=reason):
        tiny(class_names=names).compile("sgd", class_weights=weights)


def test_names_may_come_with_the_data(tiny, shapes):
    batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28)
    model = tiny()
    model.compile("sgd", class_weights={"circle": 2.0, "oval": 3.0}, run_eagerly=True)
    with pytest.raises(ValueError, match="class_weights has names of classes, and the model has none"):
        _ = model.class_factors
    with pytest.raises(ValueError, match="class_weights names oval; the classes are circle"):
        model.fit(batches, verbose=0)
    model.compile("sgd", class_weights=training.class_weights(shapes), run_eagerly=True)
    model.fit(batches, steps_per_epoch=1, verbose=0)
    assert model.class_factors.shape == (4,)


def test_model_uses_them_and_its_file_keeps_them(tiny, batch, tmp_path):
    everything = {"size": 5000, "positive_fraction": 1.0}
    model = tiny(class_names=NAMES, rpn_sampling=everything, box_sampling=everything)
    inputs = {**batch[0], **batch[1]}
    plain = {name: float(value) for name, value in model(inputs).items()}
    model.compile("sgd", class_weights={"background": np.float32(3), "a": 3, "b": 3, "c": 3})
    model.save(tmp_path / "m.keras")
    for weighted in (model, keras.saving.load_model(tmp_path / "m.keras")):
        assert weighted.class_factors.tolist() == [3, 3, 3, 3]
        for name, value in weighted(inputs).items():
            assert float(value) == pytest.approx(plain[name] * (3 if name == "class_loss" else 1), rel=1e-5), name
    model.compile("sgd")
    assert float(model(inputs)["class_loss"]) == pytest.approx(plain["class_loss"], rel=1e-5)


class Labels:
    """A reader that knows its labels: 6 of class 1, 2 of class 2, none of class 3."""

    class_names, num_classes = NAMES, 3
    labels = ([1, 1, 1, 2], [], [1, 2, 1, 1])

    def __init__(self):
        self.skipped = {}

    def __len__(self):
        return 4

    def labels_at(self, position):
        if position == 3:
            raise data.DataError("three.png", "is truncated")
        return np.array(self.labels[position], np.int32)


def test_weights_from_the_data_by_hand():
    reader = Labels()
    # 8 instances of 2 classes: 8 / (2 · 6) and 8 / (2 · 2), whose mean over the instances is 1.
    assert training.class_weights(reader) == pytest.approx({"a": 2 / 3, "b": 2, "c": 1})
    assert reader.skipped == {"three.png": "is truncated"}
    # 1/√6 and 1/√2, scaled by 8 / (6/√6 + 2/√2).
    mild = training.class_weights(reader, power=0.5)
    assert mild["b"] / mild["a"] == pytest.approx(3**0.5)
    assert 6 * mild["a"] + 2 * mild["b"] == pytest.approx(8)
    assert training.class_weights(reader, power=0) == pytest.approx({"a": 1, "b": 1, "c": 1})


def test_no_instance_is_an_error(monkeypatch):
    monkeypatch.setattr(Labels, "labels", ([], [], []))
    with pytest.raises(ValueError, match="no instance"):
        training.class_weights(Labels())
