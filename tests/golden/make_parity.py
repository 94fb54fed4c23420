"""Makes parity.npz: what torchvision answers with generated weights, for the quick test in tests/parity.

    python tests/golden/make_parity.py PHOTOS

in an environment with torch and torchvision (made with torch 2.13, torchvision 0.28); PHOTOS is a folder with
`astronaut.png`, NASA's portrait of Eileen Collins, in the public domain. A part of it is stored with the answers. Of
what is large, the values at places drawn with a fixed seed are kept; `tests/parity/golden.py` says which.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "parity"))

import cases
import golden
import numpy as np
import torch_side


def main(photos):
    picture = golden.crop(cases.pictures(photos)["astronaut"])
    arrays = {"picture": np.frombuffer(golden.as_png(picture), "uint8")}
    for version in cases.VERSIONS:
        found = torch_side.answers(torch_side.build(version, cases.SMALL), picture)
        arrays |= {f"{version}/{name}": array for name, array in golden.excerpt(found).items()}
        print(f"{version}: {len(found['scores'])} detections")
    found = torch_side.training(cases.training_batch(golden.training_pictures(picture)))
    if found["own_losses"] > 1e-4:
        # Somewhere a proposal lies on the threshold between background and object, and rounding decides about it.
        raise SystemExit(f"torchvision's float32 is {found['own_losses']:.2g} off its float64: choose other pictures")
    arrays |= {f"training/{name}": array for name, array in golden.training_excerpt(found).items()}
    np.savez_compressed(HERE / "parity.npz", **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
