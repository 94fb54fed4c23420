"""Data, canvases and arguments of a run."""

import argparse
import dataclasses
import time
import typing

import keras

from keras_maskrcnn import backbones, data
from keras_maskrcnn.data.cache import Cached
from keras_maskrcnn.training import recipe
from keras_maskrcnn.training.clock import TimeBudget, until_over

# Maximum number of images kept decoded in memory: reading the course's compressed files in random order is slow.
KEPT_IN_MEMORY = 3000
COURSE_FILE = "hw3_mycocodata_img_comp_zlib.h5"


@dataclasses.dataclass(frozen=True)
class Setup:
    """Data sets of a run, a description of them, the arguments of the command line, and a clock, in seconds."""

    train: data.Dataset
    test: data.Dataset
    source: str
    arguments: argparse.Namespace
    now: typing.Callable = time.perf_counter

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

    def length(self, steps):
        """Length of a training: its steps or, with `--minutes`, its part of them by its share of all steps."""
        given = self.arguments
        if given.minutes is None:
            return steps
        parts = {"part-a": given.steps_a}
        parts["part-b"] = given.steps_b + given.alternating_steps + 3 * given.transfer_steps
        return given.minutes * steps / parts.get(given.part, sum(parts.values()))

    def optimizer(self, length):
        """The optimizer of the recipes, with a schedule of this length."""
        return recipe.optimizer(self._plan(length))

    @property
    def clock(self):
        """With `--minutes` a function from a length to a `TimeBudget`, else None."""
        if self.arguments.minutes is None:
            return None
        return lambda length: TimeBudget(
            length, recipe.schedule(self._plan(length)), self.arguments.batch_size, self.now
        )

    def _plan(self, length):
        """The arguments of a recipe that determine a schedule of this length."""
        steps, minutes = (length, None) if self.arguments.minutes is None else (None, length)
        return argparse.Namespace(learning_rate=self.arguments.learning_rate, steps=steps, minutes=minutes, hold=0.3)

    def fit(self, model, steps, epochs, canvas, loss_weights, **options):
        """Compiles and trains for at most that many epochs; returns {"phase", "steps", "seconds", "history"}."""
        epochs = min(epochs, steps)
        length = self.length(steps - steps % epochs)
        model.compile(self.optimizer(length), loss_weights=loss_weights)
        batches, start = self.batches(canvas), time.perf_counter()
        if self.clock:
            options |= until_over(self.clock(length), batches)
        else:
            options |= {"x": batches, "steps_per_epoch": length // epochs}
        history = model.fit(epochs=epochs, verbose=2, **options).history
        seconds, steps = time.perf_counter() - start, int(model.optimizer.iterations)
        return {"phase": "all together", "steps": steps, "seconds": seconds, "history": history}


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
    sets = [data.Grouped(part, data.VEHICLES_PEOPLE_ANIMALS) for part in data.splits(arguments.data)]
    return *sets, "COCO images, categories grouped into vehicles, people and animals:"
