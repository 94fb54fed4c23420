"""Models without a pyramid: C4 with the fifth stage as trunk, dilated C5, the last level; see also `test_tasks`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_maskrcnn import MaskRCNN, backbones
from keras_maskrcnn.backbones import ResNet
from keras_maskrcnn.layers.folding import FoldingModel
from keras_maskrcnn.models.necks import Trunk

LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss")
# Options of the tiny model for each neck. Those of "c4" leave its heads as the neck has them.
HEADS = {"box_stage": {"width": 16}, "mask_stage": {"width": 8, "depth": 1}}
OPTIONS = {"c4": {"box_stage": None, "mask_stage": {"width": 8}}, "dc5": HEADS, None: HEADS}
each_neck = pytest.mark.parametrize("neck", ["c4", "dc5"])


@pytest.fixture(scope="session")
def make(tiny):
    """Function from a neck to a tiny model."""

    def made(neck, **overrides):
        anchors = {"sizes": ((12, 24, 48),)}
        return tiny(**{"neck": neck, "anchors": anchors, **OPTIONS[neck], **overrides})

    return made


def arrays(found):
    return {name: np.asarray(values) for name, values in found.items()}


def grown(model):
    """The model with norms and kernels that make its outputs depend on all of its layers."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype == "float32" and "moving_variance" not in weight.path:
            weight.assign(weight + rng.normal(scale=0.05, size=weight.shape))
    return model


# Structure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("neck", "level", "stride", "bins", "masks"),
    [("c4", "C4", 16, 14, 14), ("dc5", "C5", 16, 7, 28), (None, "C5", 32, 7, 28)],
)
def test_one_level_of_its_stride(make, batch, neck, level, stride, bins, masks):
    model = make(neck)
    assert (model.strides, model.region_levels, model.canvas_stride()) == ((stride,), [level], stride)
    features = model.features(batch[0]["images"], batch[0]["sizes"])
    assert {name: values.shape[1:3] for name, values in features.items()} == {level: (64 // stride, 64 // stride)}
    assert model.box_head.align.output_size == bins and model.box_head.align.strides == (stride,)
    assert model(batch[0])["masks"].shape[2:] == (masks, masks)
    assert list(model.parts()) == ["backbone", "rpn", "box_head", "mask_head"]


def test_the_heads_of_c4_are_those_of_the_paper_unless_others_are_given():
    model = MaskRCNN(2, {"name": "resnet10", "width": 4}, "c4")
    stage, mask = model.box_head.stage, model.mask_head.stage
    assert (stage.hidden, stage.average, mask.pool, mask.depth, mask.width) == (0, True, 7, 0, 256)
    assert model.rpn.num_anchors == 15 and model.box_head.sampling.size == 64
    assert model.rpn.proposals.limits(training=False)["post_nms"] == 300
    assert model.box_head.classes.kernel.shape == (32, 3)  # the fifth stage's channels
    other = MaskRCNN(2, {"name": "resnet10", "width": 4}, "c4", box_stage={"hidden": 1, "width": 8}, mask_stage=None)
    assert other.box_head.hidden[0].kernel.shape == (32, 8) and other.mask_head is None
    again = MaskRCNN.from_config(other.get_config())
    assert again.get_config() == other.get_config()


def test_every_weight_belongs_to_one_part(make):
    model = make("c4")
    owned = [id(weight) for part in model.parts().values() for weight in part.weights]
    assert len(set(owned)) == len(owned)
    assert {id(weight) for weight in model.trainable_weights} <= set(owned)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_c4_and_its_trunk_are_the_stages_of_the_backbone(name, norm):
    width = {} if name.startswith("efficientnet") else {"width": 8}
    backbone = grown(backbones.get({"name": name, "norm": norm, **width}))
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = backbone(images)
    c4 = backbone.section(images, ends=("C4",))
    assert list(c4) == ["C4"]
    np.testing.assert_array_equal(c4["C4"], expected["C4"])
    trunk = Trunk(backbone)
    np.testing.assert_allclose(trunk(c4["C4"]), expected["C5"], atol=1e-5)
    assert trunk.stride == 2 and trunk.channels == expected["C5"].shape[-1]


def test_batch_norms_of_the_trunk_see_valid_crops_only_and_no_images():
    backbone = grown(backbones.get({"name": "resnet10", "width": 8}))
    state = [np.array(w) for w in backbone.weights]
    crops = np.random.default_rng(0).normal(size=(3, 4, 4, 32)).astype("float32")
    backbone.section(np.ones((1, 32, 32, 3), "float32"), ends=("C4",), training=True)
    moved = {
        w.path.split("/")[-2].split("_")[0]
        for w, old in zip(backbone.weights, state, strict=True)
        if (w != old).numpy().any()
    }
    assert moved == {"stem", "stage1", "stage2", "stage3"}
    results = []
    for rows, valid in ((3, [True, True, False]), (2, None)):
        for weight, value in zip(backbone.weights, state, strict=True):
            weight.assign(value)
        valid = None if valid is None else np.array(valid)
        found = Trunk(backbone)(crops[:rows], training=True, valid=valid)
        results.append((np.asarray(found)[:2], [np.array(w) for w in backbone.weights]))
    (first, after), (second, after_two) = results
    np.testing.assert_allclose(first, second, atol=1e-4)
    for one, other in zip(after, after_two, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_dilated_fifth_stage_has_the_strided_ones_numbers_between_others():
    # With the stride in a 1×1 convolution, the strided stage computes every second row and column of the dilated one.
    options = {"depth": 50, "width": 4, "norm": "frozen_batch", "stride_in_1x1": True}
    strided, dilated = ResNet(**options), ResNet(**options, dilated=True)
    dilated.set_weights(grown(strided).get_weights())
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype("float32")
    expected, found = strided(images), dilated(images)
    assert found["C5"].shape[1:3] == (4, 6) and backbones.strides(dilated)["C5"] == 16
    np.testing.assert_allclose(found["C5"][:, ::2, ::2], expected["C5"], atol=1e-5)
    assert ResNet.from_config(dilated.get_config()).dilated


# Training -------------------------------------------------------------------------------------------------------------


def test_box_and_mask_losses_reach_the_fifth_stage(make, batch):
    model = make("c4")
    stage = [w for w in model.backbone.trainable_weights if w.path.split("/")[-2].startswith("stage4")]
    with tf.GradientTape(persistent=True) as tape:
        terms = model({**batch[0], **batch[1]}, training=True)
    for name in ("class_loss", "box_loss", "mask_loss"):
        for weight, gradient in zip(stage, tape.gradient(terms[name], stage), strict=True):
            assert gradient is not None and np.abs(gradient).max() > 0, (name, weight.path)
    assert tape.gradient(terms["rpn_class_loss"], stage) == [None] * len(stage)


@pytest.mark.parametrize(
    "options",
    [
        {"cascade": {}},
        {"backbone": {"name": "resnext50_32x4d", "width": 16, "norm": "frozen_batch"}},
    ],
    ids=["cascade", "resnext"],
)
def test_c4_trains_every_weight_and_detects_with(make, batch, options):
    model = make("c4", **options)
    with tf.GradientTape() as tape:
        terms = model({**batch[0], **batch[1]}, training=True)
        total = sum(terms[name] for name in model.loss_names)
    for weight, gradient in zip(model.trainable_weights, tape.gradient(total, model.trainable_weights), strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path
    found = model(batch[0])
    assert found["masks"].shape[:2] == found["boxes"].shape[:2] and np.isfinite(found["boxes"]).all()
    assert MaskRCNN.from_config(model.get_config()).get_config() == model.get_config()


def test_masks_are_trained_on_the_box_heads_pass_of_the_trunk(make, batch):
    """Values and gradients are those of a pass of their own."""
    model = grown(make("c4", backbone={"name": "resnet10", "width": 8, "norm": "frozen_batch"}))
    inputs = {**batch[0], **batch[1]}
    passes, results, trunk = [], [], model.mask_head.trunk

    def counted(crops, *options):
        passes.append(crops.shape[0])
        return trunk(crops, *options)

    counted.stride = trunk.stride
    losses = model.box_head.losses

    def forgetful(*arguments):
        regions, terms = losses(*arguments)
        return regions._replace(crops=None), terms

    model.mask_head.trunk = counted
    for shared in (True, False):
        model.seed_generator.state.assign([1, 2])
        model.box_head.losses = losses if shared else forgetful
        with tf.GradientTape() as tape:
            loss = model(inputs, training=True)["mask_loss"]
        results.append((loss, [np.asarray(g) for g in tape.gradient(loss, model.backbone.trainable_weights)]))
        assert len(passes) == (0 if shared else 1)
    (one, gradients), (other, others) = results
    assert float(one) == pytest.approx(float(other), rel=1e-5)
    for first, second in zip(gradients, others, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5 * max(1, np.abs(second).max()))


def test_crowded_ground_truth(make, batch):
    model, crowd = make("c4"), np.ones_like(batch[1]["crowd"])
    with tf.GradientTape() as tape:
        terms = model({**batch[0], **batch[1], "crowd": crowd}, training=True)
        total = sum(terms[name] for name in LOSSES)
    assert all(np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(g).all() for g in tape.gradient(total, model.trainable_weights) if g is not None)


@each_neck
def test_dynamic_and_static_lowerings_give_the_same_numbers(make, batch, neck):
    from keras_maskrcnn import backend

    model, results = make(neck), []
    for static in (False, True):
        model.seed_generator.state.assign([1, 2])
        with backend.static_shapes_scope(static):
            results.append((arrays(model({**batch[0], **batch[1]}, training=True)), arrays(model(batch[0]))))
    for first, second in zip(*results, strict=True):
        for name, values in first.items():
            np.testing.assert_allclose(second[name], values, atol=1e-4, err_msg=name)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simple_cnn", "c4"), "neck='c4' needs a backbone with a fifth stage, simple_cnn has C1, C2, C3, C4 only"),
        (
            ("simple_cnn", "dc5"),
            "neck='dc5' needs a backbone that can be dilated, simple_cnn cannot: .* resnet10",
        ),
        (({"name": "mobilenet_v2", "width": 4}, "dc5"), "neck='dc5' needs .* mobilenet_v2 cannot"),
        (({"name": "resnet10", "width": 4, "dilated": True}, "fpn"), "neck='fpn' needs levels of different strides"),
        (
            ({"name": "resnet10", "width": 4, "dilated": False}, "dc5"),
            "last level of stride 16: resnet10 has C5 of stride 32",
        ),
        (({"name": "resnet10", "width": 4}, "c5"), "neck='c5' is not one of 'fpn', 'c4', 'dc5', None"),
    ],
)
def test_backbones_that_do_not_fit_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MaskRCNN(2, *arguments)
    assert "\n" not in str(error.value)


def test_a_fifth_stage_that_also_sees_earlier_levels_is_refused():
    x = inputs = keras.Input((None, None, 3))
    outputs = {}
    for level in range(1, 6):
        x = outputs[f"C{level}"] = keras.layers.Conv2D(4, 3, strides=2, padding="same")(x)
    outputs["C5"] = keras.layers.Add()([outputs["C5"], keras.layers.MaxPooling2D(4, 4)(outputs["C3"])])
    levels = {name: outputs[name] for name in ("C2", "C3", "C4", "C5")}
    for kind in (FoldingModel, keras.Model):
        with pytest.raises(ValueError, match="neck='c4': the fifth stage of own cannot run on crops of C4 alone"):
            MaskRCNN(2, kind(inputs, levels, name="own"), "c4")
