"""The numbers of a two-stage detector, grouped by stage. Frozen; defaults are those of Mask R-CNN with FPN."""

import dataclasses

from keras_maskrcnn.ops.anchors import pyramid_anchors


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


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


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
        spacing: distance of the centres: "stride", that of the level; or "canvas", the canvas's side divided by the
            level's cells and rounded down, as torchvision has it. The two differ where a level's stride does not
            divide the canvas: 800 pixels make 13 cells of P6, which torchvision places 61 pixels apart.

    Raises:
        ValueError: if `sizes` is not one tuple a level, all of one length, or for another `spacing`.
    """

    sizes: tuple | None = None
    ratios: tuple = (0.5, 1.0, 2.0)
    rounded: bool = False
    offset: float = 0.0
    spacing: str = "stride"

    def __post_init__(self):
        super().__post_init__()
        _check_choice("spacing", self.spacing, ("stride", "canvas"))
        if self.sizes is None:
            return
        lengths = {len(level) if isinstance(level, tuple) else 0 for level in self.sizes}
        if 0 in lengths or len(lengths) != 1:
            raise ValueError(f"sizes={self.sizes} must hold one tuple a level, all of one length")

    def level_sizes(self, strides):
        """Side lengths for levels of the given strides."""
        return self.sizes or tuple((8 * stride,) for stride in strides)

    def boxes(self, image_size, strides):
        """Anchors of every level for a canvas (height, width): list of float32 `[A_l, 4]`, in pixels.

        Arrays where the sides are numbers, tensors where they are known at run time only.
        """
        sizes = self.level_sizes(strides)
        return pyramid_anchors(image_size, strides, sizes, self.ratios, self.rounded, self.offset, self.spacing)

    def per_location(self):
        """Number of anchors at a location."""
        return len(self.ratios) * (len(self.sizes[0]) if self.sizes else 1)


@dataclasses.dataclass(frozen=True)
class RPNStage(Options):
    """First stage.

    Attributes:
        channels: width of the 3×3 convolutions; None takes the pyramid's.
        depth: number of 3×3 convolutions.
        beta: where smooth L1 of the box loss turns from quadratic to linear; 0 is L1.
        norm: normalisation between each convolution and its ReLU, see `layers.norm.norm`.
    """

    channels: int | None = None
    depth: int = 1
    beta: float = 1.0 / 9.0
    norm: str | None = None


@dataclasses.dataclass(frozen=True)
class Proposals(Options):
    """Proposals that the RPN hands on.

    Attributes:
        pre_nms: best-scored boxes of each level that enter NMS.
        post_nms: proposals an image.
        nms_iou: overlap from which the lower-scored one of two boxes goes.
        min_size: smallest side in pixels.
        training_pre_nms: `pre_nms` while training; None takes the same number.
        training_post_nms: `post_nms` while training; None takes the same number.
    """

    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    min_size: float = 1e-3
    training_pre_nms: int | None = None
    training_post_nms: int | None = None

    def limits(self, training):
        """Arguments of `ops.proposals.select_proposals`."""
        return {
            "pre_nms": (training and self.training_pre_nms) or self.pre_nms,
            "post_nms": (training and self.training_post_nms) or self.post_nms,
            "nms_iou": self.nms_iou,
            "min_size": self.min_size,
        }


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
class AnchorSampling(Sampling):
    """Which anchors train the first stage; each object's best anchors are positive whatever their IoU.

    Attributes:
        cross_boundary: what becomes of anchors that reach beyond their image: "keep" (torchvision, detectron2), or
            "ignore", which leaves them out of both losses (Faster R-CNN, section 3.3).

    Raises:
        ValueError: for another `cross_boundary`.
    """

    cross_boundary: str = "keep"

    def __post_init__(self):
        super().__post_init__()
        _check_choice("cross_boundary", self.cross_boundary, ("keep", "ignore"))


@dataclasses.dataclass(frozen=True)
class RegionSampling(Sampling):
    """Which regions train the second stage: more of them, fewer positives, no grey zone (Fast R-CNN, section 2.3).

    Attributes:
        keep_best: whether each object's best regions are positive whatever their IoU, as anchors are in the RPN.
        add_truth: whether the objects' own boxes are among the candidates, so that there are positives from the first
            step on. They are the best for their object, so that `keep_best` changes nothing beside them.
    """

    size: int = 512
    positive_fraction: float = 0.25
    high: float = 0.5
    low: float = 0.5
    keep_best: bool = False
    add_truth: bool = True


@dataclasses.dataclass(frozen=True)
class BoxStage(Options):
    """Second stage.

    Attributes:
        pool: bins a side of RoIAlign.
        convs: number of 3×3 convolutions before the dense layers, as wide as the pyramid.
        norm: normalisation after each of them, see `layers.norm.norm`.
        hidden: number of dense layers.
        width: units of each.
        delta_weights: factors of the regression targets.
        beta: where smooth L1 turns from quadratic to linear; 0 is L1.
    """

    pool: int = 7
    convs: int = 0
    norm: str | None = None
    hidden: int = 2
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
        norm: normalisation after each of them, see `layers.norm.norm`.
        targets: "area", the share of each cell that the instance covers, from masks cropped to their boxes; or
            "roi_align", torchvision's bilinear samples of masks of the whole canvas
            (`data.batches(mask_size="canvas")`), for comparisons.

    Raises:
        ValueError: for other `targets`.
    """

    pool: int = 14
    width: int = 256
    depth: int = 4
    norm: str | None = None
    targets: str = "area"

    def __post_init__(self):
        super().__post_init__()
        _check_choice("targets", self.targets, ("area", "roi_align"))


@dataclasses.dataclass(frozen=True)
class Detection(Options):
    """What counts as a detection.

    Attributes:
        score_threshold: lowest score that leaves the network.
        nms_iou: overlap from which the lower-scored one of two boxes of a class goes.
        max_detections: detections an image.
        candidates: highest number of (region, class) pairs that enter NMS.
        min_size: smallest side of a box in pixels of the network's input.
        paste: how masks reach the picture: "continuous", sampled at the exact place of each pixel (detectron2), or
            "whole_pixels", enlarged to the box rounded outwards to whole pixels (torchvision).

    Raises:
        ValueError: for another `paste`.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    candidates: int = 1000
    min_size: float = 1e-2
    paste: str = "continuous"

    def __post_init__(self):
        super().__post_init__()
        _check_choice("paste", self.paste, ("continuous", "whole_pixels"))

    def limits(self):
        """Arguments of `ops.proposals.select_detections`."""
        return {name: value for name, value in self.asdict().items() if name != "paste"}


@dataclasses.dataclass(frozen=True)
class Resize(Options):
    """How `detect` and the SavedModel bring pictures to the network's scale.

    A model with an `image_size` fits every picture into that canvas. A model without one follows the rule of the
    papers: the shorter side becomes `shorter` pixels, unless the longer one would exceed `longer` (FPN paper,
    section 5), and the canvas is the next multiple of the backbone's stride and of `multiple`.

    Attributes:
        shorter: pixels of the shorter side.
        longer: most pixels of the longer side.
        rounding: of the other side: "nearest" (detectron2) or "down" (torchvision).
        antialias: whether pictures are smoothed when they shrink (Pillow, detectron2) or not (torchvision).
        multiple: pixels of which the canvas's sides are multiples, beside the backbone's stride; None asks for no more.
            XLA and JAX compile the network once for each canvas: 256 leaves them a dozen.

    Raises:
        ValueError: for another `rounding`, if `longer` is less than `shorter`, or a `multiple` that is no whole number.
    """

    shorter: int = 800
    longer: int = 1333
    rounding: str = "nearest"
    antialias: bool = True
    multiple: int | None = None

    def __post_init__(self):
        super().__post_init__()
        _check_choice("rounding", self.rounding, ("nearest", "down"))
        if self.longer < self.shorter:
            raise ValueError(f"longer={self.longer} is less than shorter={self.shorter}")
        if self.multiple is not None and (not isinstance(self.multiple, int) or self.multiple < 1):
            raise ValueError(f"multiple={self.multiple!r} must be a whole number of pixels, or None")


@dataclasses.dataclass(frozen=True)
class Regions(Options):
    """How RoIAlign cuts regions out of the pyramid.

    Attributes:
        aligned: half-pixel correction (detectron2's later convention); False is torchvision's.
        sampling_ratio: bilinear samples a bin along each axis.
        canonical_size: side in pixels of a box that belongs to `canonical_level` (FPN paper, eq. 1).
        canonical_level: see there.
        implementation: "auto", "tf_image", "sparse" or "gather", see `layers.RoIAlign`.
        positions: where the samples of a bin lie: "regular", or "random" while training.
        level: number of the one level that all regions are cut from, such as 4 for P4 (stride 16); None takes the
            level that fits a region's size.
    """

    aligned: bool = False
    sampling_ratio: int = 2
    canonical_size: float = 224
    canonical_level: int = 4
    implementation: str = "auto"
    positions: str = "regular"
    level: int | None = None

    def align(self):
        """Arguments of `layers.RoIAlign`."""
        return {name: value for name, value in self.asdict().items() if name != "level"}
