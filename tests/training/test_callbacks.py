"""Callbacks in `fit` of a small Keras model with predefined detections."""

import csv

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training import CocoEval, SkippedSteps
from keras_maskrcnn.training.callbacks import _news

SIDE = 48


class Reader(list):
    class_names = ("cat", "dog")


@keras.saving.register_keras_serializable(package="test_callbacks")
class Toy(keras.Sequential):
    """A trivial model; `shares` is the fraction of objects that it detects at each evaluation."""

    shares = (1.0,)
    scorings = 0

    def detect(self, images, score_threshold=0.5, max_detections=100):
        share = self.shares[min(self.scorings, len(self.shares) - 1)]
        if score_threshold == 0.0:
            self.scorings += 1
        count = round(share * 4)
        return [{**{k: v[:count] for k, v in objects().items()}, "scores": np.ones(count, np.float32)} for _ in images]


def objects():
    """Four cats in the corners."""
    boxes = [(0, 0, 16, 16), (30, 0, 46, 16), (0, 30, 16, 46), (30, 30, 46, 46)]
    masks = np.zeros((4, SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return {"boxes": np.array(boxes, np.float32), "labels": np.ones(4, np.int32), "masks": masks}


def reader(count=5):
    return Reader(
        {
            **objects(),
            "image": np.full((SIDE, SIDE, 3), 30 * index, np.uint8),
            "crowd": np.zeros(4, bool),
            "image_id": f"image{index}",
            "source": f"image{index}.png",
        }
        for index in range(count)
    )


def fit(callbacks, shares=(1.0,), epochs=4, **options):
    model = Toy([keras.Input((2,)), keras.layers.Dense(1)])
    model.shares = shares
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    data = (np.ones((8, 2), "float32"), np.ones((8, 1), "float32"))
    history = model.fit(*data, epochs=epochs, batch_size=4, verbose=0, callbacks=callbacks, **options)
    return model, history.history


def recall_to_ap(share):
    """AP if a fraction of the objects is detected without errors: the fraction of 101 recall points up to it."""
    return (int(100 * share) + 1) / 101


def test_figures_enter_the_logs():
    _, history = fit([CocoEval(reader())], shares=(0.25, 0.5, 0.75, 1.0))
    expected = [recall_to_ap(share) for share in (0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(history["val_segm_AP"], expected)
    np.testing.assert_allclose(history["val_bbox_AP50"], expected)
    assert sum(name.startswith(("val_bbox_", "val_segm_")) for name in history) == 24
    assert not any("per_class" in name or "cat" in name for name in history)


def test_between_scorings_the_last_figures_stand():
    callback = CocoEval(reader(), every=3, kinds=("segm",))
    model, history = fit([callback], shares=(0.25, 0.5, 0.75, 1.0), epochs=7)
    # Epochs 1 (the first), 3, 6 and 7 (the last) are scored.
    found = [recall_to_ap(share) for share in (0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(history["val_segm_AP"], found)
    assert model.scorings == 4
    assert "val_bbox_AP" not in history


def test_early_stopping_and_checkpoint_follow_the_figure(tmp_path):
    path = tmp_path / "best.keras"
    saved = []

    class Notes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if path.exists():
                saved.append(epoch)
                path.unlink()

    callbacks = [
        CocoEval(reader(), kinds=("segm",)),
        keras.callbacks.ModelCheckpoint(path, monitor="val_segm_AP", mode="max", save_best_only=True),
        Notes(),
        keras.callbacks.EarlyStopping(monitor="val_segm_AP", mode="max", patience=2),
    ]
    _, history = fit(callbacks, shares=(0.25, 0.75, 0.5, 0.5, 1.0), epochs=10)
    assert len(history["loss"]) == 4  # epoch 2 was the best, followed by two without improvement
    assert saved == [0, 1]


def test_repeated_figures_save_no_checkpoint(tmp_path):
    path = tmp_path / "{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="val_segm_AP", mode="max", save_best_only=True)
    fit([CocoEval(reader(), every=2, kinds=("segm",)), checkpoint], shares=(0.25, 0.5, 0.75), epochs=5)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["1", "2", "4"]


def test_csv_logger_keeps_its_columns(tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    fit([CocoEval(reader(), every=2), logger], shares=(0.25, 0.5), epochs=3)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_segm_AP"]) for row in rows] == pytest.approx([recall_to_ap(s) for s in (0.25, 0.5, 0.5)])
    assert rows[0]["val_segm_APl"] == "nan"


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_everything(tmp_path):
    fit([CocoEval(reader(), log_dir=tmp_path, every=2, images=2)], shares=(0.25, 0.5, 1.0), epochs=3)
    log = events(tmp_path)
    scalars = {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    assert [step for step, _ in scalars["loss"]] == [1, 2, 3]
    assert [value for _, value in scalars["learning_rate"]] == pytest.approx([0.01] * 3)
    figures = [(step, pytest.approx(recall_to_ap(share))) for step, share in ((1, 0.25), (2, 0.5), (3, 1.0))]
    assert scalars["val_segm_AP"] == figures
    assert scalars["val_segm_AP/cat"] == figures
    assert "val_segm_AP/dog" not in scalars and "val_segm_APl" not in scalars  # no dogs, and no large objects
    assert (
        len([tag for tag in scalars if tag.startswith("val_bbox_")]) == 12 - 4 + 3
    )  # less APm, APl, ARm, ARl; three of cat


def test_a_figure_between_scorings_is_not_drawn(tmp_path):
    fit([CocoEval(reader(), log_dir=tmp_path, every=3, images=0)], epochs=5)
    assert [event.step for event in events(tmp_path).Scalars("val_segm_AP")] == [1, 3, 5]


def test_the_same_images_are_drawn_in_each_epoch(tmp_path):
    fit([CocoEval(reader(), log_dir=tmp_path, images=3)], shares=(0.25, 0.5, 1.0), epochs=2)
    log = events(tmp_path)
    assert log.Tags()["images"] == [f"ground truth and prediction/image{index}" for index in (0, 2, 4)]
    for tag in log.Tags()["images"]:
        assert [event.step for event in log.Images(tag)] == [1, 2]
        assert log.Images(tag)[0].encoded_image_string != log.Images(tag)[1].encoded_image_string
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == ["epoch_001.png", "epoch_002.png"]
    width, height = Image.open(files[0]).size
    assert width > 2 * SIDE and height > 3 * SIDE


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit([CocoEval(reader())], epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_fit_is_scored_from_its_first_epoch():
    callback = CocoEval(reader(), every=10, kinds=("segm",))
    fit([callback], shares=(0.25,), epochs=1)
    _, history = fit([callback], shares=(0.75, 1.0), epochs=2)
    np.testing.assert_allclose(history["val_segm_AP"], [recall_to_ap(0.75), recall_to_ap(1.0)])


def test_limit_reaches_the_scoring():
    class Counted(Toy):
        def detect(self, images, **options):
            self.seen = getattr(self, "seen", 0) + len(images)
            return super().detect(images, **options)

    model = Counted([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[CocoEval(reader(5), limit=2)])
    assert model.seen == 2


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="every"):
        CocoEval(reader(), every=0)


@keras.saving.register_keras_serializable(package="test_callbacks")
class Skipping(keras.Model):
    """Skips batches that contain NaN, and records their indices like the real model."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.count = keras.metrics.Sum(name="skipped_steps")
        self.skipped_images = self.add_weight(
            shape=(64,), dtype="int32", initializer=keras.initializers.Constant(-1), trainable=False
        )

    def call(self, x):
        return self.dense(x["images"])

    def train_step(self, data):
        x = data[0]
        bad = keras.ops.any(keras.ops.isnan(x["images"]))
        moved = keras.ops.concatenate([x["image_index"], self.skipped_images], axis=0)[:64]
        self.skipped_images.assign(keras.ops.where(bad, moved, self.skipped_images))
        self.count.update_state(keras.ops.cast(bad, "float32"))
        return {"skipped_steps": self.count.result()}


def skipping_fit(bad, epochs=1, dataset=None):
    images = np.ones((8, 2), "float32")
    images[bad] = np.nan
    model = Skipping()
    model.compile("sgd", run_eagerly=False)
    x = {"images": images, "image_index": np.arange(8, dtype="int32")}
    data = reader(8) if dataset is None else dataset
    model.fit(x, np.ones((8, 1)), batch_size=2, epochs=epochs, shuffle=False, verbose=0, callbacks=[SkippedSteps(data)])


def test_skipped_steps_print_their_images(capsys):
    skipping_fit([5])
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        "skipped 1 step(s) whose loss or gradient was not finite; images: image4, image5"
    ]


def test_each_image_is_printed_once_per_epoch(capsys):
    skipping_fit([0, 7], epochs=2)
    text = capsys.readouterr().out
    for name in ("image0", "image1", "image6", "image7"):
        assert text.count(name) == 2
    assert "image2" not in text


def test_image_ids_of_the_data_set_are_preferred(capsys):
    class Named:
        image_ids = tuple("abcdefgh")

    skipping_fit([2], dataset=Named())
    assert "images: c, d" in capsys.readouterr().out


def test_no_output_without_skipped_steps_and_for_other_models(capsys):
    skipping_fit([])
    fit([SkippedSteps(reader())], epochs=1)
    assert capsys.readouterr().out == ""


def test_news_of_a_register():
    assert _news([-1, -1, -1], [-1, -1, -1]) == []
    assert _news([4, 5, -1], [-1, -1, -1]) == [4, 5]
    assert _news([4, 5, 4], [4, 5, -1]) == [4, 5]
    assert _news([7, 8, 9], [4, 5, 6]) == [7, 8, 9]


def test_with_the_real_model(tmp_path, capsys):
    model = MaskRCNN(
        3,
        {"name": "resnet10", "width": 8},
        image_size=(64, 64),
        fpn_channels=16,
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        proposals={"pre_nms": 32, "post_nms": 16},
        box_sampling={"size": 16},
        detection={"max_detections": 8},
    )
    model.compile(keras.optimizers.SGD(1e-3, clipnorm=1.0), run_eagerly=True)
    shapes = data.Shapes(4, image_size=(64, 64))
    callbacks = [CocoEval(shapes, log_dir=tmp_path, images=2, max_detections=8), SkippedSteps(shapes)]
    batches = data.batches(shapes, (64, 64), 2, max_instances=8)
    history = model.fit(batches, epochs=2, verbose=0, callbacks=callbacks).history
    assert len(history["val_segm_AP"]) == 2 and 0 <= history["val_segm_AP"][-1] <= 1
    tags = events(tmp_path).Tags()
    assert {"loss", "mask_loss", "gradient_norm", "proposal_recall", "learning_rate"} <= set(tags["scalars"])
    assert len(tags["images"]) == 2
    assert "skipped" not in capsys.readouterr().out

    model.rpn.weights[0].assign(model.rpn.weights[0] * float("nan"))
    model.fit(batches, epochs=1, verbose=0, callbacks=[SkippedSteps(shapes)])
    lines = capsys.readouterr().out.split("\n\n")
    assert all(line.strip().startswith("skipped ") for line in lines)
    named = ", ".join(line.strip().split("images: ")[1] for line in lines).split(", ")
    assert sorted(named) == sorted(str(shapes[index]["image_id"]) for index in range(4))
