"""Makes parity.npz, parity_keypoints.npz, parity_yolact.npz: torch's answers with generated weights, for tests/parity.

    python tests/golden/make_parity.py PHOTOS [parity.npz] [parity_keypoints.npz] [parity_yolact.npz]

in an environment with torch and torchvision (made with torch 2.13, torchvision 0.28); PHOTOS is a folder with
`astronaut.png`, NASA's portrait of Eileen Collins, in the public domain. A part of it is stored with the answers. Of
what is large, the values at places drawn with a fixed seed are kept; `tests/parity/golden.py` says which.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "parity"))

import cases
import generated
import golden
import numpy as np
import torch_side

FILES = tuple(path.name for path in golden.FILES)
FEW_STEPS = 3  # of the keypoint head with its 26 million weights, and of YOLACT


def main(photos, *files):
    picture = golden.crop(cases.pictures(photos)["astronaut"])
    batches = cases.training_cases(golden.training_pictures(picture))
    if "parity.npz" in files:
        arrays = {"picture": np.frombuffer(golden.as_png(picture), "uint8"), **answers(("v1", "v2"), picture)}
        np.savez_compressed(HERE / "parity.npz", **arrays, **training("training", "v1", batches["v1"]))
    if "parity_keypoints.npz" in files:
        arrays = answers(("keypoint",), picture)
        arrays |= training("training_keypoint", "keypoint", batches["keypoint"], FEW_STEPS)
        np.savez_compressed(HERE / "parity_keypoints.npz", **arrays)
    if "parity_yolact.npz" in files:
        version, arrays = generated.YOLACT[0], answers(generated.YOLACT, picture)
        arrays |= training("training_yolact", version, batches[version], FEW_STEPS)
        np.savez_compressed(HERE / "parity_yolact.npz", **arrays)


def answers(versions, picture):
    """The stored arrays of one image."""
    arrays = {}
    for version in versions:
        found = torch_side.answers(torch_side.build(version, cases.SMALL), picture)
        arrays |= {f"{version}/{name}": array for name, array in golden.excerpt(found).items()}
        print(f"{version}: {len(found['scores'])} detections")
    return arrays


def training(name, version, batch, steps=cases.STEPS):
    """The stored arrays of a training case."""
    found = torch_side.training(batch, version, steps)
    if found["own_losses"] > 1e-4:
        # Somewhere a region or an anchor lies on the threshold between background and object, and rounding decides.
        raise SystemExit(f"torch's float32 is {found['own_losses']:.2g} off its float64: choose other pictures")
    return {f"{name}/{key}": array for key, array in golden.training_excerpt(found).items()}


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *(sys.argv[2:] or FILES))
