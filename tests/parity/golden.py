"""The content of the golden file: whole boxes and masks, and values of large arrays at random positions."""

import io
import pathlib
import zlib

import measure
import numpy as np
from PIL import Image

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
FILES = FOLDER / "parity.npz", FOLDER / "parity_keypoints.npz", FOLDER / "parity_yolact.npz"
PLACES, SUMS = 400, 64


def crop(photo):
    """The used part of the astronaut: 200×290, which the small rule does not enlarge to whole pixels."""
    return photo[:200, 130:420].copy()


def training_pictures(picture):
    """Two overlapping parts of the image, 128×160, for which no proposal is at a threshold in the ten steps."""
    return [picture[40:168, :160].copy(), picture[60:188, 130:290].copy()]


def as_png(picture):
    """An image as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def read():
    """The golden files' arrays by name; `picture` as uint8 `[H, W, 3]`."""
    arrays = {}
    for path in FILES:
        with np.load(path) as file:
            arrays |= dict(file)
    arrays["picture"] = np.asarray(Image.open(io.BytesIO(arrays["picture"].tobytes())))
    return arrays


def part(arrays, name):
    """The arrays "name/…" of the golden file without that prefix; masks unpacked."""
    found = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
    if "masks" in found:
        height, width = arrays["picture"].shape[:2]
        found["masks"] = np.unpackbits(found["masks"], axis=2, count=width).astype(bool)[:, :height]
    return found


def excerpt(answers):
    """The stored part of one side's arrays of an image: detections and proposals, samples of maps and logits."""
    kept = {name: sample(name, array, PLACES) for name, array in answers.items() if name in measure.DENSE}
    kept |= {name: array for name, array in answers.items() if name not in measure.DENSE}
    return kept | ({"masks": np.packbits(answers["masks"], axis=2)} if "masks" in answers else {})


def training_excerpt(answers):
    """The stored part of one side's arrays of the training case: losses, norms of gradients and sums of their parts."""
    gradients = {name: array for name, array in answers.items() if name.startswith("gradient/")}
    kept = {name: signed_sums(name, array) for name, array in gradients.items()}
    kept |= {f"norm/{name}": np.linalg.norm(array.astype("float64")) for name, array in gradients.items()}
    return kept | {name: answers[name] for name in ("losses", "own_losses", "own_gradients") if name in answers}


def signed_sums(name, array):
    """Sums of the array's `SUMS` parts with random signs that depend on the name, so that every value has an effect.

    The relative error of these sums is about that of the whole array.
    """
    signs = _draws(name).randint(0, 2, array.size) * 2.0 - 1
    return np.array([part.sum() for part in np.array_split(array.ravel() * signs, SUMS)])


def sample(name, array, count):
    """`count` values at random positions that depend on the name; all values if there are not more."""
    if array.size <= count:
        return array.ravel()
    return array.ravel()[_draws(name).randint(0, array.size, count)]


def _draws(name):
    """A generator that depends on the name only; NumPy guarantees that its stream does not change."""
    return np.random.RandomState(zlib.crc32(name.encode()))
