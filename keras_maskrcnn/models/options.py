"""The numbers of a two-stage detector, grouped by stage. Frozen; defaults are those of Mask R-CNN with FPN."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of the groups: made from keywords or from the dict that `get_config` stored."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _as_tuple(getattr(self, field.name)))

    @classmethod
    def of(cls, value):
        """An instance from an instance, a dict of fields, or None for the defaults.

        Raises:
            ValueError: naming the fields that do not exist.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} must be a dict or {cls.__name__}")
        unknown = set(value) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}")
        return cls(**value)

    def asdict(self):
        """Fields as a dict, for `get_config`."""
        return dataclasses.asdict(self)


def _as_tuple(value):
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True)
class Anchors(Options):
    """Anchor boxes.

    Attributes:
        sizes: one tuple of side lengths (pixels of the input) a level; None takes 8 times the level's stride.
        ratios: aspect ratios, height over width.
        rounded: integer corner coordinates, as torchvision's weights expect.
        offset: shift of the centres, in strides.

    Raises:
        ValueError: if `sizes` is not one tuple a level, all of one length.
    """

    sizes: tuple | None = None
    ratios: tuple = (0.5, 1.0, 2.0)
    rounded: bool = False
    offset: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.sizes is None:
            return
        lengths = {len(level) if isinstance(level, tuple) else 0 for level in self.sizes}
        if 0 in lengths or len(lengths) != 1:
            raise ValueError(f"sizes={self.sizes} must hold one tuple a level, all of one length")

    def level_sizes(self, strides):
        """Side lengths for levels of the given strides."""
        return self.sizes or tuple((8 * stride,) for stride in strides)

    def per_location(self):
        """Number of anchors at a location."""
        return len(self.ratios) * (len(self.sizes[0]) if self.sizes else 1)


@dataclasses.dataclass(frozen=True)
class Proposals(Options):
    """Proposals that the RPN hands on.

    Attributes:
        pre_nms: best-scored boxes of each level that enter NMS.
        post_nms: proposals an image.
        nms_iou: overlap from which the lower-scored one of two boxes goes.
        min_size: smallest side in pixels.
    """

    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Sampling(Options):
    """Which candidates a loss is taken over.

    Attributes:
        size: candidates an image.
        positive_fraction: highest share of positives.
        high: lowest IoU of a positive.
        low: IoU below which a candidate is negative.
    """

    size: int = 256
    positive_fraction: float = 0.5
    high: float = 0.7
    low: float = 0.3


@dataclasses.dataclass(frozen=True)
class RegionSampling(Sampling):
    """Which regions train the second stage: more of them, fewer positives, no grey zone (Fast R-CNN, section 2.3)."""

    size: int = 512
    positive_fraction: float = 0.25
    high: float = 0.5
    low: float = 0.5


@dataclasses.dataclass(frozen=True)
class BoxStage(Options):
    """Second stage.

    Attributes:
        pool: bins a side of RoIAlign.
        width: units of the hidden layers.
        delta_weights: factors of the regression targets.
        beta: where smooth L1 turns from quadratic to linear.
    """

    pool: int = 7
    width: int = 1024
    delta_weights: tuple = (10.0, 10.0, 5.0, 5.0)
    beta: float = 1.0 / 9.0


@dataclasses.dataclass(frozen=True)
class MaskStage(Options):
    """Mask branch.

    Attributes:
        pool: bins a side of RoIAlign; masks have twice as many cells.
        width: channels of the convolutions.
        depth: number of 3×3 convolutions.
    """

    pool: int = 14
    width: int = 256
    depth: int = 4


@dataclasses.dataclass(frozen=True)
class Detection(Options):
    """What counts as a detection.

    Attributes:
        score_threshold: lowest score that leaves the network.
        nms_iou: overlap from which the lower-scored one of two boxes of a class goes.
        max_detections: detections an image.
        candidates: highest number of (region, class) pairs that enter NMS.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    candidates: int = 1000


@dataclasses.dataclass(frozen=True)
class Regions(Options):
    """How RoIAlign cuts regions out of the pyramid.

    Attributes:
        aligned: half-pixel correction (detectron2's later convention); False is torchvision's.
        sampling_ratio: bilinear samples a bin along each axis.
        canonical_size: side in pixels of a box that belongs to `canonical_level` (FPN paper, eq. 1).
        canonical_level: see there.
        implementation: "auto", "tf_image", "sparse" or "gather", see `layers.RoIAlign`.
    """

    aligned: bool = False
    sampling_ratio: int = 2
    canonical_size: int = 224
    canonical_level: int = 4
    implementation: str = "auto"
