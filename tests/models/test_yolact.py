"""YOLACT: parameter counts, losses, compiled steps, detections in every form; see also `test_tasks`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_maskrcnn import YOLACT, data, evaluation
from keras_maskrcnn.cli import main
from keras_maskrcnn.heads.outputs import to_image
from keras_maskrcnn.inference.augmented import TestTimeAugmentation
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models.parameters import count_parameters

TINY = {
    "backbone": {"name": "resnet10", "width": 8, "norm": "group"},
    "fpn_channels": 16,
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,))},
    "stage": {"width": 16},
    "prototypes": {"width": 16, "count": 8},
    "image_size": (64, 64),
    "seed": 7,
}
LOSSES = ("class_loss", "box_loss", "mask_loss", "semantic_loss")


def make_model(**overrides):
    """A model of about fifty thousand weights for three classes and 64×64 canvases."""
    keras.utils.set_random_seed(3)
    return YOLACT(3, **{**TINY, **overrides})


def terms(model, batch, training=True, **changes):
    """Losses and health of a batch as numbers."""
    x, y = batch
    found = model({**x, **y, **changes}, training=training)
    return {name: float(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """(model, folder) after one epoch in eager mode, saved as .keras and as a SavedModel."""
    folder = tmp_path_factory.mktemp("yolact")
    model = make_model(class_names=shapes.class_names)
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    model.fit(data.batches(shapes, (64, 64), 2, max_instances=6), epochs=1, verbose=0)
    model.save(folder / "model.keras")
    model.export(folder / "saved")
    return model, folder


def test_parameters_of_the_published_network():
    assert count_parameters(YOLACT(22))["without_statistics"] == 30_748_967


def test_anchors_of_550_pixels():
    model = make_model(anchors={"sizes": [[24], [48], [96], [192], [384]], "square": True})
    levels = model.anchor_head.anchors.boxes((550, 550), model.strides)
    assert [len(level) for level in levels] == [3 * side**2 for side in (69, 35, 18, 9, 5)]
    centre = 550 / 69 / 2
    sides = [24, 24 / 2**0.5, 24 * 2**0.5]
    np.testing.assert_allclose(levels[0][:3], [[centre - s / 2] * 2 + [centre + s / 2] * 2 for s in sides], rtol=1e-5)


def test_a_canvas_may_have_any_size(shapes):
    model = make_model(image_size=None)
    assert model.canvas_stride() == 1
    x, y = next(iter(data.batches(shapes, (70, 51), 1, max_instances=6)))
    pyramid = model.features(x["images"], np.array([[70, 51]], "float32"))
    assert [tuple(level.shape[1:3]) for level in pyramid.values()] == [(9, 7), (5, 4), (3, 2), (2, 1), (1, 1)]
    assert all(np.isfinite(value) for value in terms(model, (x, y)).values())
    assert model(x)["masks"].shape[2:] == (18, 14)


def test_anchors_follow_the_levels_of_a_backbone_that_rounds_down(shapes):
    model = make_model(backbone={"name": "simple_cnn", "channels": [4, 4, 4, 4, 4, 4]}, image_size=None)
    batch = next(iter(data.batches(shapes, (70, 51), 1, max_instances=6)))
    pyramid = list(model.features(batch[0]["images"], np.array([[70, 51]], "float32")).values())
    assert tuple(pyramid[0].shape[1:3]) == (8, 6)  # 9 and 7 where it is rounded up
    assert np.asarray(model.anchor_head.boxes((70, 51), pyramid))[:, 2].max() > 51
    assert all(np.isfinite(value) for value in terms(model, batch).values())


def test_every_trainable_weight_gets_a_gradient(batch):
    model = make_model(matching={"negatives": 1000})  # all of them, also on the levels without a positive
    x, y = batch
    with tf.GradientTape() as tape:
        total = sum(model({**x, **y}, training=True)[name] for name in LOSSES)
    for weight, gradient in zip(model.trainable_weights, tape.gradient(total, model.trainable_weights), strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_images_without_objects_give_no_loss_but_the_semantic_one(batch):
    _, y = batch
    found = terms(make_model(), batch, valid=np.zeros_like(y["valid"]))
    assert [found[name] for name in LOSSES[:3]] == [0, 0, 0] and found["positives"] == found["negatives"] == 0
    assert 0 < found["semantic_loss"] < np.inf
    half = terms(make_model(), batch, valid=y["valid"] & np.array([[True], [False]]))
    assert all(np.isfinite(value) for value in half.values())


def test_crowds_give_no_positives(batch):
    found = terms(make_model(), batch, crowd=batch[1]["valid"])
    assert found["positives"] == 0 and found["mask_loss"] == 0


@pytest.mark.parametrize("objects", [[[10, 10, 11, 11]], [[0, 0, 64, 64]] * 100], ids=["one pixel", "a hundred"])
def test_unusual_objects(batch, objects):
    x, count = batch[0], len(objects)
    y = {
        "boxes": np.tile(np.array(objects, "float32"), (2, 1, 1)),
        "labels": np.ones((2, count), "int32"),
        "crowd": np.zeros((2, count), bool),
        "valid": np.ones((2, count), bool),
        "masks": np.full((2, count, 7, 7), 255, "uint8"),
    }
    found = terms(make_model(), (x, y))
    assert all(np.isfinite(value) for value in found.values()) and found["positives"] >= count  # one for each


def test_masks_of_the_canvas_give_almost_the_loss_of_masks_in_boxes(shapes):
    found = []
    for mask_size in (112, "canvas"):
        batch = next(iter(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=mask_size)))
        found.append(terms(make_model(), batch, training=False))
    assert found[0]["class_loss"] == found[1]["class_loss"]
    np.testing.assert_allclose(found[0]["mask_loss"], found[1]["mask_loss"], rtol=0.1)
    np.testing.assert_allclose(found[0]["semantic_loss"], found[1]["semantic_loss"], rtol=0.1)


def test_masks_inside_boxes_of_the_size_of_the_canvas_are_refused(shapes):
    model = make_model()
    model.compile("sgd")
    with pytest.raises(ValueError, match="mask_size=64 is the side of the canvas"):
        model.fit(data.batches(shapes, (64, 64), 2, max_instances=6, mask_size=64), verbose=0)


def test_the_mask_loss_is_that_of_loops(batch):
    model = make_model()
    x, y = batch
    pyramid = list(model.features(x["images"], x["sizes"]).values())
    predicted, prototypes = model.anchor_head(pyramid), np.asarray(model.prototype_head(pyramid[0]))
    truth = {name: tf.constant(values) for name, values in y.items()}
    assigned = model.anchor_head.assign(model.anchor_head.boxes((64, 64), pyramid), truth)
    found = model.prototype_head.losses(
        prototypes, predicted.coefficients, assigned, truth, (64, 64), model.seed_generator
    )
    total, role = 0.0, np.asarray(assigned.role)
    for image, anchor in np.argwhere(role == 1):
        row = int(assigned.matched[image, anchor])
        x1, y1, x2, y2 = y["boxes"][image, row] / 4
        whole = np.zeros((64 * 7, 64 * 7))  # the mask with 7 cells per pixel
        left, top, right, bottom = np.rint(y["boxes"][image, row] * 7).astype(int)
        size = y["masks"].shape[-1]
        rows, columns = (
            np.minimum((np.arange(b - a) * size) // max(b - a, 1), size - 1) for a, b in ((top, bottom), (left, right))
        )
        whole[top:bottom, left:right] = y["masks"][image, row][np.ix_(rows, columns)] / 255
        covered = whole.reshape(16, 28, 16, 28).mean(axis=(1, 3))
        probability = 1 / (1 + np.exp(-(prototypes[image] @ np.asarray(predicted.coefficients)[image, anchor])))
        error = -np.where(covered > 0.5, np.log(probability), np.log(1 - probability))
        cells = np.arange(16)
        inside = np.outer((cells >= y1 - 1) & (cells < y2 + 1), (cells >= x1 - 1) & (cells < x2 + 1))
        total += error[inside].sum() / max((x2 - x1) * (y2 - y1), 1)
    np.testing.assert_allclose(float(found["mask_loss"]), 6.125 * total / (role == 1).sum(), rtol=0.02)


def test_of_too_many_positives_a_sample_stands_for_all(batch):
    x, y = batch
    model = make_model()
    pyramid = list(model.features(x["images"], x["sizes"]).values())
    predicted, prototypes = model.anchor_head(pyramid), model.prototype_head(pyramid[0])
    truth = {name: tf.constant(values) for name, values in y.items()}
    assigned = model.anchor_head.assign(model.anchor_head.boxes((64, 64), pyramid), truth)
    count = int((np.asarray(assigned.role) == 1).sum(axis=1).min())
    assert count > 1
    arguments = (prototypes, predicted.coefficients, assigned, truth, (64, 64))
    values = []
    for positives in (500, count // 2):
        head = make_model(prototypes={**TINY["prototypes"], "positives": positives}).prototype_head
        draws = [float(head.losses(*arguments, keras.random.SeedGenerator(i))["mask_loss"]) for i in range(30)]
        values.append(draws)
    assert np.ptp(values[0]) < 1e-5 < np.ptp(values[1])
    np.testing.assert_allclose(np.mean(values[1]), values[0][0], rtol=0.1)


def test_left_out_losses_and_the_model_without_the_semantic_one(batch):
    model = make_model()
    model.compile("sgd", loss_weights={"mask_loss": 0, "semantic_loss": 0})
    found = terms(model, batch)
    assert found["mask_loss"] == found["semantic_loss"] == 0 < found["class_loss"]
    assert make_model(semantic_weight=None).loss_names == LOSSES[:3]


def test_class_weights_are_factors_of_the_class_loss(batch):
    model = make_model()
    plain = terms(model, batch, training=False)
    model.compile("sgd", class_weights={"background": 2.0, "a": 2.0, "b": 2.0, "c": 2.0})
    model.class_names = ["a", "b", "c"]
    weighted = terms(model, batch, training=False)
    np.testing.assert_allclose(weighted["class_loss"], 2 * plain["class_loss"], rtol=1e-5)
    assert weighted["box_loss"] == plain["box_loss"]


def test_detections_are_the_same_in_every_form(trained, shapes):
    model, folder = trained
    image = shapes[0]["image"]
    found = model.detect(image, score_threshold=0.0)
    assert len(found["scores"]) and found["masks"].shape == (len(found["scores"]), 64, 64)
    assert found["masks"].dtype == bool and found["masks"].any()
    for mask, box in zip(found["masks"], found["boxes"], strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):  # cells of 4 pixels, one of margin
            outside = [box[0] - columns.min(), box[1] - rows.min(), columns.max() + 1 - box[2], rows.max() + 1 - box[3]]
            assert max(outside) < 8
    cropped = model.detect(image, score_threshold=0.0, masks="cropped").full()
    for again in (cropped, SavedModel(folder / "saved").detect(image, score_threshold=0.0)):
        for name, values in found.items():
            np.testing.assert_allclose(again[name], values, atol=1e-4)
    loaded = keras.saving.load_model(folder / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_allclose(loaded.detect(image, score_threshold=0.0)["scores"], found["scores"], atol=1e-5)


def test_served_masks_are_inside_their_boxes(trained, shapes):
    model, folder = trained
    served = tf.saved_model.load(str(folder / "saved")).signatures["serving_default"]
    found = {name: values.numpy() for name, values in served(tf.constant(shapes[0]["image"][None])).items()}
    batch = model.predict_on_batch({"images": shapes[0]["image"][None], "sizes": np.array([[64, 64]], "float32")})
    assert found["detection_masks"].shape == (1, 100, 56, 56)
    row = 0
    y1, x1, y2, x2 = found["detection_boxes"][0, row] * 16  # in cells of the map
    places = [np.clip(a + (np.arange(56) + 0.5) / 56 * (b - a) - 0.5, 0, 15) for a, b in ((y1, y2), (x1, x2))]
    mask = np.asarray(batch["masks"])[0, row]
    columns = np.stack([np.interp(places[1], np.arange(16), line) for line in mask])
    expected = np.stack([np.interp(places[0], np.arange(16), line) for line in columns.T], axis=1)
    np.testing.assert_allclose(found["detection_masks"][0, row], expected, atol=1e-3)


def test_tiles_and_views(trained, shapes):
    model, _ = trained
    image = np.tile(shapes[0]["image"], (2, 2, 1))
    for found in (
        model.detect(image, score_threshold=0.0, tiles=(64, 64), overlap=16),
        TestTimeAugmentation(model).detect(image, score_threshold=0.0),
    ):
        assert len(found["scores"]) and found["masks"].shape == (len(found["scores"]), 128, 128)
        assert found["masks"].any()


def test_masks_inside_boxes_are_those_of_the_canvas(trained, shapes):
    model, _ = trained
    image = shapes[0]["image"]
    found = model.detect(image, score_threshold=0.0)
    options = {"limits": model.detection.limits(0.0), "rows": 1}
    (boxed,) = model.predictor.run([image], **options, masks="probabilities")
    assert boxed["masks"].shape[1:] == (56, 56)
    again = to_image(boxed.schema, boxed, (1, 1), image.shape[:2])
    centres = np.arange(64) + 0.5
    x1, y1, x2, y2 = found["boxes"].T[..., None] + np.array([2, 2, -2, -2])[:, None, None]
    inside = ((centres > y1) & (centres < y2))[:, :, None] & ((centres > x1) & (centres < x2))[:, None]
    assert inside.sum() > 1000 and (again["masks"] != found["masks"])[inside].mean() < 0.1


def test_images_fill_the_canvas_where_their_aspect_is_not_kept(shapes):
    model = make_model(resize={"keep_aspect": False}, detection={"nms": "exact"})
    image = np.random.default_rng(0).integers(0, 255, (40, 100, 3)).astype("uint8")
    assert model.placement.place((40, 100)) == ((64, 64), (64, 64))
    found = model.detect(image, score_threshold=0.0)
    assert found["masks"].shape[1:] == (40, 100) and (found["boxes"] <= [100, 40, 100, 40]).all()
    wide = data.Shapes(2, image_size=(40, 100), seed=5, object_size=(12, 30))
    batches = data.batches(wide, (64, 64), 2, max_instances=6)
    model.adopt(batches)  # as `fit` does
    x, y = next(iter(batches))
    assert np.asarray(x["sizes"]).tolist() == [[64, 64], [64, 64]]
    scaled = wide[0]["boxes"] * [0.64, 1.6, 0.64, 1.6]
    np.testing.assert_allclose(np.asarray(y["boxes"])[0, : len(scaled)], scaled, rtol=1e-5)


def test_evaluation_takes_the_model_as_it_is(trained, shapes):
    model, _ = trained
    scores = evaluation.coco_scores(model, shapes, kinds=("bbox", "segm"))
    assert {"bbox_AP", "segm_AP"} <= set(scores)


def test_the_command_line_takes_the_model_as_it_is(trained, shapes, tmp_path):
    _, folder = trained
    Image.fromarray(shapes[0]["image"]).save(tmp_path / "a.png")
    model = ["--model", str(folder / "model.keras")]
    results = tmp_path / "found.json"
    command = ["predict", *model, str(tmp_path / "a.png"), "--score", "0", "--output", str(tmp_path / "drawn")]
    assert main([*command, "--json", str(results)]) == 0 and (tmp_path / "drawn" / "a.png").is_file()
    found = json.loads(results.read_text())
    assert found and all("segmentation" in result for result in found)
    scores = tmp_path / "scores.json"
    command = ["evaluate", *model, "--dataset", "shapes", "--count", "2", "--image-size", "64", "--json", str(scores)]
    assert main(command) == 0 and "segm_AP" in scores.read_text()


def test_parts_can_be_frozen(tmp_path):
    model = make_model(frozen=["backbone", "prototype_head/stack"])
    assert set(model.get_config()["frozen"]) >= {"backbone"}
    assert not model.backbone.trainable and model.anchor_head.trainable
    model.save(tmp_path / "frozen.keras")
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    assert loaded.get_config() == model.get_config()
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_presets_hold_the_conventions_of_the_project():
    model = YOLACT.from_preset("yolact_resnet50", num_classes=22, backbone={"name": "resnet50", "width": 16})
    assert model.image_size == (550, 550) and not model.resize.keep_aspect and model.anchor_head.anchors.square
    assert model.detection.nms == "fast" and model.detection.clip == "after_nms"


def test_errors_are_one_line():
    with pytest.raises(ValueError, match="YOLACT needs the levels C3, C4, C5: simple_cnn has no C5"):
        make_model(backbone={"name": "simple_cnn", "channels": [4, 4, 4, 4, 4]})
    with pytest.raises(ValueError, match="anchors has sizes for 2 levels, the pyramid has 5"):
        make_model(anchors={"sizes": [[12], [24]]})


@pytest.mark.slow
def test_the_step_compiles_and_learns_two_images():
    model = make_model()
    images = data.Shapes(2, image_size=(64, 64), seed=5, object_size=(12, 30))
    two = data.batches(images, (64, 64), 2, max_instances=6, repeat=True)
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=True)
    start = terms(model, next(iter(two)), training=False)
    model.fit(two, epochs=1, steps_per_epoch=150, verbose=0)
    end = terms(model, next(iter(two)), training=False)
    for name in LOSSES:
        assert end[name] < 0.4 * start[name], (name, start, end)
    assert evaluation.coco_scores(model, images, kinds=("segm",))["segm_AP50"] > 0.8


@pytest.mark.slow
def test_the_compiled_losses_and_detections_are_the_eager_ones(batch, shapes):
    model, compiled = make_model(), make_model()
    compiled.compile("sgd", jit_compile=True)
    x, y = batch
    step = tf.function(lambda inputs: compiled(inputs, training=False), jit_compile=True)
    exact, found = model({**x, **y}), step({**x, **y})
    for name in LOSSES:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-3)
    image = shapes[0]["image"]
    one, other = (m.detect(image, score_threshold=0.0, max_detections=20) for m in (model, compiled))
    np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-4)
