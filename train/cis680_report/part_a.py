"""Part A of the assignment, steps 1 to 7: the five-convolution backbone and its region proposals, from scratch."""

import collections
import math

import keras
import numpy as np
from keras import ops

from cis680_report.experiments import rounded, some
from cis680_report.page import Table
from keras_maskrcnn import MaskRCNN, data, evaluation, plots, visualize
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.receptive_field import effective_size, probe, reach, receptive_field
from keras_maskrcnn.training import recipe

SHOWN = 4  # images per figure
BOXES_FROM = 500  # images whose boxes are in the histograms
COUNTED = 64  # images whose anchors are counted
VALIDATED = 16  # test images of the validation losses
EPOCHS = 12  # points of the training curves
FIRST_STAGE_ONLY = {"class_loss": 0.0, "box_loss": 0.0, "mask_loss": 0.0}
LOSSES = {"loss": "total", "rpn_class_loss": "classifier", "rpn_box_loss": "regressor"}
QUALITY = ("accuracy", "positive_accuracy", "negative_accuracy", "box_error", "mean_iou")

# The single anchor: √(width · height) in pixels, height / width, both sides; the training boxes [n, 4] in pixels of the
# network input that it is derived from, the number of their images, and the bins and panels of the histograms.
Anchor = collections.namedtuple("Anchor", "scale ratio height width boxes images bins panels")


def run(report, setup):
    """Trains backbone and RPN, fills steps 1 to 7 of a `page.Report`, and returns the figures for JSON."""
    anchor = find_anchor(first_batches(setup.train, setup, BOXES_FROM))
    counts = evaluation.anchor_counts(build(setup, anchor, 2), first_batches(setup.train, setup, COUNTED))
    # Twice the number of positives, so that about half of the sample can be positive.
    model = build(setup, anchor, int(np.clip(2 * round(counts["positive"]), 16, 256)))
    test = first_batches(setup.test, setup, len(setup.test))
    untrained = evaluation.anchor_report(model, test)
    field = probe(_intermediate(model), setup.canvas_a)
    history, seconds = fit(model, setup)
    model.save(setup.arguments.output / "part_a.keras")
    figures = {
        "anchor": {"scale": anchor.scale, "ratio": anchor.ratio},
        "anchors": counts,
        "losses": {name: np.take(history[key], [0, -1]).tolist() for key, name in LOSSES.items()},
        "untrained": rounded(untrained),
        "test": rounded(evaluation.anchor_report(model, test)),
        "proposal_recall": rounded(evaluation.proposal_recall(FirstStage(model, max_proposals=100), setup.test)),
        "steps": int(model.optimizer.iterations),
        "batch_size": setup.arguments.batch_size,
        "seconds": round(seconds, 1),
    }
    layers = layer_table(model.backbone)
    report.step(1, layers=layers, parameters=sum(row[-1] for row in layers.rows))
    report.step(2, anchor=anchor, boxes=len(anchor.boxes), histograms=plots.histograms(anchor.panels))
    step_3(report, setup, model, counts)
    step_4(report, model)
    figures["receptive_field"] = step_5(report, setup, model, anchor, field)
    positive, negative = counts["positive"], counts["negative"]
    shares = {"ratio": negative / max(positive, 1e-9), "share": negative / max(positive + negative, 1e-9)}
    report.step(6, positive=positive, size=model.rpn.sampling.size, **shares)
    step_7(report, setup, model, history, figures)
    return figures


def find_anchor(batches):
    """The anchor at the modes of scale and aspect ratio of the boxes in some batches."""
    found, images = [], 0
    for _, y in batches:
        found.append(np.asarray(y["boxes"], np.float64)[np.asarray(y["valid"]) & ~np.asarray(y["crowd"])])
        images += len(y["boxes"])
    boxes = np.concatenate(found)
    if not len(boxes):
        raise ValueError(f"the first {images} training images have no box to derive the anchor from")
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    scales, ratios = np.sqrt(width * height), height / width
    bins = math.ceil(math.log2(len(boxes))) + 1  # Sturges' rule
    edges = plots.bin_edges(scales, bins), plots.bin_edges(ratios, bins, logarithmic=True)
    scale, ratio = round(plots.mode(scales, edges[0]), 1), round(plots.mode(ratios, edges[1]), 2)
    panels = [(scales, edges[0], "scale √(w·h), pixels"), (ratios, edges[1], "aspect ratio h / w")]
    return Anchor(scale, ratio, scale * ratio**0.5, scale / ratio**0.5, boxes, images, bins, panels)


def build(setup, anchor, sampled):
    """A `MaskRCNN` on the map of stride 16 with a single anchor; its small second stage is not trained."""
    keras.utils.set_random_seed(setup.arguments.seed)
    model = MaskRCNN(
        len(setup.class_names),
        class_names=list(setup.class_names),
        backbone="simple_cnn",
        neck=None,
        image_size=setup.canvas_a,
        # The receptive fields of this backbone are centred on cells of 16 × 16 pixels, not on their corners.
        anchors={"sizes": ((anchor.scale,),), "ratios": (anchor.ratio,), "offset": 0.5},
        rpn_stage={"channels": 256, "norm": "batch", "beta": 1.0},
        rpn_sampling={"size": sampled, "positive_fraction": 0.5, "high": 0.7, "low": 0.3, "cross_boundary": "ignore"},
        box_stage={"pool": 2, "hidden": 1, "width": 8},
        mask_stage={"pool": 2, "depth": 1, "width": 8},
        seed=setup.arguments.seed,
        dtype=recipe.policy(setup.arguments),
    )
    model.box_head.trainable = model.mask_head.trainable = False
    return model


def fit(model, setup):
    """Trains backbone and RPN jointly; returns the history (dict of lists) and the seconds."""
    test = first_batches(setup.test, setup, VALIDATED)
    steps, canvas = setup.arguments.steps_a, setup.canvas_a
    trained = setup.fit(model, steps, EPOCHS, canvas, FIRST_STAGE_ONLY, validation_data=test)
    return trained["history"], trained["seconds"]


def first_batches(dataset, setup, count):
    """The first images of a data set in order, as small batches on part A's canvas; the unused masks are tiny."""
    chosen = some(dataset, count)
    return data.batches(chosen, setup.canvas_a, min(4, len(chosen)), mask_size=8, max_instances=64)


def layer_table(network):
    """Convolutions and poolings of a functional Keras model; following layers are in the row of the convolution."""
    header, rows, stride = ["layer", "kernel", "channels", "followed by", "stride of its output", "parameters"], [], 1
    for layer in network.layers:
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel:
            stride *= layer.strides[0]
            size = f"{kernel[0]} × {kernel[1]}"
            rows.append([layer.name, size, int(layer.output.shape[-1]), "", stride, layer.count_params()])
        elif rows:
            rows[-1][3] = ", ".join(filter(None, (rows[-1][3], type(layer).__name__)))
            rows[-1][5] += layer.count_params()
    return Table(header, rows)


def step_3(report, setup, model, counts):
    """Roles of all anchors."""
    x, y = next(iter(first_batches(setup.train, setup, SHOWN)))
    found = evaluation.anchor_roles(model, {**x, **y})
    images, boxes, valid = (np.asarray(part) for part in (x["images"], y["boxes"], y["valid"]))
    roles = zip(images, found["role"], found["crossing"], boxes, valid, strict=True)
    drawn = [visualize.anchor_roles(image, found["anchors"], *role, own[real]) for image, *role, own, real in roles]
    columns = ["positive", "negative", "ignored", "crossing", "all"]
    table = Table(columns, [[counts[name] for name in columns]])
    report.step(3, counts=counts, roles=table, anchors=visualize.grid(drawn, columns=2))


def step_4(report, model):
    """Layers of the RPN."""
    rpn, stride = model.rpn, model.strides[0]
    size = " × ".join(str(side // stride) for side in model.image_size)
    intermediate = rpn.convs[0].count_params() + rpn.norms[0].count_params()
    rows = [
        ["intermediate", "3 × 3, then batch normalisation and ReLU", f"{size} × 256", intermediate],
        ["classifier", "1 × 1, then sigmoid", f"{size} × 1", rpn.objectness.count_params()],
        ["regressor", "1 × 1", f"{size} × 4", rpn.deltas.count_params()],
    ]
    report.step(4, layers=Table(["layer", "kernel", "output", "parameters"], rows))


def step_5(report, setup, model, anchor, before):
    """The receptive field, theoretical and measured; returns its figures."""
    size, stride = receptive_field(model.backbone)
    rows = [[level, *receptive_field(model.backbone, level, ())] for level in model.backbone.output]
    rows.append(["intermediate layer", size, stride])
    after = probe(_intermediate(model), setup.canvas_a)
    frame = _field_box(model, setup.canvas_a)
    sides = (anchor.boxes[:, 2:] - anchor.boxes[:, :2]).max(axis=1)
    figures = {
        "size": size,
        "stride": stride,
        "measured": list(before.extent),
        "effective_untrained": effective_size(before.gradient),
        "effective": effective_size(after.gradient),
        "objects_larger": float((sides > size).mean()),
    }
    fields = Table(["map", "receptive field, pixels", "stride, pixels"], rows)
    times = {"before": before, "after": after}
    maps = [plots.gradient_map(each.gradient, frame, f"{time} training") for time, each in times.items()]
    longest = {"median": np.median(sides), "longest": sides.max()}
    report.step(5, fields=fields, maps=maps, anchor=anchor, margin=(size - 1) // 2, **times, **longest, **figures)
    return figures


def _intermediate(model):
    """Function from images to the RPN's intermediate layer, before its normalisation."""
    return lambda images: model.rpn.convs[0](model.backbone(images)["C4"])


def _field_box(model, canvas):
    """x1, y1, x2, y2 of the receptive field of the unit in the middle of the map, clipped to the canvas."""
    low, high = [], []
    for axis in (1, 0):
        side, field = canvas[axis], reach(model.backbone, axis=axis)
        start = side // field.stride // 2 * field.stride
        low.append(max(start + field.low, 0))
        high.append(min(start + field.high + 1, side))
    return (*low, *high)


def step_7(report, setup, model, history, figures):
    """Joint training and its results."""
    losses = {key: history[key] for name in LOSSES for key in (name, f"val_{name}")}
    recall, proposals, right, green = figures["proposal_recall"], *_proposals(setup, model)
    report.step(
        7,
        losses=plots.curves({"": losses}, xlabel="part of the training", ylabel="loss"),
        validated=min(VALIDATED, len(setup.test)),
        quality=Table(["", *QUALITY], [[k, *(figures[k][name] for name in QUALITY)] for k in ("untrained", "test")]),
        recall=Table([f"best {count}" for count in recall], [list(recall.values())]),
        proposals=proposals,
        right=right,
        green=green,
        figures=figures,
        size=model.rpn.sampling.size,
        normaliser=model.rpn.sampling.size * figures["batch_size"],
    )


def _proposals(setup, model):
    """Test images with their proposals by score; how many positive ones match an object, and how many there are."""
    # A stricter NMS than that of the second stage: otherwise twenty boxes hide each object.
    stage, images, right, green = FirstStage(model, max_proposals=40, nms_iou=0.5), [], 0, 0
    for position in range(min(SHOWN, len(setup.test))):
        sample = setup.test[position]
        found = stage.detect(sample["image"])
        positive = found["scores"] >= 0.5
        overlap = ops.convert_to_numpy(box_ops.iou(found["boxes"], sample["boxes"]))
        right += int((overlap.max(axis=1, initial=0)[positive] >= 0.5).sum())
        green += int(positive.sum())
        groups = [
            ("negative proposal", found["boxes"][~positive], visualize.BLUE, 1),
            ("positive proposal", found["boxes"][positive], visualize.GREEN, 2),
            ("object", sample["boxes"], visualize.YELLOW, 2),
        ]
        images.append(visualize.outline(sample["image"], groups, max(2, visualize.fitting_scale(sample["image"]))))
    return visualize.grid(images, columns=2), right, green
