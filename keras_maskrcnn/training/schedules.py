"""Learning-rate schedules in pure `keras.ops`, with Python control flow on constants only, so that they compile."""

import math

import keras
from keras import ops

_registered = keras.saving.register_keras_serializable(package="keras_maskrcnn")


@_registered
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up of an inner schedule, which also counts from step 0.

    At step s the rate is `inner(s) * (start_factor + (1 - start_factor) * min(s / warmup_steps, 1))`. Without warm-up,
    detectors diverge, because at first thousands of anchors give similar gradients (Goyal et al. 2017, section 2.2).

    Args:
        inner: a float or a `LearningRateSchedule`.
        warmup_steps: number of warm-up steps; 0 for no warm-up.
        start_factor: factor of the inner rate at step 0.
    """

    def __init__(self, inner, warmup_steps, start_factor=0.001):
        super().__init__()
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
        self.inner = inner
        self.warmup_steps = warmup_steps
        self.start_factor = start_factor

    def __call__(self, step):
        """The rate at `step` (an integer, from 0): a float32 scalar."""
        rate = ops.cast(self.inner(step) if callable(self.inner) else self.inner, "float32")
        if not self.warmup_steps:
            return rate
        reached = ops.minimum(ops.cast(step, "float32") / self.warmup_steps, 1.0)
        return rate * (self.start_factor + (1.0 - self.start_factor) * reached)

    def get_config(self):
        """Constructor arguments, with the inner schedule serialised."""
        inner = keras.saving.serialize_keras_object(self.inner) if callable(self.inner) else self.inner
        return {"inner": inner, "warmup_steps": self.warmup_steps, "start_factor": self.start_factor}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        inner = config["inner"]
        if isinstance(inner, dict):
            inner = keras.saving.deserialize_keras_object(inner)
        return cls(**{**config, "inner": inner})


@_registered
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies the rate by `factor` at each boundary, the usual schedule of detectors.

    Args:
        base_lr: rate before the first boundary.
        boundaries: ascending steps; the rate changes at the boundary itself.
        factor: multiplier at each boundary.
    """

    def __init__(self, base_lr, boundaries, factor=0.1):
        super().__init__()
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"boundaries must be in ascending order, got {list(boundaries)}")
        self.base_lr = base_lr
        self.boundaries = list(boundaries)
        self.factor = factor

    def __call__(self, step):
        """The rate at `step` (an integer, from 0): a float32 scalar."""
        rate = ops.convert_to_tensor(self.base_lr, "float32")
        for boundary in self.boundaries:
            rate = rate * ops.where(ops.cast(step, "float32") >= boundary, self.factor, 1.0)
        return rate

    def get_config(self):
        """Constructor arguments."""
        return {"base_lr": self.base_lr, "boundaries": self.boundaries, "factor": self.factor}


@_registered
class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Constant rate, then cosine decay (Loshchilov and Hutter 2017, equation 5).

    Args:
        base_lr: initial rate.
        total_steps: step at which the decay ends; the rate is constant afterwards.
        hold_steps: steps before the decay begins.
        final_factor: final rate as a fraction of `base_lr`.
    """

    def __init__(self, base_lr, total_steps, hold_steps=0, final_factor=0.0):
        super().__init__()
        if not 0 <= hold_steps < total_steps:
            raise ValueError(f"hold_steps must be in 0…total_steps-1, got {hold_steps} of {total_steps}")
        self.base_lr = base_lr
        self.total_steps = total_steps
        self.hold_steps = hold_steps
        self.final_factor = final_factor

    def __call__(self, step):
        """The rate at `step` (an integer, from 0): a float32 scalar."""
        fallen = (ops.cast(step, "float32") - self.hold_steps) / (self.total_steps - self.hold_steps)
        return self.base_lr * _cosine(1.0, self.final_factor, fallen)

    def get_config(self):
        """Constructor arguments."""
        return {
            "base_lr": self.base_lr,
            "total_steps": self.total_steps,
            "hold_steps": self.hold_steps,
            "final_factor": self.final_factor,
        }


@_registered
class StepLR(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies the rate by `factor` after every `every` steps, as `torch.optim.lr_scheduler.StepLR`.

    At step s the rate is `base_lr * factor ** floor(s / every)`.

    Args:
        base_lr: rate of the first `every` steps.
        every: number of steps between two changes, above 0.
        factor: multiplier at each change.
    """

    def __init__(self, base_lr, every, factor=0.1):
        super().__init__()
        if not every > 0:
            raise ValueError(f"every must be positive, got {every}")
        self.base_lr = base_lr
        self.every = every
        self.factor = factor

    def __call__(self, step):
        """The rate at `step` (an integer, from 0): a float32 scalar."""
        changes = ops.floor(ops.cast(step, "float32") / self.every)
        return self.base_lr * ops.power(ops.convert_to_tensor(self.factor, "float32"), changes)

    def get_config(self):
        """Constructor arguments."""
        return {"base_lr": self.base_lr, "every": self.every, "factor": self.factor}


@_registered
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Up along half a cosine, then down along half a cosine, far below the start (Smith and Topin 2018, "1cycle").

    The defaults and the form are those of `torch.optim.lr_scheduler.OneCycleLR`, which counts to the last step that is
    made: its peak and its end lie one step earlier. Only the rate follows the cycle: the momentum stays constant, since
    Adam and SGD train detectors without its cycle.

    Args:
        base_lr: the highest rate.
        total_steps: step at which the rate has fallen; it is constant afterwards.
        rise_steps: step of the highest rate; 0 begins with it. None for 30 % of `total_steps`.
        start_factor: first rate as a fraction of `base_lr`.
        final_factor: final rate as a fraction of `base_lr`.
    """

    def __init__(self, base_lr, total_steps, rise_steps=None, start_factor=0.04, final_factor=4e-6):
        super().__init__()
        self._rise = 0.3 * total_steps if rise_steps is None else rise_steps
        if not 0 <= self._rise < total_steps:
            raise ValueError(f"rise_steps must be in 0…total_steps-1, got {self._rise} of {total_steps}")
        self.base_lr = base_lr
        self.total_steps = total_steps
        self.rise_steps = rise_steps
        self.start_factor = start_factor
        self.final_factor = final_factor

    def __call__(self, step):
        """The rate at `step` (an integer, from 0): a float32 scalar."""
        step = ops.cast(step, "float32")
        fallen = (step - self._rise) / (self.total_steps - self._rise)
        factor = _cosine(1.0, self.final_factor, fallen)
        if self._rise:
            factor = ops.where(fallen < 0, _cosine(self.start_factor, 1.0, step / self._rise), factor)
        return self.base_lr * factor

    def get_config(self):
        """Constructor arguments."""
        return {
            "base_lr": self.base_lr,
            "total_steps": self.total_steps,
            "rise_steps": self.rise_steps,
            "start_factor": self.start_factor,
            "final_factor": self.final_factor,
        }


def _cosine(first, last, share):
    """Half a cosine from `first` at the share 0 to `last` at 1, constant outside."""
    return last + (first - last) * 0.5 * (1.0 + ops.cos(math.pi * ops.clip(share, 0.0, 1.0)))


def warmup_steps(base_lr, boundaries, factor=0.1, warmup=500, start_factor=0.001):
    """Warm-up, then a constant rate multiplied by `factor` at each boundary: a `WarmUp` of `Steps`."""
    return WarmUp(Steps(base_lr, boundaries, factor), warmup, start_factor)


def warmup_cosine(base_lr, total_steps, warmup=500, hold_steps=0, final_factor=0.0, start_factor=0.001):
    """Warm-up, then a constant rate until `hold_steps`, then cosine decay: a `WarmUp` of `Cosine`."""
    return WarmUp(Cosine(base_lr, total_steps, hold_steps, final_factor), warmup, start_factor)


# Steps of 16 images in all, and those at which the rate is divided by 10. "paper" is Mask R-CNN's, section 3.1; the
# others are those of detectron2's model zoo (configs/Base-RCNN-FPN.yaml, and MAX_ITER and STEPS of the files for 3x).
LENGTHS = {
    "paper": (160_000, (120_000,)),
    "1x": (90_000, (60_000, 80_000)),
    "2x": (180_000, (120_000, 160_000)),
    "3x": (270_000, (210_000, 250_000)),
}


def paper_schedule(batch_size, length="1x", warmup=1000, learning_rate=None):
    """The schedules by which Mask R-CNN is trained on COCO, for another number of images per step.

    With 16 images per step the rate is 0.02. For other numbers it is proportional to them, and steps, boundaries and
    warm-up are inversely proportional, so that as many images are seen (Goyal et al. 2017, section 2.1). They belong to
    `training.SGD(schedule, momentum=0.9, weight_decay=1e-4)`.

    Args:
        batch_size: images per step, of all devices together.
        length: "paper" (160,000 steps of 16 images, a tenth of the rate from step 120,000), "1x" (90,000, from 60,000
            and 80,000), "2x" (180,000, from 120,000 and 160,000) or "3x" (270,000, from 210,000 and 250,000).
        warmup: steps of 16 images in which the rate rises linearly from a thousandth: detectron2's 1000; Detectron had
            500, and the paper does not mention a warm-up.
        learning_rate: the highest rate with `batch_size` images per step; None for 0.02 / 16 per image.

    Returns:
        (schedule, steps): a `WarmUp` of `Steps`, and the number of steps of the whole training.

    Raises:
        ValueError: for another `length`, or a `batch_size` below 1.
    """
    if length not in LENGTHS:
        raise ValueError(f"length={length!r} is not one of {', '.join(map(repr, LENGTHS))}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    steps, boundaries = LENGTHS[length]
    peak = 0.02 * batch_size / 16 if learning_rate is None else learning_rate

    def scaled(count):
        return round(count * 16 / batch_size)

    return warmup_steps(peak, [scaled(at) for at in boundaries], warmup=scaled(warmup)), scaled(steps)
