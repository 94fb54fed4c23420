"""Writes fcn.npz: torchvision's `fcn_resnet50` with generated weights on two images, its loss and gradients.

Needs torch and torchvision; the tests do not. Every second or so of the logits of the canvas is stored. Norms have
their stored statistics and no features are dropped, so that nothing is random.

    python tests/golden/make_fcn.py
"""

import pathlib
import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torchvision.models.segmentation import fcn_resnet50

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "weights"))
import names

AUXILIARY = 0.5  # weight of its loss, as in torchvision's references/segmentation/train.py
GRADIENTS = {
    "classifier.4.weight": np.s_[:],
    "classifier.0.weight": np.s_[::8, ::32],
    "aux_classifier.4.weight": np.s_[:],
    "backbone.layer4.2.conv2.weight": np.s_[::16, ::32],
    "backbone.layer3.0.conv2.weight": np.s_[::8, ::16],
    "backbone.conv1.weight": np.s_[:],
}
STEP = np.s_[:, :, ::3, ::5]


def batch():
    """Normalised images float32 `[2, 3, 64, 96]`, and labels `[2, 64, 96]` of 0…20 and 255."""
    rng = np.random.RandomState(5)
    images = rng.normal(size=(2, 3, 64, 96)).astype("float32")
    labels = np.kron(rng.randint(0, 21, (2, 8, 12)), np.ones((8, 8), int))
    labels[:, :5] = 255
    return images, labels


def main():
    torch.manual_seed(0)
    model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    arrays = names.lively(names.drawn(names.torchvision_shapes("fcn_resnet50")))
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    images, labels = (torch.from_numpy(array) for array in batch())
    found = model(images)
    losses = [cross_entropy(found[part], labels, ignore_index=255) for part in ("out", "aux")]
    (losses[0] + AUXILIARY * losses[1]).backward()
    parameters = dict(model.named_parameters())
    content = {part: found[part].detach().numpy()[STEP] for part in ("out", "aux")}
    content |= {f"gradient {name}": parameters[name].grad.numpy()[cut] for name, cut in GRADIENTS.items()}
    content["losses"] = np.array([float(loss) for loss in losses])
    content["parameters"] = np.array(sum(p.numel() for p in model.parameters()))
    np.savez_compressed(pathlib.Path(__file__).with_name("fcn.npz"), **content)
    print({name: (array.shape, float(np.abs(array).mean())) for name, array in content.items()})


if __name__ == "__main__":
    main()
