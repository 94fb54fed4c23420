"""Step 1: a classifier of windows with one digit becomes a network that scores every place of a large image."""

import keras
import numpy as np
from keras import layers
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from cis680_report.page import Table
from keras_maskrcnn import visualize
from keras_maskrcnn.data.digits import NAMES
from keras_maskrcnn.drawing.colours import colour
from keras_maskrcnn.drawing.sheets import with_legend
from keras_maskrcnn.models.convolutionalise import convolutionalise

WINDOW, STRIDE = 32, 4  # pixels: side of the classifier's input, distance of the cells of the score map
SIZES = (20, 28)  # of the digits, which fit in a window
JITTER = 2  # pixels by which a window is shifted from the centre of its digit
CLEAR = 8  # windows with the label background are further than this from the centres of all digits
VAL_IMAGES, EPOCHS = 100, 5


def build():
    """An untrained classifier, uint8 `[B, 32, 32, 3]` to scores of background and ten digits `[B, 11]`.

    No convolution pads: a window then has the same scores by itself and inside a larger image.
    """
    return keras.Sequential(
        [
            keras.Input((WINDOW, WINDOW, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(1 + len(NAMES), name="scores"),
        ],
        name="classifier",
    )


def windows(dataset, seed=0):
    """Windows of a data set's images: one around each digit and at most one that is on none in each image.

    Args:
        dataset: `data.Digits`.
        seed: of the places.

    Returns:
        (uint8 [n, 32, 32, 3], int32 [n]), pixels and labels, 0 for background.
    """
    rng, half = np.random.default_rng(seed), WINDOW // 2
    pixels, labels = [], []
    for sample in dataset:
        image, centres = sample["image"], (sample["boxes"][:, :2] + sample["boxes"][:, 2:]) / 2
        limits = np.array(image.shape[1::-1]) - half
        elsewhere = rng.integers(half, limits + 1)
        shifted = np.round(centres).astype(int) + rng.integers(-JITTER, JITTER + 1, centres.shape)
        places = [*zip(shifted, sample["labels"], strict=True)]
        if (np.abs(centres - elsewhere).max(axis=1) > CLEAR).all():
            places.append((elsewhere, 0))
        for (x, y), label in places:
            if half <= x <= limits[0] and half <= y <= limits[1]:
                pixels.append(image[y - half : y + half, x - half : x + half])
                labels.append(label)
    return np.array(pixels), np.array(labels, np.int32)


def train(work):
    """A trained classifier, its accuracy on windows with other single digits, and the number of training windows."""
    keras.utils.set_random_seed(work.arguments.seed)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    known, others = (
        windows(work.images(count, split, 3, digit_size=SIZES, digits=(4, 8)))
        for split, count in (("train", work.arguments.classifier_images), ("val", VAL_IMAGES))
    )
    model.fit(*known, batch_size=64, epochs=EPOCHS, verbose=0)
    return model, float(model.evaluate(*others, verbose=0)[1]), len(known[0])


def difference(model, dense, image):
    """Largest difference of a score map's cells from the classifier's scores of their windows, over all cells."""
    cut = sliding_window_view(image, (WINDOW, WINDOW), axis=(0, 1))[::STRIDE, ::STRIDE]
    cut = np.moveaxis(cut, 2, -1)
    scores = model.predict(cut.reshape(-1, WINDOW, WINDOW, 3), verbose=0).reshape(*cut.shape[:2], -1)
    return float(np.abs(dense.predict(image[None], verbose=0)[0] - scores).max())


def picture(image, scores):
    """An image next to its score map, the best class of each cell in its colour, brighter the more probable it is.

    Args:
        image: uint8 [H, W, 3].
        scores: float [h, w, 11].
    """
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    tints = np.array([(0, 0, 0), *(colour(index) for index in range(len(NAMES)))])
    cells = (tints[shares.argmax(axis=-1)] * shares.max(axis=-1, keepdims=True)).astype(np.uint8)
    # Cells lie at the centres of their windows; half a window at the border has none.
    height, width = (side * STRIDE for side in cells.shape[:2])
    drawn, edge = np.full_like(image, 60), (WINDOW - STRIDE) // 2
    drawn[edge : edge + height, edge : edge + width] = np.asarray(
        Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
    )
    scale = visualize.fitting_scale(image)
    panels = [panel.repeat(scale, axis=0).repeat(scale, axis=1) for panel in (image, drawn)]
    legend = {name: colour(index) for index, name in enumerate(NAMES)}
    return with_legend(visualize.grid(panels, columns=2), legend)


def fill(report, work, folder):
    """Fills step 1, saves its picture in a folder, and returns the figures for JSON."""
    model, accuracy, count = train(work)
    dense = convolutionalise(model)
    sample = work.images(1, "val", 4, digit_size=SIZES, digits=(6, 8))[0]
    scores = dense.predict(sample["image"][None], verbose=0)[0]
    drawn = picture(sample["image"], scores)
    Image.fromarray(drawn).save(folder / "score_map.png")
    found = difference(model, dense, sample["image"])
    report.step(
        1,
        windows=count,
        accuracy=accuracy,
        difference=found,
        cells=f"{scores.shape[0]} × {scores.shape[1]}",
        size=f"{sample['image'].shape[0]} × {sample['image'].shape[1]}",
        layers=Table(["layer", "of the classifier", "convolution", "weights"], [*_rows(model, dense)]),
        map=drawn,
    )
    return {"accuracy": round(accuracy, 4), "windows": count, "largest_difference": found}


def _rows(model, dense):
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            shapes = layer.kernel.shape, dense.get_layer(layer.name).kernel.shape
            yield [layer.name, *(" × ".join(map(str, shape)) for shape in shapes), layer.count_params()]
