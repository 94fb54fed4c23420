"""`--overfit N`: whether a model can memorise N training images, and what to look at if it cannot."""

import itertools

import numpy as np
from PIL import Image

from keras_maskrcnn import data, history, visualize
from keras_maskrcnn.data.cache import read_or_skip, skip
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sample import Wrapper
from keras_maskrcnn.models.freezing import frozen_names

MEMORISED = 0.8  # score on its own training images from which a model has memorised them
FALLEN = 0.5  # share of the first epoch's loss below which the loss has fallen
FOUND = 0.8  # share of the objects that the proposals of a sound first stage cover
FEW_STEPS = 100
SCORES = ("segm_AP", "bbox_AP", "mean_IoU")  # the first that a model has is judged
SHOWN = 16  # images of the picture


class Windows(Wrapper):
    """One window of each image, as an image of its own: of some random windows the one with the most objects.

    Args:
        dataset: a `Dataset`.
        size: (height, width) in pixels; smaller images are padded with zeros.
    """

    TRIED = 8
    labels_known = False

    def __init__(self, dataset, size):
        super().__init__(dataset)
        self._cut = data.Augment(crop=tuple(size))

    def __len__(self):
        return len(self.dataset)

    def read(self, position):
        """Returns the window of the image at a position, always the same one."""
        sample = self.dataset[position]
        windows = (self._cut(sample, np.random.default_rng(seed)) for seed in range(self.TRIED))
        return max(windows, key=lambda window: len(window["labels"]))


def images(dataset, count, model, canvas):
    """The first training images with objects, as a model is trained on them and scored.

    These are whole images, for a model that fits all images into one canvas. A model that resizes all images by one
    factor (`resize.scale`) has images of any size: of each a window is cut that fills the canvas of the training.

    Args:
        dataset: training set.
        count: number of images.
        model: an instance segmentation model.
        canvas: (height, width) of the training.

    Raises:
        ValueError: in one line, if the data set has fewer images with objects.
    """
    positions = list(itertools.islice(_with_objects(dataset), count))
    if len(positions) < count:
        raise ValueError(f"--overfit {count}: the training set has {len(positions)} images with objects")
    found = data.Subset(dataset, positions)
    if model.image_size or not model.resize.scale:
        return found
    return Windows(found, [max(round(side / model.resize.scale), 1) for side in canvas])


def _with_objects(dataset):
    """Yields the positions of images with objects, or of all if each image has a map of its classes."""
    mapped = any(field.per_image for field in dataset.fields)
    for position in range(len(dataset)):
        try:
            if mapped or len(dataset.labels_at(position)):
                yield position
        except DataError as error:
            skip(dataset, error)


def batches(chosen, model, like, arguments):
    """Endless batches of `images` without augmentation, with room for all objects, else as the batches `like`."""
    rows = like.rows.prepare
    most = max(len(chosen.labels_at(position)) for position in range(len(chosen)))
    return data.batches(
        data.Stretched(chosen, model.stretch) if model.stretch else chosen,
        model.image_size or rows.image_size,
        arguments.batch_size,
        max_instances=max(rows.max_instances, most),
        mask_size=rows.mask_size,
        shuffle=True,
        repeat=True,
        cache=True,
        seed=arguments.seed,
        workers=arguments.workers,
    )


def finish(model, chosen, figures, output, steps):
    """Draws the images with their detections into `OUTPUT/overfit.png`, and prints the verdict.

    Args:
        model: the trained model.
        chosen: result of `images`.
        figures: dict of its scores on them.
        output: folder of the run, which has the history of the training.
        steps: number of training steps.

    Returns:
        dict for the summary: `images` (their number), the verdict of `judged`, and `picture`.
    """
    picture = output / "overfit.png"
    Image.fromarray(_drawn(model, chosen)).save(picture)
    verdict, lines = judged(figures, history.read(output / "history.csv"), frozen_names(model), steps)
    print("\n" + "\n".join(lines) + f"\n(ground truth next to detections: {picture})")
    return {"images": len(chosen), **verdict, "picture": str(picture)}


def _drawn(model, chosen):
    """Ground truth next to detections of up to `SHOWN` images: uint8 [h, w, 3]."""
    samples = [read_or_skip(chosen, position) for position in range(min(len(chosen), SHOWN))]
    samples = [sample for sample in samples if sample is not None]
    found = model.detect([sample["image"] for sample in samples])
    pairs = zip(samples, found, strict=True)
    return visualize.grid([visualize.side_by_side(one["image"], one, own, chosen.class_names) for one, own in pairs])


def judged(figures, history, frozen, steps):
    """Whether a model has memorised its images, and why it may not have.

    Args:
        figures: dict of the scores on these images.
        history: dict of lists, the values of each epoch.
        frozen: names of frozen layers.
        steps: number of training steps.

    Returns:
        (verdict, lines): dict of `memorised`, `score` (its name), `figure`, `first_loss` and `last_loss`; and the same
        in words, a list of str.
    """
    name = next(name for name in SCORES if name in figures)
    figure, first, last = figures[name], history["loss"][0], history["loss"][-1]
    memorised = figure >= MEMORISED
    verdict = {"memorised": bool(memorised), "score": name, "figure": figure, "first_loss": first, "last_loss": last}
    score = f"{name.replace('_', ' ')} {figure:.3f} on them ({MEMORISED} or more counts as memorised)"
    loss = f"the loss was {first:.3g} in the first epoch and {last:.3g} in the last of {steps} steps"
    if memorised:
        end = "Labels, losses and detection fit together: other images need more data, augmentation or time."
        return verdict, [f"The model has memorised its training images: {score}, {loss}.", end]
    reasons = _reasons(figures, history, frozen, steps)
    numbered = [f"  {number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return verdict, [f"The model has NOT memorised its training images: {score}, {loss}.", "Look at first:", *numbered]


def _reasons(figures, history, frozen, steps):
    """What to look at, the most likely first; the last is always to be checked."""
    skipped, recall = sum(history.get("skipped_steps", [0])), history.get("proposal_recall", [1.0])[-1]
    if skipped:
        yield f"{skipped:.0f} steps were skipped, since loss or gradient was not finite: lower --learning-rate"
    if steps < FEW_STEPS:
        yield f"{steps} steps are few: give more with --steps or --minutes"
    if not history["loss"][-1] < FALLEN * history["loss"][0]:
        yield f"the loss has not fallen below {FALLEN:g} of its first value: --find-lr proposes a --learning-rate"
    if recall < FOUND:
        yield f"the proposals cover {recall:.0%} of the objects: anchors of their sizes, see `training.propose_anchors`"
    if frozen:
        more = f" and {len(frozen) - 3} more layers" if len(frozen) > 3 else ""
        yield f"frozen: {', '.join(frozen[:3])}{more}; train all layers"
    if figures.get("segm_AP", MEMORISED) < MEMORISED <= figures["bbox_AP"]:
        yield "boxes are right and masks are not: look at the masks of the ground truth in the picture"
    yield "the labels: the picture shows the ground truth, `python -m keras_maskrcnn inspect DATA` checks all of it"
