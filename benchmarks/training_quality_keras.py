"""This package's side of `training_quality.py`, which starts it with its own Python.

python benchmarks/training_quality_keras.py --crops CROPS --pictures PICTURES --output RUN --seed 0

Numbers that both sides share are in `training_quality_setup`; the rest are defaults of `MaskRCNN`.
"""

import importlib.metadata
import os

import keras
import numpy as np
import tensorflow as tf
import training_quality_setup as setup

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.backend.precision import fastest_policy
from keras_maskrcnn.ops.masks import paste
from keras_maskrcnn.training.schedules import warmup_cosine


class Samples(data.Dataset):
    """`setup.Crops` as a reader."""

    class_names = ("nucleus",)

    def __init__(self, folder):
        self.crops = setup.Crops(folder)

    def __len__(self):
        return len(self.crops) // setup.BATCH * setup.BATCH

    def read(self, position):
        """One crop as a sample."""
        image, boxes, masks = self.crops[position]
        labels = np.ones(len(boxes), np.int32)
        return {"image": image, "boxes": boxes, "labels": labels, "masks": masks, "source": f"crop {position}"}


class Report(keras.callbacks.Callback):
    """Passes the losses of each step to a `setup.Progress`, which starts with the training."""

    def __init__(self, images):
        super().__init__()
        self.images, self._totals = images, {}

    def on_train_begin(self, logs=None):
        """Starts the clock, so that tracing is included."""
        self.progress = setup.Progress("ours", self.images)

    def on_train_batch_end(self, batch, logs=None):
        """Computes the losses of the step from Keras' running means."""
        totals = {name: logs[name] * (batch + 1) for name in self.model.loss_names}
        losses = {name: total - self._totals.get(name, 0.0) for name, total in totals.items()}
        self._totals = totals
        self.progress.step((batch + 1) * setup.BATCH, losses)


def build(seed, dtype):
    """The detector with the numbers of `setup`."""
    return MaskRCNN(
        1,
        backbone={"name": "resnet18", "norm": "group", "width": setup.WIDTH},
        image_size=(setup.CANVAS, setup.CANVAS),
        fpn_channels=setup.FPN_CHANNELS,
        anchors={"sizes": tuple((size,) for size in setup.ANCHORS), "rounded": True},
        proposals={"pre_nms": setup.PRE_NMS, "post_nms": setup.POST_NMS},
        rpn_sampling={"size": setup.RPN_SAMPLES},
        box_sampling={"size": setup.BOX_SAMPLES},
        box_stage={"width": setup.BOX_WIDTH},
        mask_stage={"width": setup.MASK_WIDTH, "depth": setup.MASK_DEPTH},
        detection={"score_threshold": setup.SCORE_THRESHOLD, "max_detections": setup.MAX_DETECTIONS},
        seed=seed,
        dtype=dtype,
    )


def optimizer(steps):
    """AdamW without decay of biases and norms."""
    schedule = warmup_cosine(
        setup.LEARNING_RATE,
        steps,
        warmup=setup.WARMUP,
        hold_steps=int(setup.HOLD * steps),
        final_factor=setup.FINAL_FACTOR,
        start_factor=setup.WARMUP_START,
    )
    result = keras.optimizers.AdamW(
        schedule, weight_decay=setup.WEIGHT_DECAY, epsilon=setup.EPSILON, global_clipnorm=setup.CLIP
    )
    result.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return result


def train(model, folder):
    """One pass over the crops; returns the `Progress`."""
    samples = Samples(folder)
    batches = data.batches(
        samples, model.image_size, setup.BATCH, max_instances=setup.MAX_INSTANCES, mask_size=56, shuffle=False
    )
    model.compile(optimizer(len(samples) // setup.BATCH))
    report = Report(len(samples))
    model.fit(batches, shuffle=False, verbose=0, callbacks=[report])
    return report.progress


def detect(model, pictures):
    """Yields (boxes, scores, masks) of each image at its own size; the network is traced once per padded size."""
    networks = {}
    for picture in pictures:
        height, width = picture.shape[:2]
        padded = tuple(-(-side // setup.STRIDE) * setup.STRIDE for side in (height, width))
        image = np.zeros((1, *padded, 3), np.uint8)
        image[0, :height, :width] = picture
        network = networks.setdefault(padded, tf.function(lambda inputs: model(inputs)))
        inputs = {"images": tf.constant(image), "sizes": tf.constant([[height, width]], tf.float32)}
        found = {name: values[0].numpy() for name, values in network(inputs).items()}
        boxes, scores, masks = (found[name][found["valid"]] for name in ("boxes", "scores", "masks"))
        yield boxes, scores, paste(masks, boxes, (height, width))


def run(arguments):
    """Train and detect."""
    keras.utils.set_random_seed(arguments.seed)
    given = {"auto": fastest_policy(), "bfloat16": "mixed_bfloat16"}
    model = build(arguments.seed, given.get(arguments.precision, arguments.precision))
    progress = train(model, arguments.crops)
    record = progress.record(
        precision=model.layer_dtype,
        parameters=sum(int(np.prod(w.shape)) for w in model.trainable_variables),
        threads=len(os.sched_getaffinity(0)),
        versions={name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")},
    )
    return record, detect(model, setup.read_pictures(arguments.pictures))


if __name__ == "__main__":
    setup.worker(run, __doc__)
