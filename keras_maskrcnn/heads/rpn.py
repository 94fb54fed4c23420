"""Region proposal network: from the pyramid to proposals (Faster R-CNN, section 3.1)."""

import dataclasses
import math
import typing

import keras
from keras import ops

from keras_maskrcnn.backend import replicas
from keras_maskrcnn.heads.anchors import Anchors, AnchorSampling, assign_anchors
from keras_maskrcnn.heads.outputs import Declarations
from keras_maskrcnn.heads.proposals import Proposals, Proposed, proposal_recall, select_proposals
from keras_maskrcnn.layers.folding import conv_norm, convolved
from keras_maskrcnn.layers.norm import norm as make_norm
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.ops.gather import take_rows
from keras_maskrcnn.ops.losses import binary_cross_entropy, smooth_l1
from keras_maskrcnn.ops.matching import POSITIVE
from keras_maskrcnn.ops.sampling import sample
from keras_maskrcnn.options import Options
from keras_maskrcnn.weights import rows as published

# Options ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RPNStage(Options):
    """Layers and box loss of the RPN.

    Attributes:
        channels: width of the 3×3 convolutions; None takes the pyramid's.
        depth: number of 3×3 convolutions.
        beta: error at which smooth L1 of the box loss changes from quadratic to linear; 0 is L1.
        norm: normalisation between each convolution and its ReLU, see `layers.norm.norm`; None gives them a bias.
    """

    RANGES: typing.ClassVar = {"channels": (1, math.inf), "depth": (0, math.inf), "beta": (0, math.inf)}

    channels: int | None = None
    depth: int = 1
    beta: float = 1.0 / 9.0
    norm: str | None = None


# Layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class RPNHead(Declarations, keras.layers.Layer):
    """Objectness and box deltas for every anchor, with weights shared by all levels; proposals; two losses.

    Args:
        strides: strides of the levels, finest first.
        stage: `RPNStage`, or a dict of its fields, as all groups below.
        anchors: `Anchors`.
        proposals: `Proposals`.
        sampling: `AnchorSampling`.

    Raises:
        ValueError: if `anchors` has sizes for another number of levels.
    """

    LOSSES = ("rpn_class_loss", "rpn_box_loss")
    HEALTH = ("proposal_recall",)

    def __init__(self, strides, stage=None, anchors=None, proposals=None, sampling=None, **kwargs):
        super().__init__(**kwargs)
        self.strides = tuple(strides)
        self.stage = RPNStage.of(stage)
        self.anchors = Anchors.of(anchors)
        self.proposals = Proposals.of(proposals)
        self.sampling = AnchorSampling.of(sampling)
        self.num_anchors = self.anchors.per_location()
        given, levels = len(self.anchors.sizes or self.strides), len(self.strides)
        if given != levels:
            raise ValueError(f"anchors has sizes for {given} levels, the RPN has {levels}")

    def build(self, input_shape):
        """Create the convolutions for levels of `input_shape` (…, C), or for a list of such shapes."""
        if isinstance(input_shape[0], list | tuple):
            input_shape = input_shape[0]
        depth, norm = self.stage.depth, self.stage.norm
        channels = self.stage.channels or input_shape[-1]
        normal = keras.initializers.RandomNormal(stddev=0.01)
        conv = {"kernel_initializer": normal, "dtype": self.dtype_policy}
        self.convs = [
            keras.layers.Conv2D(channels, 3, padding="same", use_bias=not norm, name=f"conv{i + 1}", **conv)
            for i in range(depth)
        ]
        self.norms = [make_norm(norm, f"norm{i + 1}", self.dtype_policy) for i in range(depth if norm else 0)]
        self.objectness = keras.layers.Conv2D(self.num_anchors, 1, name="objectness", **conv)
        self.deltas = keras.layers.Conv2D(4 * self.num_anchors, 1, name="deltas", **conv)
        hidden = (*input_shape[:-1], channels)
        for i, layer in enumerate(self.convs):
            layer.build(hidden if i else input_shape)
        for layer in (*self.norms, self.objectness, self.deltas):
            layer.build(hidden)

    def call(self, features, training=False):
        """Score all anchors of all levels.

        Args:
            features: list of `[B, H, W, C]`, finest first.
            training: whether batch normalisation uses the batch's statistics.

        Returns:
            (logits, deltas): lists, one entry per level, of float32 `[B, H·W·A]` and `[B, H·W·A, 4]`, in the order of
            `ops.anchors.grid_anchors`.
        """
        logits, deltas = [], []
        for level, hidden in zip(features, self._hidden(features, training), strict=True):
            height, width = ops.shape(level)[1:3]
            cells = height * width
            logits.append(ops.reshape(self.objectness(hidden), (-1, cells * self.num_anchors)))
            deltas.append(ops.reshape(self.deltas(hidden), (-1, cells * self.num_anchors, 4)))
        return [ops.cast(x, "float32") for x in logits], [ops.cast(x, "float32") for x in deltas]

    def _hidden(self, levels, training):
        for i, conv in enumerate(self.convs):
            if not self.norms:
                levels = [convolved(conv, level) for level in levels]
            elif self.stage.norm in ("batch", "sync_batch") and training:
                levels = _normalise_together(self.norms[i], [conv(level) for level in levels])
            else:
                levels = [conv_norm(conv, self.norms[i], level) for level in levels]
            levels = [ops.relu(level) for level in levels]
        return levels

    def first_stage(self, pyramid, canvas, sizes, truth=None, seed=None, training=False, learn=True, given=None):
        """The first stage of a detector: proposals, and the losses where there is ground truth.

        Args:
            pyramid: dict of `[B, H, W, C]`, finest first.
            canvas: (height, width) of the input.
            sizes: float32 `[B, 2]`, height and width of each image inside the input.
            truth: dict of ground truth, or None.
            seed: `keras.random.SeedGenerator` of the sampler.
            training: whether proposals are those of training.
            learn: whether the losses are computed and batch statistics updated; otherwise the losses are 0.
            given: `Proposed` that replace the RPN's own (Fast R-CNN), or None.

        Returns:
            (`Proposed`, dict of the scalars in `LOSSES` and `HEALTH`, empty without ground truth).
        """
        logits, deltas = self(list(pyramid.values()), training=training and learn)
        anchors = self.anchors.boxes(canvas, self.strides)
        proposed = given or self.propose(logits, deltas, anchors, sizes, training)
        if truth is None:
            return proposed, {}
        losses = dict.fromkeys(self.LOSSES, ops.zeros(()))
        if learn:
            losses = self.losses(logits, deltas, anchors, truth, sizes, seed)
        return proposed, {**losses, "proposal_recall": proposal_recall(proposed, truth)}

    def propose(self, logits, deltas, anchors, sizes, training=False):
        """`Proposed` boxes; no gradient flows through them."""
        logits, deltas = ([ops.stop_gradient(x) for x in levels] for levels in (logits, deltas))
        boxes, _, valid = select_proposals(logits, deltas, anchors, sizes, **self.proposals.limits(training))
        return Proposed(boxes, valid)

    def losses(self, logits, deltas, anchors, truth, sizes, seed):
        """Objectness and box loss over a sample of the anchors of all levels (Faster R-CNN, eq. 1).

        Both are divided by the number of sampled anchors, so that their balance does not depend on the number of
        positives.

        Args:
            logits: list of float32 `[B, A_l]`.
            deltas: list of float32 `[B, A_l, 4]`.
            anchors: list of float32 `[A_l, 4]`.
            truth: dict of ground truth.
            sizes: float32 `[B, 2]`, height and width of each image inside the input.
            seed: `keras.random.SeedGenerator`.

        Returns:
            dict of scalars.
        """
        logits, deltas = (ops.concatenate(levels, axis=1) for levels in (logits, deltas))
        anchors = ops.concatenate([ops.convert_to_tensor(a) for a in anchors], axis=0)
        matched, role = assign_anchors(anchors, truth, self.sampling, sizes)
        index, chosen = sample(role, self.sampling.size, self.sampling.positive_fraction, seed, replicas.uniform)
        count = ops.sum(ops.cast(chosen, "float32"))
        positive = take_rows(role, index) == POSITIVE
        error = binary_cross_entropy(take_rows(logits, index), ops.cast(positive, "float32"))
        target = box_ops.encode(take_rows(truth["boxes"], take_rows(matched, index)), ops.take(anchors, index, axis=0))
        box_error = smooth_l1(take_rows(deltas, index) - target, self.stage.beta)
        positive = ops.logical_and(positive, chosen)[..., None]
        return {
            "rpn_class_loss": replicas.global_mean(error, chosen, count),
            "rpn_box_loss": replicas.global_mean(box_error, positive, count),
        }

    def published(self, source, names):
        """Rows of published arrays, see `PUBLISHED` below."""
        return PUBLISHED[source](self, names)

    def get_config(self):
        """Constructor arguments."""
        groups = ("stage", "anchors", "proposals", "sampling")
        return {
            **super().get_config(),
            "strides": list(self.strides),
            **{group: getattr(self, group).asdict() for group in groups},
        }


def _normalise_together(norm, levels):
    """Batch normalisation over the pixels of all levels: inference has one set of statistics, so training has too."""
    if len(levels) == 1:
        return [norm(levels[0], training=True)]
    sizes = [(level.shape[1], level.shape[2]) for level in levels]
    channels = levels[0].shape[-1]
    pixels = ops.concatenate(
        [ops.reshape(level, (-1, h * w, 1, channels)) for level, (h, w) in zip(levels, sizes, strict=True)], axis=1
    )
    ends = [sum(h * w for h, w in sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = ops.split(norm(pixels, training=True), ends, axis=1)
    return [ops.reshape(part, (-1, *size, channels)) for part, size in zip(parts, sizes, strict=True)]


# Published arrays -------------------------------------------------------------------------------------------------


def _torchvision(head, names):
    for i, conv in enumerate(head.convs):
        older = ["rpn.head.conv"] if i == 0 else []
        theirs = published.present(names, f"rpn.head.conv.{i}.0", *older)
        yield from published.torch_layer(conv, f"rpn.convs.{i}", theirs, published.torch_conv)
    for ours, theirs in (("objectness", "cls_logits"), ("deltas", "bbox_pred")):
        layer, name = getattr(head, ours), f"rpn.head.{theirs}"
        yield from published.torch_layer(layer, f"rpn.{ours}", name, published.torch_conv)


def _detectron2(head, names):
    theirs = "proposal_generator.rpn_head"
    for i, conv in enumerate(head.convs):
        name = f"{theirs}.conv" if len(head.convs) == 1 else f"{theirs}.conv.conv{i}"
        yield from published.torch_layer(conv, f"rpn.convs.{i}", name, published.torch_conv)
    ratios = len(head.anchors.ratios)
    for ours, name, outputs in (("objectness", "objectness_logits", 1), ("deltas", "anchor_deltas", 4)):
        order = published.anchors_by_ratio(head.num_anchors // ratios, ratios, outputs)
        kernel = published.then(published.torch_conv, order)
        yield from published.torch_layer(getattr(head, ours), f"rpn.{ours}", f"{theirs}.{name}", kernel, bias=order)


def _matterport(head, names):
    for i, conv in enumerate(head.convs):
        theirs = "rpn_conv_shared" if i == 0 else f"rpn_conv_shared{i + 1}"
        yield from published.keras_layer(conv, f"rpn.convs.{i}", theirs)
    logit, deltas = published.object_logit, published.anchor_deltas
    yield from published.keras_layer(head.objectness, "rpn.objectness", "rpn_class_raw", logit, logit)
    yield from published.keras_layer(head.deltas, "rpn.deltas", "rpn_bbox_pred", deltas, deltas)


PUBLISHED = {"torchvision": _torchvision, "detectron2": _detectron2, "matterport": _matterport}
