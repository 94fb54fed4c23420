"""Writes `model_0.1.0.keras` and `model_0.1.0.npz`: a model file of version 0.1.0 and its detections.

    python tests/golden/make_keras_file.py

The files in this folder were written at commit 5da2203, before heads had a module each. Running the script again with a
later version writes another format, so the files are kept as they are.
"""

import pathlib

import keras
import numpy as np

from keras_maskrcnn import MaskRCNN, data

FOLDER = pathlib.Path(__file__).parent
# No argument has its default value where another one can be had at this size.
ARGUMENTS = {
    "backbone": {"name": "resnet10", "width": 4, "norm": "batch", "freeze_at": 1},
    "class_names": ["circle", "square", "triangle"],
    "image_size": (64, 96),
    "fpn_channels": 8,
    "fpn_norm": "group",
    "rpn_stage": {"depth": 2, "norm": "batch"},
    "anchors": {"sizes": ((12,), (24,), (48,), (64,), (96,)), "rounded": True},
    "proposals": {"pre_nms": 50, "post_nms": 20, "training_post_nms": 25},
    "rpn_sampling": {"size": 16, "cross_boundary": "ignore"},
    "box_sampling": {"size": 16, "add_truth": False, "keep_best": True},
    "regions": {"positions": "random"},
    "box_stage": {"width": 8, "pool": 3, "convs": 1, "norm": "group"},
    "mask_stage": {"width": 6, "depth": 1, "pool": 5},
    "detection": {"paste": "whole_pixels", "max_detections": 30},
    "seed": 5,
}


def main():
    """Train for two steps, so that statistics and optimizer slots are not at their initial values; then save."""
    keras.utils.set_random_seed(11)
    model = MaskRCNN(3, **ARGUMENTS)
    model.compile(keras.optimizers.AdamW(1e-3), loss_weights={"box_loss": 2.0}, run_eagerly=True)
    shapes = data.Shapes(4, image_size=(64, 96), seed=5, object_size=(12, 30))
    batches = data.batches(shapes, (64, 96), 2, max_instances=6, mask_size=28, backend="numpy")
    for index in range(2):
        model.train_on_batch(*batches[index])
    model.save(FOLDER / "model_0.1.0.keras")
    found = model.detect(shapes[0]["image"], score_threshold=0.2)
    shown = {f"shown/{name}": value for name, value in model.detect(shapes[0]["image"]).items()}
    np.savez_compressed(FOLDER / "model_0.1.0.npz", image=shapes[0]["image"], **found, **shown)


if __name__ == "__main__":
    main()
