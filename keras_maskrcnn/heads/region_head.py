"""Base of the heads that work on regions of interest (RoIs), and the contract of the heads that a user may add."""

import dataclasses
import inspect
import math
import typing

from keras import ops

from keras_maskrcnn.backend.rows import active_rows, restore_rows
from keras_maskrcnn.heads.head import Head
from keras_maskrcnn.layers.roi_align import REDUCTIONS, RoIAlign, RoIWarp
from keras_maskrcnn.layers.roi_pool import RoIPool
from keras_maskrcnn.options import Options, check_choice


@dataclasses.dataclass(frozen=True)
class Regions(Options):
    """How regions are pooled from the feature pyramid.

    Attributes:
        aligned: half-pixel correction (detectron2's later convention); False is torchvision's.
        sampling_ratio: bilinear samples per bin along each axis: 1 for one sample, 2 for four.
        canonical_size: side in pixels of a box that belongs to `canonical_level` (FPN paper, eq. 1).
        canonical_level: see `canonical_size`.
        implementation: "auto", or the name of a lowering of the layer: "tf_image", "sparse" or "gather" of
            `layers.RoIAlign` and `layers.RoIWarp`, "sorted" or "gather" of `layers.RoIPool`.
        positions: positions of the samples of a bin: "regular", or "random" in training.
        level: number of the one level that all regions are sampled from, such as 4 for P4 (stride 16); None takes the
            level that fits a region's size.
        pooling: "align" (RoIAlign: no rounding), "warp" (RoIWarp: rounded box, bilinear samples) or "pool" (RoIPool:
            rounded box and bins, maximum over pixels). RoIPool has no samples: `aligned`, `sampling_ratio`, `positions`
            and `reduce` do not apply to it.
        reduce: "average" or "max" over the samples of a bin.

    Raises:
        ValueError: in one line, for unknown names, and for an option that does not apply to the pooling.
    """

    RANGES: typing.ClassVar = {
        "sampling_ratio": (1, math.inf),
        "canonical_size": (1, math.inf),
        "canonical_level": (0, math.inf),
        "level": (0, math.inf),
    }

    aligned: bool = False
    sampling_ratio: int = 2
    canonical_size: float = 224
    canonical_level: int = 4
    implementation: str = "auto"
    positions: str = "regular"
    level: int | None = None
    pooling: str = "align"
    reduce: str = "average"

    def __post_init__(self):
        super().__post_init__()
        check_choice("regions pooling", self.pooling, ("align", "warp", "pool"))
        check_choice("regions reduce", self.reduce, REDUCTIONS)
        for name in ("aligned", "sampling_ratio", "positions") if self.pooling == "pool" else ():
            if getattr(self, name) != getattr(Regions, name):
                raise ValueError(f"regions {name}={getattr(self, name)!r} does not apply to pooling='pool'")

    def layer(self, bins, strides, seed=None):
        """The layer that pools regions, named "align": `layers.RoIAlign`, `layers.RoIWarp` or `layers.RoIPool`.

        Args:
            bins: bins per side.
            strides: strides of the levels.
            seed: seed of random sample positions.
        """
        options = {name: getattr(self, name) for name in ("implementation", "canonical_size", "canonical_level")}
        if self.pooling == "pool":
            return RoIPool(bins, strides, name="align", **options)
        options.update((name, getattr(self, name)) for name in ("aligned", "sampling_ratio", "positions", "reduce"))
        kind = {"align": RoIAlign, "warp": RoIWarp}[self.pooling]
        return kind(bins, strides, name="align", seed=seed, **options)


class Rows(typing.NamedTuple):
    """Regions of all images in one list, for a head that computes some of them only.

    Attributes:
        boxes: float32 `[R, 4]` in pixels of the input.
        labels: int32 `[R]`, 1…K; 0 where not valid.
        valid: bool `[R]`; False in rows that fill up the list.
        image: int32 `[R]`, row of the batch.
        instance: int32 `[R]`, matched instance among the ground truth of all images, `[B · N]`; None at inference.
    """

    boxes: typing.Any
    labels: typing.Any
    valid: typing.Any
    image: typing.Any
    instance: typing.Any = None

    def matched(self, field):
        """Rows of a ground-truth field `[B, N, ...]` that belong to the regions: `[R, ...]`."""
        return ops.take(flat(field), self.instance, axis=0)


class RegionHead(Head):
    """A head whose input is crops of the pyramid, by RoIAlign or the pooling of `Regions`.

    A subclass declares what `Declarations` lists, and

    Attributes:
        pool: bins per side of a crop, a class or an instance attribute.
    """

    pool = 7
    trunk = None

    def place(self, strides, channels, regions, seed, trunk):
        """Create the layer that pools regions, see `Head`; behind a trunk, `pool` is the side of the trunk's result."""
        self.trunk = trunk
        bins, channels = (self.pool * trunk.stride, trunk.channels) if trunk else (self.pool, channels)
        self.align = Regions.of(regions).layer(bins, strides, seed)
        return (None, self.pool, self.pool, channels)

    def crops(self, levels, boxes, training=False, valid=None):
        """Crops `[B, R, P, P, C]` of boxes `[B, R, 4]`, after the trunk if there is one.

        Batch statistics of the trunk are computed from the boxes that are `valid`, bool `[B, R]`; None for all.
        """
        crops = self.align(levels, boxes, training=training)
        if self.trunk is None:
            return crops
        passed = self.trunk(flat(crops), training, None if valid is None else flat(valid))
        return ops.reshape(passed, (-1, crops.shape[1] or ops.shape(crops)[1], *passed.shape[1:]))

    def row_crops(self, levels, boxes, image, training=False, valid=None):
        """As `crops`, for boxes `[R, 4]` of the images with the indices int32 `[R]`: `[R, P, P, C]`."""
        crops = self.align.align_rows(levels, boxes, image, training=training)
        return crops if self.trunk is None else self.trunk(crops, training, valid)


class ObjectHead(RegionHead):
    """A head that computes something per object: on positive regions in training, on detections at inference.

    A subclass implements, besides `build(input_shape)` for crops `(None, P, P, C)`:
        call(crops, labels, training, valid): crops `[R, P, P, C]` and labels int32 `[R]` to predictions. `valid`, bool
            `[R]`, is optional: a head with batch normalisation takes it, so that rows that fill up the list do not
            enter the batch statistics (`layers.conv_stack.ConvStack` takes it too). It is passed in training.
        row_losses(predictions, rows, truth): predictions, `Rows` with `instance` and the ground truth `[B, N, ...]` to
            a dict of scalars by the names in `LOSSES`.
        row_outputs(predictions, rows): predictions and `Rows` to a dict of tensors `[R, ...]` by the names in
            `OUTPUTS`, in pixels of the input.
    """

    def losses(self, levels, regions, truth, training=False):
        """Losses over the slots that may hold positive regions.

        Args:
            levels: list of `[B, H, W, C]`, the levels that regions are sampled from.
            regions: `sampled_regions.SampledRegions`.
            truth: dict of ground truth.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            dict of scalars.
        """
        slots = regions.positive_slots
        index = active_rows(flat(regions.positive[:, :slots]))
        boxes, labels, positive, matched = (
            ops.take(flat(values[:, :slots]), index, axis=0)
            for values in (regions.boxes, regions.label, regions.positive, regions.matched)
        )
        image = index // slots
        rows = Rows(boxes, labels, positive, image, image * truth["boxes"].shape[1] + matched)
        if self.trunk is not None and regions.crops is not None and regions.crops.shape[2] == self.pool:
            crops = ops.take(flat(regions.crops[:, :slots]), index, axis=0)  # the box head's pass of the trunk
        else:
            crops = self.row_crops(levels, boxes, image, training, positive)
        given = {"valid": positive} if "valid" in inspect.signature(self.call).parameters else {}
        return self.row_losses(self(crops, labels, training=training, **given), rows, truth)

    def predict(self, levels, found):
        """Outputs of detections, zeros in empty slots.

        Args:
            levels: as for `losses`.
            found: dict of `boxes` `[B, D, 4]`, `labels` and `valid` `[B, D]`.

        Returns:
            dict of tensors `[B, D, ...]` by the names in `OUTPUTS`.
        """
        boxes, labels, valid = (flat(found[name]) for name in ("boxes", "labels", "valid"))
        count = found["boxes"].shape[1] or ops.shape(found["boxes"])[1]
        index = active_rows(valid)
        rows = Rows(*(ops.take(values, index, axis=0) for values in (boxes, labels, valid)), index // count)
        crops = self.row_crops(levels, rows.boxes, rows.image)
        outputs = self.row_outputs(self(crops, rows.labels), rows)

        def restored(values):
            mask = ops.reshape(rows.valid, (-1, *([1] * (len(values.shape) - 1))))
            values = restore_rows(ops.where(mask, values, 0), index, ops.shape(valid)[0])
            return ops.reshape(values, (-1, count, *values.shape[1:]))

        return {name: restored(values) for name, values in outputs.items()}


def flat(values):
    """Rows of all images in one list: `[B, R, ...]` to `[B * R, ...]`."""
    return ops.reshape(values, (-1, *values.shape[2:]))
