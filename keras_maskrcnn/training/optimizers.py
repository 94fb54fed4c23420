"""The optimizer and the learning rate that the arguments of a recipe choose."""

from keras_maskrcnn.training.adamw import AdamW
from keras_maskrcnn.training.arguments import value
from keras_maskrcnn.training.distribution import scaled_rate
from keras_maskrcnn.training.rates import layer_rates
from keras_maskrcnn.training.schedules import OneCycle, StepLR, WarmUp, warmup_cosine, warmup_steps
from keras_maskrcnn.training.sgd import SGD


def schedule(arguments):
    """The learning rate as a function of the step, or with `--minutes` of the share of the training time.

    All but "one_cycle", which rises by itself, begin with a linear warm-up: of 5 % of the minutes, or of a tenth of the
    steps, but at most 200.

    Returns:
        `LearningRateSchedule` by `--lr-schedule`.

    Raises:
        ValueError: for a schedule that does not exist.
    """
    peak, name = scaled_rate(arguments), value(arguments, "lr_schedule")
    if arguments.minutes:
        total, warmup, hold = 1.0, 0.05, arguments.hold
    else:
        total = arguments.steps
        warmup, hold = min(200, total // 10), int(arguments.hold * total)
    if name == "hold_cosine":
        return warmup_cosine(peak, total, warmup, hold, final_factor=0.01)
    if name == "constant":
        return WarmUp(peak, warmup)
    if name == "step":
        return WarmUp(StepLR(peak, total / 3), warmup)
    if name == "multi_step":  # of detectron2's 90,000 steps the boundaries 60,000 and 80,000
        return warmup_steps(peak, [total * 2 / 3, total * 8 / 9], warmup=warmup)
    if name == "one_cycle":
        return OneCycle(peak, total, hold)
    raise ValueError(f"--lr-schedule {name} does not exist")


def learning_rate(arguments):
    """What the optimizer of a recipe takes: the schedule, or a number that others set: `--minutes` and `--find-lr`."""
    found = schedule(arguments)
    return float(found(0.0)) if arguments.minutes or value(arguments, "find_lr") else found


def optimizer(arguments, model=None, rate=None):
    """The optimizer by `--optimizer`, for `compile`.

    - adamw: weight decay 0.05, none of biases and norms, gradients clipped at a norm of 5; for training from scratch.
    - adam: the same without decay.
    - sgd: momentum 0.9 and the coupled weight decay 1e-4 of the papers, see `training.SGD`.

    Args:
        arguments: parsed arguments.
        model: the model, of which `--backbone-rate` needs the backbone.
        rate: learning rate or schedule; None for `learning_rate(arguments)`.

    Raises:
        ValueError: for an optimizer that does not exist.
    """
    name, factor = value(arguments, "optimizer"), value(arguments, "backbone_rate")
    rate = learning_rate(arguments) if rate is None else rate
    rates = None if factor == 1 else layer_rates(model, {"backbone": factor})
    if name == "sgd":
        return SGD(rate, momentum=0.9, weight_decay=1e-4, layer_rates=rates)
    if name not in ("adamw", "adam"):
        raise ValueError(f"--optimizer {name} does not exist")
    result = AdamW(rate, weight_decay=0.05 if name == "adamw" else 0.0, global_clipnorm=5.0, layer_rates=rates)
    result.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return result
