"""Heads and models defined outside the package (docs/extending.md)."""

import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_maskrcnn import MaskRCNN, data, evaluation, visualize
from keras_maskrcnn.heads.detection import OUTPUTS, select_detections
from keras_maskrcnn.heads.ground_truth import instances
from keras_maskrcnn.heads.map_head import MapHead
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.heads.region_head import ObjectHead
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models.base import InstanceModel
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.losses import binary_cross_entropy, masked_mean, smooth_l1, softmax_cross_entropy


@keras.saving.register_keras_serializable(package="tests")
class FillHead(ObjectHead):
    """The share of an object's box that its mask fills: one number per object."""

    LOSSES = ("fill_loss",)
    FIELDS = ("masks",)
    OUTPUTS = (Output("fill", exported="detection_fill", caption="filled {:.0%}"),)

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        """Two dense layers on crops (None, P, P, C)."""
        self.hidden = keras.layers.Dense(self.units, activation="relu", dtype=self.dtype_policy)
        self.share = keras.layers.Dense(1, dtype=self.dtype_policy)
        self.hidden.build((None, self.pool * self.pool * input_shape[-1]))
        self.share.build((None, self.units))

    def call(self, crops, labels, training=False):
        """Logits `[R]`."""
        crops = ops.reshape(crops, (-1, self.pool * self.pool * crops.shape[-1]))
        return ops.cast(self.share(self.hidden(crops))[:, 0], "float32")

    def row_losses(self, predictions, rows, truth):
        """Cross entropy with the mean coverage of the mask in its box."""
        target = ops.mean(ops.cast(rows.matched(truth["masks"]), "float32"), axis=(1, 2)) / 255.0
        return {"fill_loss": masked_mean(binary_cross_entropy(predictions, target), rows.valid)}

    def row_outputs(self, predictions, rows):
        """Shares `[R]` in [0, 1]."""
        return {"fill": ops.sigmoid(predictions)}

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class InsideHead(MapHead):
    """Whether each cell of the finest level lies in a box: a map of the classes 0 (outside) and 1."""

    LOSSES = ("inside_loss",)
    OUTPUTS = (Output("inside", "map", exported="inside"),)

    def build(self, input_shape):
        """One convolution on the finest level, (None, H, W, C)."""
        self.logits = keras.layers.Conv2D(2, 1, dtype=self.dtype_policy)
        self.logits.build(input_shape[0])

    def call(self, levels, training=False):
        """Logits `[B, h, w, 2]`."""
        return ops.cast(self.logits(levels[0]), "float32")

    def map_losses(self, predictions, truth):
        """Cross entropy of all cells with the boxes at their centres."""
        y, x = ((ops.arange(side, dtype="float32") + 0.5) * self.stride for side in predictions.shape[1:3])
        x1, y1, x2, y2 = (truth["boxes"][:, :, i, None, None] for i in range(4))
        inside = (x1 <= x) & (x < x2) & (y1 <= y[:, None]) & (y[:, None] < y2)
        labels = ops.cast(ops.any(inside & truth["valid"][..., None, None], axis=1), "int32")
        return {"inside_loss": ops.mean(softmax_cross_entropy(predictions, labels))}

    def map_outputs(self, predictions):
        """The logits."""
        return {"inside": predictions}


@keras.saving.register_keras_serializable(package="tests")
class OneMap(InstanceModel):
    """A one-stage detector: one convolution whose cells of 16 pixels predict a class and a box."""

    LOSSES = ("map_class_loss", "map_box_loss")
    OUTPUTS = OUTPUTS

    def __init__(self, num_classes, **common):
        super().__init__(num_classes, **common)
        outputs = self.num_classes + 1 + 4
        self.conv = keras.layers.Conv2D(outputs, 16, strides=16, name="map", dtype=self.layer_dtype)
        self.conv.build((None, None, None, 3))
        self.built = True

    def canvas_stride(self):
        """Sides of a canvas are multiples of this."""
        return 16

    def call(self, inputs, training=False):
        """Losses with ground truth, detections without."""
        sizes = ops.cast(inputs["sizes"], "float32")
        cells = ops.cast(self.conv(self.normalise(inputs["images"], sizes)), "float32")
        height, width = ops.shape(cells)[1:3]
        y, x = (ops.cast(ops.arange(n), "float32") * 16 for n in (height, width))
        corner = ops.stack([ops.tile(x[None], (height, 1)), ops.tile(y[:, None], (1, width))], axis=-1)
        cell = ops.reshape(ops.concatenate([corner, corner + 16], axis=-1), (1, -1, 4))
        flat = ops.reshape(cells, (-1, height * width, cells.shape[-1]))
        logits, deltas = flat[..., : self.num_classes + 1], flat[..., self.num_classes + 1 :]
        truth = self.ground_truth(inputs)
        if truth is not None:
            return self.map_losses(logits, deltas, cell, truth)
        boxes = box_ops.decode(deltas, cell)[:, :, None]
        everywhere = ops.ones(ops.shape(logits)[:2], dtype="bool")
        return select_detections(ops.softmax(logits), boxes, everywhere, sizes, self.limits(inputs))

    def map_losses(self, logits, deltas, cell, truth):
        """Each cell belongs to the object that it overlaps most."""
        overlap = ops.where(instances(truth)[..., None], box_ops.intersection(truth["boxes"], cell), 0.0)
        matched, positive = ops.argmax(overlap, axis=1), ops.max(overlap, axis=1) > 64
        label = ops.where(positive, ops.take_along_axis(truth["labels"], matched, axis=1), 0)
        target = box_ops.encode(ops.take_along_axis(truth["boxes"], matched[..., None], axis=1), cell)
        error = -ops.take_along_axis(ops.log_softmax(logits), label[..., None], axis=-1)[..., 0]
        return {
            "map_class_loss": ops.mean(error),
            "map_box_loss": masked_mean(smooth_l1(deltas - target), positive[..., None]),
        }


# A random sample can leave out a level, whose weights then do not move.
EVERYTHING = {"size": 5000, "positive_fraction": 1.0}


# Checks that hold for several ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head_model(tiny, one_level, shapes):
    """A Mask R-CNN with the toy head, after one step."""
    model = tiny(**one_level, heads=[FillHead(units=4, name="fill_head")], rpn_sampling=EVERYTHING)
    return trained(model, shapes)


@pytest.fixture(scope="module")
def map_model(shapes):
    """The toy one-stage model, after one step."""
    keras.utils.set_random_seed(3)
    return trained(OneMap(3, image_size=(64, 64)), shapes)


def trained(model, shapes):
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    before = [np.array(w) for w in model.trainable_weights]
    batches = data.batches(shapes[:2], (64, 64), 2, max_instances=6, mask_size=28)
    history = model.fit(batches, validation_data=batches, epochs=1, verbose=0).history
    for name in model.loss_names:
        assert np.isfinite(history[name][0]) and history[name][0] > 0 and f"val_{name}" in history
    for variable, old in zip(model.trainable_weights, before, strict=True):
        assert not np.array_equal(variable, old), f"{variable.path} has no gradient"
    assert set(model.evaluate(batches, return_dict=True, verbose=0)) >= {"loss", *model.loss_names}
    return model


def same(first, second, atol=0.0):
    assert set(first) == set(second)
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def head_files(head_model, tmp_path_factory):
    """Folder with the model as `model.keras` and as SavedModel `saved`."""
    return written(head_model, tmp_path_factory.mktemp("head"))


def written(model, folder):
    model.save(folder / "model.keras")
    model.export(folder / "saved")
    return folder


def detected_alike(model, image, folder):
    """The detections of the model, after a check that its files give the same."""
    found = model.detect(image, score_threshold=0.01)
    assert len(found["scores"]) > 0
    again = keras.saving.load_model(folder / "model.keras")
    assert again.get_config() == model.get_config()
    same(found, again.detect(image, score_threshold=0.01))
    same(found, SavedModel(folder / "saved").detect(image, score_threshold=0.01), atol=1e-4)
    return found


# The toy head -------------------------------------------------------------------------------------------------------


def test_head_detects_saves_reloads_and_exports(head_model, head_files, shapes):
    found = detected_alike(head_model, shapes[0]["image"], head_files)
    assert found["fill"].shape == found["scores"].shape and ((found["fill"] > 0) & (found["fill"] < 1)).all()
    names = json.loads((head_files / "saved" / "assets" / "model.json").read_text())["outputs"]
    assert names[-1]["exported"] == "detection_fill"


@pytest.mark.slow
def test_head_is_served_by_a_process_without_this_package(head_model, head_files, shapes):
    np.save(head_files / "image.npy", shapes[0]["image"][None])
    program = (
        "import sys, numpy as np, tensorflow as tf; folder = sys.argv[1]\n"
        "served = tf.saved_model.load(folder + '/saved').signatures['serving_default']\n"
        "found = served(images=tf.constant(np.load(folder + '/image.npy')))\n"
        "np.save(folder + '/fill.npy', found['detection_fill'])\n"
        "assert not [m for m in sys.modules if m.startswith('keras_maskrcnn')]"
    )
    subprocess.run([sys.executable, "-c", program, str(head_files)], check=True, timeout=300)
    found = head_model.detect(shapes[0]["image"], score_threshold=0.05)
    served = np.load(head_files / "fill.npy")[0]
    np.testing.assert_allclose(served[: len(found["fill"])], found["fill"], atol=1e-4)


def test_head_is_scored_drawn_and_left_out_by_its_loss_weight(head_model, tiny, shapes, batch):
    scores = evaluation.coco_scores(head_model, shapes)
    assert {"bbox_AP", "segm_AP"} <= set(scores)
    found = head_model.detect(shapes[0]["image"], score_threshold=0.01)
    result = evaluation.coco_results([found], [1])[0]
    assert result["fill"] == pytest.approx(float(found["fill"][0]))
    captioned = visualize.draw(shapes[0]["image"], found, scale=8)
    del found["fill"]
    assert (captioned != visualize.draw(shapes[0]["image"], found, scale=8)).any()
    model = tiny(heads=[FillHead(name="fill_head")])
    model.compile("sgd", loss_weights={"fill_loss": 0})
    model.heads[0].call = None  # would raise if it were called
    assert float(model({**batch[0], **batch[1]})["fill_loss"]) == 0


def test_head_learns_the_share(tiny, one_level, shapes):
    """With all other parts frozen, the head overfits two images."""
    model = tiny(**one_level, heads=[FillHead(units=16, name="fill_head")])
    for name, part in model.parts().items():
        part.trainable = name == "fill_head"
    model.compile(keras.optimizers.Adam(1e-2), loss_weights={name: 0 for name in model.rpn.LOSSES})
    two = data.Subset(shapes, [0, 1])
    batches = data.batches(two, (64, 64), 2, max_instances=6, mask_size=28, repeat=True)
    loss = model.fit(batches, epochs=3, steps_per_epoch=15, verbose=0).history["fill_loss"]
    objects = [pair for sample in two for pair in zip(sample["masks"], sample["boxes"].astype(int), strict=True)]
    share = np.array([mask[y1:y2, x1:x2].mean() for mask, (x1, y1, x2, y2) in objects])
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()  # lower bound of the loss
    assert loss[-1] < entropy + 0.5 * (loss[0] - entropy)


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        (lambda: [FillHead(name="a"), FillHead(name="b")], "fill_loss: declared twice"),
        (lambda: [FillHead(name="a"), FillHead(name="a")], "two parts of the model have the name a"),
        (lambda: [FillHead(name="mask_head")], "two parts of the model have the name mask_head"),
        (lambda: FillHead(name="a"), "must be a list of ObjectHeads"),
        (lambda: [keras.layers.Dense(1)], "must be a list of ObjectHeads"),
    ],
)
def test_heads_that_do_not_fit_together_are_rejected(tiny, heads, reason):
    with pytest.raises(ValueError, match=reason):
        tiny(heads=heads())


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"LOSSES": ("loss",)}, "loss: declared twice"),
        ({"HEALTH": ("gradient_norm",)}, "gradient_norm: declared twice"),
        ({"OUTPUTS": (Output("valid"),)}, "valid: declared twice"),
        ({"OUTPUTS": (Output("fill", exported="num_detections"),)}, "num_detections: declared twice"),
        ({"OUTPUTS": (Output("fill", exported="detection_masks"),)}, "detection_masks: declared twice"),
    ],
)
def test_names_in_use_are_rejected(tiny, declared, reason):
    head = type("Other", (FillHead,), declared)(name="other")
    with pytest.raises(ValueError, match=reason):
        tiny(heads=[head])


def test_a_head_belongs_to_one_model(tiny):
    head = FillHead(name="fill_head")
    tiny(heads=[head])
    with pytest.raises(ValueError, match="'fill_head' is part of a model already"):
        tiny(heads=[head])


def test_a_frozen_head_stays_frozen(tiny, tmp_path):
    model = tiny(heads=[FillHead(name="fill_head", trainable=False)])
    assert model.heads[0].weights and not model.heads[0].trainable_weights
    assert not [v.path for v in model.trainable_weights if v.path.startswith("fill_head")]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.trainable_weights) == len(model.trainable_weights)
    assert not again.heads[0].trainable_weights


def test_losses_of_a_subclass_join_those_of_the_heads(tiny):
    own = type("Own", (MaskRCNN,), {"LOSSES": ("own_loss",)})
    assert "own_loss" in own.from_config(tiny().get_config()).loss_names


def test_missing_ground_truth_is_named_before_training_begins(shapes, tiny):
    class NeedsPoints(FillHead):
        FIELDS = ("masks", "keypoints")

    model = tiny(heads=[NeedsPoints(name="fill_head")])
    model.compile("sgd")
    for backend in ("tf", "numpy"):
        batches = data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=28, backend=backend)
        with pytest.raises(ValueError, match=r"^the data has no keypoints, which mask_rcnn is trained with$"):
            model.fit(batches, verbose=0)


# The toy head on whole images ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_map_head_trains_saves_reloads_and_exports_beside_another_head(tiny, shapes, tmp_path):
    heads = [InsideHead(name="inside_head"), FillHead(units=4, name="fill_head")]
    model = trained(tiny(heads=heads, rpn_sampling=EVERYTHING), shapes)
    assert list(model.all_heads())[-2:] == ["fill_head", "inside_head"]
    found = detected_alike(model, shapes[0]["image"], written(model, tmp_path))
    assert found["inside"].shape == (64, 64) and set(np.unique(found["inside"])) <= {0, 1}


# The toy model ------------------------------------------------------------------------------------------------------


def test_model_detects_saves_reloads_and_exports(map_model, shapes, tmp_path):
    found = detected_alike(map_model, shapes[0]["image"], written(map_model, tmp_path))
    assert set(found) == {"boxes", "labels", "scores"}


def test_model_is_scored_for_its_outputs(map_model, shapes):
    scores = evaluation.coco_scores(map_model, shapes)
    assert "bbox_AP" in scores and not [name for name in scores if name.startswith("segm")]
    assert evaluation.precision_recall(map_model, shapes)["confusion"].shape == (4, 4)
    assert 0 < evaluation.best_threshold(map_model, shapes) < 1


def test_model_learns_and_compiles_under_xla(shapes):
    keras.utils.set_random_seed(3)
    model = OneMap(3, image_size=(64, 64))
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=True)
    batches = data.batches(shapes, (64, 64), 6, max_instances=6, mask_size=28, repeat=True)
    loss = model.fit(batches, epochs=2, steps_per_epoch=20, verbose=0).history["loss"]
    assert loss[1] < 0.8 * loss[0]
    assert len(model.detect(shapes[0]["image"], score_threshold=0.1)["scores"]) > 0


# The page that shows both -------------------------------------------------------------------------------------------


def test_docs_show_the_code_that_is_tested_here():
    source = pathlib.Path(__file__).read_text()
    page = (pathlib.Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    classes = [block for block in blocks if "register_keras_serializable" in block]
    assert len(classes) == 3 and all(block in source for block in classes)
    imports = [line for block in blocks for line in block.splitlines() if line.startswith(("import", "from"))]
    exec("\n".join(imports), {})  # every name that the page imports exists
