"""Ground truth among the inputs of a model, and the sampling of candidates that are trained with it."""

import dataclasses
import math
import typing

from keras import ops

from keras_maskrcnn.options import Options

# The fields of objects, with their dtypes. Every head of a model of objects may use them; a head names further ones in
# its `FIELDS`.
DTYPES = {"boxes": "float32", "labels": "int32", "crowd": "bool", "valid": "bool"}


def ground_truth(inputs, fields=tuple(DTYPES)):
    """Ground truth among a model's inputs.

    Args:
        inputs: dict of the model's inputs.
        fields: names of the fields that the model needs.

    Returns:
        dict of the given fields; those of objects are `boxes` float32 `[B, N, 4]`, 0 in padding, `labels` int32
        `[B, N]`, `crowd` and `valid` bool `[B, N]`. None if none of the fields is among the inputs.

    Raises:
        ValueError: naming the fields that are missing; for boxes without rows, or with another number of rows than in
            earlier batches.
    """
    missing = [name for name in fields if name not in inputs]
    if len(missing) == len(fields):
        return None
    if missing:
        raise ValueError(f"the batch has no {', '.join(missing)}, which this model is trained with")
    truth = {name: ops.cast(inputs[name], DTYPES[name]) if name in DTYPES else inputs[name] for name in fields}
    if "boxes" in truth:
        if not truth["boxes"].shape[1]:  # None where TensorFlow traces one graph for several numbers
            raise ValueError("boxes [B, N, 4] need the same N of at least 1 in all batches: pad them, with valid False")
        # Gradients of masked errors are 0 times a derivative, which is NaN where padding is not finite.
        truth["boxes"] = ops.where(truth["valid"][..., None], truth["boxes"], 0.0)
    return truth


def instances(truth):
    """Bool `[B, N]`: rows that hold a single object, neither padding nor a crowd region."""
    return ops.logical_and(truth["valid"], ops.logical_not(truth["crowd"]))


@dataclasses.dataclass(frozen=True)
class Sampling(Options):
    """Candidates over which a loss is computed.

    Attributes:
        size: candidates per image.
        positive_fraction: maximum share of positives.
        high: minimum IoU of a positive.
        low: IoU below which a candidate is negative.
        crowd_cover: share of its own area inside the box of a crowd region from which a negative is ignored: the
            overlap of COCO's evaluation, at its lowest threshold. None makes it background, as in torchvision and
            detectron2, whose data loaders leave crowds out.

    Raises:
        ValueError: for a value outside its range, or `low` above `high`.
    """

    RANGES: typing.ClassVar = {
        "size": (1, math.inf),
        "positive_fraction": (0, 1),
        "high": (0, 1),
        "low": (0, 1),
        "crowd_cover": (0, 1),
    }

    size: int = 256
    positive_fraction: float = 0.5
    high: float = 0.7
    low: float = 0.3
    crowd_cover: float | None = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.low > self.high:
            raise ValueError(f"low={self.low!r} must not be above high={self.high!r}")

    def matching(self):
        """Thresholds as arguments of `ops.matching.match`."""
        return {"high": self.high, "low": self.low, "crowd_cover": self.crowd_cover}
