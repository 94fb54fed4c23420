"""Learning rates of a detector's layers by name."""

import keras
import numpy as np
import pytest

from keras_maskrcnn import training
from keras_maskrcnn.training import SGD, AdamW


def kernels(model):
    return {part: [np.array(w) for w in layer.trainable_weights] for part, layer in model.parts().items()}


def test_a_detector_moves_its_backbone_by_the_factor(tiny, batch):
    everything = {"size": 5000, "positive_fraction": 1.0}  # no random sample
    moved = []
    for factors in ({"backbone": 0.01, "backbone/stage2": 0.5, "rpn/deltas": 0.0}, {}):
        model = tiny(rpn_sampling=everything, box_sampling=everything)
        before = kernels(model)
        rates = training.layer_rates(model, factors)
        model.compile(SGD(1e-2, layer_rates=rates), run_eagerly=True)
        model.train_on_batch(*batch)
        after = kernels(model)
        moved.append({p: [a - b for a, b in zip(after[p], before[p], strict=True)] for p in before})
    paths = {part: [w.path for w in layer.trainable_weights] for part, layer in model.parts().items()}
    for part, names in paths.items():
        for path, found, whole in zip(names, *(run[part] for run in moved), strict=True):
            factor = 1.0
            if part == "backbone":
                factor = 0.5 if "stage2" in path else 0.01
            if part == "rpn" and "deltas" in path:
                factor = 0.0
            np.testing.assert_allclose(found, factor * whole, rtol=1e-2, atol=2e-7, err_msg=path)


def test_every_weight_of_a_detector_has_its_own_path_also_when_it_is_loaded(tiny, tmp_path):
    model = tiny()
    paths = [weight.path for weight in model.trainable_weights]
    assert len(paths) == len(set(paths))
    model.compile(AdamW(1e-3, layer_rates=training.layer_rates(model, {"backbone": 0.1})))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [weight.path for weight in loaded.trainable_weights] == paths
    slow = {weight.path for weight in loaded.backbone.trainable_weights}
    assert loaded.optimizer.layer_rates == dict.fromkeys(slow, 0.1)


def test_wrong_factors_are_refused_in_one_line(tiny):
    model = tiny()
    with pytest.raises(ValueError, match="no layer's name starts with 'spine'; the parts are backbone, fpn, rpn"):
        training.layer_rates(model, {"spine": 0.1})
    with pytest.raises(ValueError, match="factor -1 of 'fpn' must be at least 0"):
        training.layer_rates(model, {"fpn": -1})
