"""Makes backbones.npz: features of torchvision's ResNeXt-50 and MobileNetV2 with generated weights.

    python tests/golden/make_backbones.py

in an environment with torch and torchvision (made with 2.13 and 0.28). Weights are drawn by name, see
`weights/names.py`; the image is `np.random.default_rng(0).normal(size=(1, 75, 101, 3))`. Its odd sides are padded on
all sides alike. For each level, as "resnext50_32x4d/C2":

    …/mean, …/std      float32 [C], over the whole map
    …/corners          float32 [2, 2, 24], the first channels of the four corner cells
"""

import importlib.util
import pathlib

import numpy as np
import torch
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter

HERE = pathlib.Path(__file__).parent
LEVELS = {
    "resnext50_32x4d": {"layer1": "C2", "layer2": "C3", "layer3": "C4", "layer4": "C5"},
    "mobilenet_v2": {"3": "C2", "6": "C3", "13": "C4", "18": "C5"},
}


def names():
    """The module tests/weights/names.py."""
    spec = importlib.util.spec_from_file_location("names", HERE.parent / "weights" / "names.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(model):
    """Arrays for the names of a model's `state_dict`."""
    module = names()
    arrays = module.lively(module.drawn({name: tuple(array.shape) for name, array in model.state_dict().items()}))
    return {name: torch.tensor(array) for name, array in arrays.items()}


@torch.no_grad()
def main():
    image = np.random.default_rng(0).normal(size=(1, 75, 101, 3)).astype("float32")
    arrays = {}
    for name, levels in LEVELS.items():
        model = models.get_model(name, weights=None).eval()
        model.load_state_dict(weights(model))
        body = IntermediateLayerGetter(getattr(model, "features", model), levels)
        for level, x in body(torch.tensor(image).permute(0, 3, 1, 2)).items():
            x = x[0].permute(1, 2, 0).numpy()
            arrays[f"{name}/{level}/mean"], arrays[f"{name}/{level}/std"] = x.mean((0, 1)), x.std((0, 1))
            arrays[f"{name}/{level}/corners"] = x[:: len(x) - 1, :: x.shape[1] - 1, :24]
            print(name, level, x.shape, "mean", abs(x.mean((0, 1))).mean(), "std over space", x.std((0, 1)).mean())
    np.savez_compressed(HERE / "backbones.npz", **arrays)


if __name__ == "__main__":
    main()
