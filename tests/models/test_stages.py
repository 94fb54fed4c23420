"""Single stages: the first stage as a model, stages without loss weight, given proposals."""

import keras
import numpy as np
import pytest

from keras_maskrcnn.heads.anchors import AnchorSampling, assign_anchors
from keras_maskrcnn.heads.ground_truth import ground_truth
from keras_maskrcnn.heads.proposals import Proposed
from keras_maskrcnn.heads.sampled_regions import RegionSampling, sample_regions
from keras_maskrcnn.models import FirstStage
from keras_maskrcnn.ops import boxes as box_ops

OFF = {"class_loss": 0, "box_loss": 0, "mask_loss": 0}


def numpy(found):
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def truth_of(batch):
    return ground_truth({name: keras.ops.convert_to_tensor(value) for name, value in batch[1].items()})


@pytest.fixture
def view(tiny):
    return FirstStage(tiny(), max_proposals=15, classify=True)


def test_first_stage_decodes_its_anchors_and_deltas(view, batch):
    found = view.predict_on_batch({name: batch[0][name] for name in ("images", "sizes")})
    anchors = view.anchors((64, 64))
    assert found["logits"].shape == (2, len(anchors)) and found["deltas"].shape == (2, len(anchors), 4)
    assert found["probabilities"].shape == (2, 15, 4)
    np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-5)
    decoded = keras.ops.convert_to_numpy(box_ops.clip(box_ops.decode(found["deltas"], anchors), batch[0]["sizes"]))
    probability = 1 / (1 + np.exp(-found["logits"]))
    for image in range(2):
        for box, score in zip(found["boxes"][image][found["valid"][image]], found["scores"][image], strict=False):
            twin = np.abs(decoded[image] - box).max(1).argmin()
            np.testing.assert_allclose(decoded[image, twin], box, atol=1e-3)
            assert abs(probability[image] - score).min() < 1e-5


def test_first_stage_shares_the_models_layers(view, batch):
    inputs = {name: batch[0][name] for name in ("images", "sizes")}
    before = view.predict_on_batch(inputs)["logits"]
    view.model.rpn.objectness.bias.assign_add(np.ones(3))
    np.testing.assert_allclose(view.predict_on_batch(inputs)["logits"], before + 1, atol=1e-4)


def test_first_stage_finds_proposals_in_pixels_of_the_image(view):
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    found = view.detect(image)
    assert set(found) == {"boxes", "labels", "scores", "probabilities"}
    assert 0 < len(found["boxes"]) == len(found["scores"]) == len(found["probabilities"]) <= 15
    assert (found["labels"] == 1).all()
    assert found["boxes"][:, 2].max() > 64  # beyond the canvas: scaled back to 128 pixels of width
    assert (found["boxes"] <= [128, 96, 128, 96]).all()
    assert len(view.detect([image, image[::2]], max_detections=3)[1]["boxes"]) == 3


def test_a_stage_without_weight_is_not_computed(tiny, batch):
    model = tiny()
    inputs = {**batch[0], **batch[1]}
    model.compile("sgd")
    whole = numpy(model(inputs))
    model.compile("sgd", loss_weights=OFF)
    model.box_head.call = None  # would raise if it were called
    first = numpy(model(inputs))
    assert set(first) == set(whole)
    assert all(first[name] == 0 for name in (*OFF, "foreground", "background"))
    assert first["rpn_box_loss"] > 0 and first["proposal_recall"] == whole["proposal_recall"]
    np.testing.assert_allclose(model.total_loss(first), first["rpn_class_loss"] + first["rpn_box_loss"])


def test_only_the_masks_can_be_left_out(tiny, batch):
    model = tiny()
    model.compile("sgd", loss_weights={"mask_loss": 0})
    model.mask_head.call = None
    found = numpy(model({**batch[0], **batch[1]}))
    assert found["mask_loss"] == 0 and found["class_loss"] > 0


def test_given_proposals_replace_the_rpns(tiny, batch):
    model = tiny()
    proposals = np.tile(np.array([[5, 5, 40, 40], [10, 20, 60, 60]], "float32"), (2, 1, 1))
    inputs = {name: batch[0][name] for name in ("images", "sizes")}
    found = numpy(model({**inputs, "proposals": proposals, "proposal_valid": np.array([[True, True], [True, False]])}))
    assert found["valid"].any()
    for image, allowed in ((0, proposals[0]), (1, proposals[1, :1])):
        for box in found["proposals"][image][found["valid"][image]]:
            assert (box == allowed).all(1).any()


def test_detections_include_the_proposals_before_refinement(tiny, batch):
    model = tiny()
    found = numpy(model({name: batch[0][name] for name in ("images", "sizes")}))
    # The head is untrained and its deltas are tiny: each box is close to its proposal.
    distance = np.abs(found["proposals"] - found["boxes"])[found["valid"]]
    assert found["valid"].any() and 0 < distance.max() < 3


def test_cross_boundary_anchors_are_left_out_on_request(tiny, batch):
    truth = truth_of(batch)
    anchors = np.concatenate(tiny().rpn.anchors.boxes((64, 64), (4, 8, 16, 32, 64)))
    sizes = np.array([[64, 64], [40, 64]], "float32")
    crosses = (anchors < 0).any(1) | (anchors[None] > sizes[:, None, [1, 0, 1, 0]]).any(2)
    roles = {
        kind: keras.ops.convert_to_numpy(assign_anchors(anchors, truth, AnchorSampling(cross_boundary=kind), sizes)[1])
        for kind in ("keep", "ignore")
    }
    assert (roles["ignore"][crosses] == -1).all() and (roles["keep"][crosses] != -1).any()
    # If the best anchor of an object crosses the border, another becomes positive; nothing else changes.
    changed = (roles["ignore"] != roles["keep"]) & ~crosses
    assert (roles["ignore"][changed] == 1).all() and (roles["ignore"] == 1).any()


def test_regions_can_use_the_rpns_criteria(batch):
    """The first object of each image, and one proposal that covers two fifths of it."""
    truth = truth_of(batch)
    truth["valid"] = keras.ops.convert_to_tensor(np.arange(6)[None] < [[1], [1]])
    box = batch[1]["boxes"][:, 0]
    part = np.stack([box[:, 0], box[:, 1], box[:, 2], box[:, 1] + 0.4 * (box[:, 3] - box[:, 1])], -1)[:, None]
    counts = {}
    for keep_best in (False, True):
        for add in (False, True):
            sampling = RegionSampling(8, high=0.7, low=0.3, keep_best=keep_best, add_ground_truth=add)
            regions = sample_regions(Proposed(part, np.ones((2, 1), bool)), truth, sampling, 3)
            counts[keep_best, add] = keras.ops.convert_to_numpy(regions.positive).sum()
    # An IoU of 0.4 is between the thresholds: positive only as the best candidate, without the object's own box.
    assert counts == {(False, False): 0, (False, True): 2, (True, False): 2, (True, True): 2}


def test_all_regions_from_one_level(tiny, batch):
    one = tiny(regions={"level": 4})
    assert one.region_levels == ["P4"] and one.box_head.align.strides == one.mask_head.align.strides == (16,)
    features = one.features(batch[0]["images"], batch[0]["sizes"])
    boxes = keras.ops.convert_to_tensor(batch[1]["boxes"])
    cut = one.box_head.align([features["P4"]], boxes)
    assert cut.shape == (2, 6, 7, 7, 16)
    assert one({**batch[0], **batch[1]})["class_loss"] > 0
    with pytest.raises(ValueError, match="regions level=6 is not one of P2, P3, P4, P5"):
        tiny(regions={"level": 6})


@pytest.mark.slow
def test_assignment_options_compile_under_xla(tiny, batch):
    """A compiled step with a normalised RPN, anchors inside the image, random samples and given proposals."""
    model = tiny(
        rpn_stage={"norm": "batch"},
        rpn_sampling={"size": 16, "cross_boundary": "ignore"},
        regions={"positions": "random", "level": 3},
    )
    model.compile(keras.optimizers.SGD(0.01), jit_compile=True, loss_weights={"rpn_class_loss": 0, "rpn_box_loss": 0})
    before = [keras.ops.convert_to_numpy(w) for w in model.box_head.trainable_variables]
    x, y = batch
    given = {"proposals": y["boxes"] + 1, "proposal_valid": y["valid"]}
    model.rpn.trainable = False
    logs = model.train_on_batch({**x, **given}, y, return_dict=True)
    assert logs["rpn_class_loss"] == 0 and np.isfinite(logs["loss"]) and logs["class_loss"] > 0
    assert logs["proposal_recall"] > 0.9  # the given proposals, not the untrained RPN's
    assert any(
        np.abs(keras.ops.convert_to_numpy(w) - b).max() > 0
        for w, b in zip(model.box_head.trainable_variables, before, strict=True)
    )


@pytest.mark.slow
def test_first_stage_compiles_under_xla(view, batch):
    inputs = {name: batch[0][name] for name in ("images", "sizes")}
    expected = numpy(view(inputs))
    view.compile(jit_compile=True)
    found = view.predict_on_batch(inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3)
