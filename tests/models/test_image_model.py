"""A model of maps alone, without objects: training, detection, tiles, files and export."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn import data
from keras_maskrcnn.heads.ground_truth import ground_truth
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.inference.augmented import TestTimeAugmentation
from keras_maskrcnn.inference.export import reconfigured
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models.image_model import ImageModel
from keras_maskrcnn.ops.losses import softmax_cross_entropy


@keras.saving.register_keras_serializable(package="tests")
class Pixels(ImageModel):
    """The class of each cell of 4 pixels from its mean colour."""

    LOSSES = ("map_loss",)
    FIELDS = ("semantic",)
    OUTPUTS = (Output("semantic", "map", exported="semantic_predictions"),)

    def __init__(self, num_classes, **common):
        super().__init__(num_classes, **common)
        self.logits = keras.layers.Conv2D(self.num_classes + 1, 4, strides=4, name="logits")
        self.logits.build((None, None, None, 3))
        self.built = True

    def canvas_stride(self):
        return 4

    def call(self, inputs, training=False):
        logits = self.logits(self.normalise(inputs["images"], ops.cast(inputs["sizes"], "float32")))
        truth = self.ground_truth(inputs)
        if truth is None:
            return {"semantic": logits}
        labels = ops.cast(truth["semantic"][:, 2::4, 2::4], "int32")
        return {"map_loss": ops.mean(softmax_cross_entropy(logits, ops.where(labels == 255, 0, labels)))}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return Pixels(3, image_size=(64, 64))


IMAGES = [np.random.default_rng(i).integers(0, 255, (*size, 3)).astype("uint8") for i, size in
          enumerate([(64, 64), (50, 90), (120, 40)])]  # fmt: skip


def test_only_the_declared_fields_are_needed(model):
    assert model.fields == ("semantic",) and "detection" not in inspect.signature(ImageModel).parameters
    scenes = data.Scenes(2, (64, 64), seed=2, objects=(1, 2), object_size=(18, 30))
    model.compile("sgd")
    batches = data.batches(scenes, (64, 64), 2, mask_size=None, backend="numpy")
    (x, y) = batches[0]
    before = model.evaluate(x, {"semantic": y["semantic"]}, verbose=0, return_dict=True)["map_loss"]
    model.fit(batches, epochs=2, verbose=0)
    assert model.evaluate(batches, verbose=0, return_dict=True)["map_loss"] < before


def test_detections_are_maps(model):
    found = model.detect(IMAGES)
    assert [list(one) for one in found] == [["semantic"]] * 3
    assert [one["semantic"].shape for one in found] == [image.shape[:2] for image in IMAGES]
    alone = model.detect(IMAGES[0])
    np.testing.assert_array_equal(alone["semantic"], found[0]["semantic"])
    np.testing.assert_array_equal(alone.rows([])["semantic"], alone["semantic"])


def test_tiles_are_joined(model):
    [found] = model.detect([IMAGES[1]], tiles=(32, 48), overlap=8)
    assert found["semantic"].shape == (50, 90)
    one = model.detect(np.ascontiguousarray(IMAGES[1][:32, :48]))["semantic"]
    np.testing.assert_array_equal(found["semantic"][:20, :40], one[:20, :40])


def test_files_and_presets(model, tmp_path):
    expected = model.detect(IMAGES[1])["semantic"]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.detect(IMAGES[1])["semantic"], expected)
    model.save_preset(tmp_path / "preset")
    preset = ImageModel.from_preset(tmp_path / "preset")
    assert isinstance(preset, Pixels)
    np.testing.assert_array_equal(preset.detect(IMAGES[1])["semantic"], expected)


def test_export(model, tmp_path):
    import tensorflow as tf

    model.export(tmp_path / "saved")
    served = SavedModel(tmp_path / "saved").detect(IMAGES)
    for one, other in zip(served, model.detect(IMAGES), strict=True):
        assert (one["semantic"] == other["semantic"]).mean() > 0.995
    found = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](images=IMAGES[1][None])
    assert set(found) == {"semantic_predictions"} and found["semantic_predictions"].shape == (1, 50, 90)


def test_thresholds_and_augmentation_need_objects(model):
    with pytest.raises(ValueError, match="score_threshold: pixels finds no objects, and has no thresholds"):
        reconfigured(model, score_threshold=0.5)
    with pytest.raises(ValueError, match="test-time augmentation fuses objects, and pixels finds none"):
        TestTimeAugmentation(model)


def test_ground_truth_is_whole_or_absent():
    assert ground_truth({"images": 1}, ("semantic",)) is None
    with pytest.raises(ValueError, match="the batch has no weight, which this model is trained with"):
        ground_truth({"semantic": np.zeros((1, 4, 4), "uint8")}, ("semantic", "weight"))


def test_a_file_that_cannot_be_completed_leaves_the_one_before(model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()

    def full(self, filepath, *options):
        filepath.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
