"""Ground truth among the inputs of a model, and the sampling of candidates that are trained with it."""

import dataclasses

from keras import ops

from keras_maskrcnn.options import Options

# The fields that every head may use, with their dtypes; a head names further ones in its `FIELDS`.
DTYPES = {"boxes": "float32", "labels": "int32", "crowd": "bool", "valid": "bool"}


def ground_truth(inputs, fields=()):
    """Ground truth among a model's inputs.

    Args:
        inputs: dict of the model's inputs.
        fields: names of the fields that the heads need besides boxes, labels, crowd and valid.

    Returns:
        dict of `boxes` float32 `[B, N, 4]`, 0 in padding, `labels` int32 `[B, N]`, `crowd` and `valid` bool `[B, N]`,
        and the given fields `[B, N, ...]`; or None if there are no boxes among the inputs.

    Raises:
        ValueError: naming the fields that are missing.
    """
    if "boxes" not in inputs:
        return None
    missing = [name for name in (*DTYPES, *fields) if name not in inputs]
    if missing:
        raise ValueError(f"the batch has no {', '.join(missing)}, which this model is trained with")
    truth = {name: ops.cast(inputs[name], dtype) for name, dtype in DTYPES.items()}
    # Gradients of masked errors are 0 times a derivative, which is NaN where padding is not finite.
    truth["boxes"] = ops.where(truth["valid"][..., None], truth["boxes"], 0.0)
    return {**truth, **{name: inputs[name] for name in fields}}


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
    """

    size: int = 256
    positive_fraction: float = 0.5
    high: float = 0.7
    low: float = 0.3
    crowd_cover: float | None = 0.5

    def matching(self):
        """Thresholds as arguments of `ops.matching.match`."""
        return {"high": self.high, "low": self.low, "crowd_cover": self.crowd_cover}
