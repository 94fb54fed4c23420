"""Data, canvases and arguments of a run."""

import argparse
import dataclasses

import keras

from keras_maskrcnn import backbones, data
from keras_maskrcnn.data.cache import Cached
from keras_maskrcnn.training import recipe

# Maximum number of images kept decoded in memory: reading the course's compressed files in random order is slow.
KEPT_IN_MEMORY = 3000
COURSE_FILE = "hw3_mycocodata_img_comp_zlib.h5"


@dataclasses.dataclass(frozen=True)
class Setup:
    """Data sets of a run, a description of them, and the arguments of the command line."""

    train: data.Dataset
    test: data.Dataset
    source: str
    arguments: argparse.Namespace

    # (height, width) of part A's input: 300 × 400 pixels rounded up to multiples of the backbone's stride of 16.
    canvas_a = (304, 400)

    @property
    def class_names(self):
        """Names of the K classes."""
        return self.train.class_names

    @property
    def canvas_b(self):
        """(height, width) of part B's input."""
        return recipe.canvas(self.arguments)

    def batches(self, canvas):
        """Endless shuffled training batches, half of the images mirrored, masks of 56×56 cells."""
        arguments = argparse.Namespace(**{**vars(self.arguments), "image_size": canvas})
        return recipe.batches(arguments, self.train, augment="flip", shuffle=True, max_instances=16)

    def optimizer(self, steps):
        """The optimizer of the recipes, with a schedule of this many steps."""
        rate = self.arguments.learning_rate
        return recipe.optimizer(argparse.Namespace(learning_rate=rate, steps=steps, minutes=None, hold=0.3))


def make(arguments):
    """Opens the data sets that the arguments name; raises DataError or ValueError for invalid ones."""
    keras.utils.set_random_seed(arguments.seed)
    _check(arguments)
    kind = arguments.dataset if arguments.dataset != "auto" else _guess(arguments.data)
    if kind != "shapes" and arguments.data is None:
        raise ValueError(f"--dataset {kind} needs --data FOLDER")
    train, test, source = {"shapes": _shapes, "cis680": _course, "coco": _coco}[kind](arguments)
    source = f"{source} {len(train):,} for training, {len(test):,} for testing."
    return Setup(Cached(train) if len(train) <= KEPT_IN_MEMORY else train, test, source, arguments)


def _check(arguments):
    """Rejects before training what part B cannot use."""
    if len(arguments.image_size) > 2 or any(side % 32 for side in arguments.image_size):
        raise ValueError(f"--image-size {' '.join(map(str, arguments.image_size))} must be two multiples of 32")
    if arguments.backbone not in backbones.NAMES or arguments.backbone == "simple_cnn":
        raise ValueError(f"--backbone {arguments.backbone} is not one of {', '.join(backbones.NAMES[:-1])}")
    if arguments.photo is not None:
        data.read_image(arguments.photo)
    if arguments.data is not None and arguments.dataset == "shapes":
        raise ValueError("--dataset shapes draws its images: leave --data out")


def _guess(folder):
    if folder is None:
        return "shapes"
    return "coco" if (folder / "annotations").is_dir() and not (folder / COURSE_FILE).exists() else "cis680"


def _shapes(arguments):
    counts = (arguments.train_images, arguments.test_images)
    options = {"image_size": (300, 400), "scale_objects": True}
    sets = [data.Shapes(count, seed=arguments.seed + 1 + i, **options) for i, count in enumerate(counts)]
    return *sets, "Generated circles, squares and triangles of 28 to 141 pixels, one to five per 300 × 400 image:"


def _course(arguments):
    train, test = (data.Cis680(arguments.data, split=split) for split in ("train", "test"))
    few = "(too few to generalise; this run only shows that training works) " * (len(train) < 500)
    return train, test, f"The course's files in {arguments.data.resolve().name} {few}with these numbers of images:"


def _coco(arguments):
    splits = (recipe.coco_split(arguments.data, part) for part in ("train", "val"))
    sets = [data.Grouped(data.Coco.from_folder(arguments.data, s), data.VEHICLES_PEOPLE_ANIMALS) for s in splits]
    return *sets, "COCO images, categories grouped into vehicles, people and animals:"
