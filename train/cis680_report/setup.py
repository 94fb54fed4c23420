"""What a run of the assignment works with: data, canvases, arguments."""

import argparse
import dataclasses
import functools

import keras

from keras_maskrcnn import backbones, data
from keras_maskrcnn.data.cache import Cached
from keras_maskrcnn.training import recipe

# Decoded pictures; the course's compressed files are slow to read in random order, and shapes to draw again and again.
KEPT_IN_MEMORY = 3000
CANVAS_A = (304, 400)  # the course's 300×400 pictures, as multiples of the five-convolution backbone's stride of 16
COURSE_FILE = "hw3_mycocodata_img_comp_zlib.h5"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the parts of the report need.

    Attributes:
        train: data set for training.
        test: data set that training never sees.
        source: a sentence on what they are.
        arguments: what the command line said.
    """

    train: data.Dataset
    test: data.Dataset
    source: str
    arguments: argparse.Namespace

    @property
    def class_names(self):
        """Names of the K classes."""
        return self.train.class_names

    @property
    def output(self):
        """Folder of the run."""
        return self.arguments.output

    @property
    def canvas_a(self):
        """(height, width) of part A's input."""
        return CANVAS_A

    @property
    def canvas_b(self):
        """(height, width) of part B's input."""
        return recipe.canvas(self.arguments)

    @property
    def policy(self):
        """Keras dtype policy of part B's layers."""
        return recipe.policy(self.arguments)

    @functools.cached_property
    def _kept_train(self):
        """The training set, decoded once where that fits into memory."""
        return Cached(self.train) if len(self.train) <= KEPT_IN_MEMORY else self.train

    def batches(self, canvas, batch_size, **options):
        """Endless shuffled training batches, half of the pictures mirrored; masks travel at 56×56."""
        options = {"augment": "flip", "shuffle": True, "max_instances": 16, **options}
        return data.batches(
            self._kept_train,
            canvas,
            batch_size,
            mask_size=56,
            repeat=True,
            seed=self.arguments.seed,
            workers=self.arguments.workers,
            **options,
        )


def make(arguments):
    """Reads the data that the arguments name.

    Raises:
        DataError: what is named cannot be read.
        ValueError: `--data` is missing.
    """
    keras.utils.set_random_seed(arguments.seed)
    _check(arguments)
    kind = arguments.dataset if arguments.dataset != "auto" else _guess(arguments.data)
    if kind != "shapes" and arguments.data is None:
        raise ValueError(f"--dataset {kind} needs --data FOLDER")
    train, test, source = {"shapes": _shapes, "cis680": _course, "coco": _coco}[kind](arguments)
    return Setup(train, test, source, arguments)


def _check(arguments):
    """Refuses now what part B would stumble over after an hour."""
    canvas = recipe.canvas(arguments)
    if len(arguments.image_size) > 2 or any(side % 32 for side in canvas):
        raise ValueError(f"--image-size {' '.join(map(str, arguments.image_size))} must be two multiples of 32")
    if arguments.backbone not in backbones.NAMES or arguments.backbone == "simple_cnn":
        raise ValueError(f"--backbone {arguments.backbone} is not one of {', '.join(backbones.NAMES[:-1])}")
    if arguments.photo is not None:
        data.read_image(arguments.photo)
    if arguments.data is not None and arguments.dataset == "shapes":
        raise ValueError("--dataset shapes draws its pictures: leave --data out")


def _guess(folder):
    if folder is None:
        return "shapes"
    return "coco" if (folder / "annotations").is_dir() and not (folder / COURSE_FILE).exists() else "cis680"


def _shapes(arguments):
    options = {"image_size": (300, 400), "scale_objects": True}
    train = data.Shapes(arguments.train_images, seed=arguments.seed + 1, **options)
    test = data.Shapes(arguments.test_images, seed=arguments.seed + 2, **options)
    return (
        train,
        test,
        (
            "Circles, squares and triangles drawn on the spot: pictures of 300 × 400 pixels, one to five shapes of 28 "
            f"to 141 pixels; {len(train):,} to train on, {len(test)} others to test on."
        ),
    )


def _course(arguments):
    train, test = (data.Cis680(arguments.data, split=split) for split in ("train", "test"))
    few = " Far too few to learn from: this run shows that the program learns, not what it can reach." * (
        len(train) < 500
    )
    return (
        train,
        test,
        (
            f"The course's files in {arguments.data.resolve().name}: {len(train)} pictures to train on, "
            f"{len(test)} to test on.{few}"
        ),
    )


def _coco(arguments):
    train, test = (
        data.Grouped(data.Coco.from_folder(arguments.data, split), data.VEHICLES_PEOPLE_ANIMALS)
        for split in (recipe.coco_split(arguments.data, "train"), recipe.coco_split(arguments.data, "val"))
    )
    return (
        train,
        test,
        (
            f"COCO pictures, categories grouped into vehicles, people and animals: {len(train)} to train on, "
            f"{len(test)} to test on."
        ),
    )
