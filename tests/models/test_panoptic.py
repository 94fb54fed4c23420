"""Mask R-CNN with a semantic head: its loss, its maps, export, and its preset; see also `test_tasks`."""

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data, evaluation, visualize
from keras_maskrcnn.heads.semantic import SemanticHead
from keras_maskrcnn.inference.panoptic import panoptic
from keras_maskrcnn.inference.saved_model import SavedModel
from keras_maskrcnn.models import presets


@pytest.fixture(scope="module")
def scenes():
    return data.Scenes(4, (64, 64), seed=2, objects=(1, 2), object_size=(18, 30))


def batches_of(dataset, **options):
    return data.batches(dataset, (64, 64), 2, max_instances=4, mask_size=28, **options)


def head(**options):
    return SemanticHead(3, {"width": 16, **options})


@pytest.fixture(scope="module")
def model(tiny, scenes):
    """The tiny model after one epoch of two steps, in eager mode."""
    model = tiny(heads=[head()])
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    model.fit(batches_of(scenes, backend="numpy"), epochs=1, verbose=0)
    return model


@pytest.fixture(scope="module")
def batch(scenes):
    x, y = next(iter(batches_of(scenes, backend="numpy")))
    return {name: np.asarray(values) for name, values in {**x, **y}.items()}


IMAGES = [np.random.default_rng(i).integers(0, 255, (*size, 3)).astype("uint8") for i, size in
          enumerate([(64, 64), (50, 90), (120, 40)])]  # fmt: skip


def same_map(one, other):
    assert one.shape == other.shape and (one == other).mean() > 0.995  # equal logits up to rounding


def test_the_loss_is_one_of_the_model(model, batch):
    losses = model({name: keras.ops.convert_to_tensor(values) for name, values in batch.items()})
    assert model.loss_names[-1] == "semantic_loss" and float(losses["semantic_loss"]) > 0
    nothing = {**batch, "semantic": np.full_like(batch["semantic"], 255), "valid": np.zeros_like(batch["valid"])}
    losses = model({name: keras.ops.convert_to_tensor(values) for name, values in nothing.items()})
    assert float(losses["semantic_loss"]) == 0 and all(np.isfinite(float(loss)) for loss in losses.values())


def test_images_of_unequal_sizes_have_maps_of_their_sizes(model):
    found = model.detect(IMAGES, score_threshold=0.01)
    assert [one["semantic"].shape for one in found] == [image.shape[:2] for image in IMAGES]
    assert all(one["semantic"].dtype == np.uint8 and one["semantic"].max() <= 3 for one in found)
    assert found[0].rows([0])["semantic"] is found[0]["semantic"]
    for one in found:  # coordinates, scores and drawings are those of the objects alone
        assert all("semantic" not in result for result in evaluation.coco_results([one], [1]))
        visualize.draw(np.zeros((*one["semantic"].shape, 3), np.uint8), one)
    merged = panoptic(found[1], score_threshold=0.01, stuff_area=1)
    assert merged.ids.shape == (50, 90) and merged.segments
    assert visualize.draw_panoptic(IMAGES[1], merged).shape == IMAGES[1].shape


def test_panoptic_quality_of_a_file(model, scenes, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.heads[0], SemanticHead)
    result = evaluation.panoptic_quality(again, scenes[:2], score_threshold=0.05, stuff_area=1)
    assert {"PQ", "PQ_things", "PQ_stuff", "per_class"} <= set(result) and "sky" in result["per_class"]


@pytest.mark.slow
def test_savedmodel(model, tmp_path):
    import io

    import tensorflow as tf
    from PIL import Image

    model.export(tmp_path / "saved")
    found = model.detect(IMAGES, score_threshold=0.01)
    served = SavedModel(tmp_path / "saved").detect(IMAGES, score_threshold=0.01)
    for one, other in zip(found, served, strict=True):
        same_map(one["semantic"], other["semantic"])
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    maps = signatures["serving_default"](images=tf.constant(IMAGES[1][None]))["semantic_predictions"]
    assert maps.dtype == tf.int64 and maps.shape == (1, 50, 90)
    assert (maps[0].numpy() == found[1]["semantic"]).mean() > 0.95  # TensorFlow's resize of the image differs a little
    files = []
    for image in IMAGES:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        files.append(stream.getvalue())
    maps = signatures["serve_bytes"](image_bytes=tf.constant([*files, b"broken"]))["semantic_predictions"].numpy()
    assert maps.shape == (4, 120, 90) and not maps[3].any()
    for one, image, alone in zip(maps, IMAGES, found, strict=False):
        height, width = image.shape[:2]
        assert (one[height:] == 255).all() and (one[:, width:] == 255).all()
        assert (one[:height, :width] == alone["semantic"]).mean() > 0.95


def test_a_semantic_loss_of_weight_zero_is_not_computed(tiny, batch):
    model = tiny(heads=[head()])
    model.compile("sgd", loss_weights={"semantic_loss": 0})
    model.heads[0].call = None  # would raise if it were called
    inputs = {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}
    assert float(model(inputs)["semantic_loss"]) == 0


def test_data_without_maps_is_named(tiny, shapes):
    model = tiny(heads=[head()])
    model.compile("sgd")
    with pytest.raises(ValueError, match="the data has no semantic, which mask_rcnn is trained with"):
        model.fit(batches_of(shapes), verbose=0)


def test_heads_as_dicts(tiny):
    model = tiny(heads=[keras.saving.serialize_keras_object(head(loss_weight=0.5))])
    assert model.heads[0].stage.loss_weight == 0.5 and [of.name for of in model.map_heads()] == ["semantic_head"]
    with pytest.raises(ValueError, match="is no serialised layer"):
        tiny(heads=[{"name": "semantic_head"}])


def test_the_preset(narrow_presets):
    config = presets.read("panoptic_resnet50_fpn")["config"]
    config["heads"][0]["config"]["stage"]["width"] = 8
    model = MaskRCNN(80, **config)
    semantic = model.heads[0]
    assert semantic.num_classes == 53 and semantic.stage.loss_weight == 0.5
    assert semantic.logits.kernel.shape == (1, 1, 8, 54)


@pytest.mark.slow
def test_two_scenes_are_learned(tiny, scenes):
    """Overfitting: regions and objects of two images are found again."""
    two = data.Subset(scenes, [0, 1])
    model = tiny(heads=[head(width=32)], fpn_channels=32, box_stage={"width": 64}, mask_stage={"width": 32, "depth": 2})
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(batches_of(two, repeat=True), epochs=1, steps_per_epoch=300, verbose=0)
    result = evaluation.panoptic_quality(model, two, stuff_area=16)
    print({name: value for name, value in result.items() if name != "per_class"})
    assert result["PQ_stuff"] > 0.85 and result["PQ_things"] > 0.6
