"""Part A of the assignment, steps 1 to 7: the five-convolution backbone and its region proposals, from scratch."""

import numpy as np
from keras import ops

from cis680_report import answers, drawings, part_a_training, plots
from keras_maskrcnn import evaluation, visualize
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.ops import boxes as box_ops
from keras_maskrcnn.receptive_field import effective_size, probe, reach, receptive_field

SHOWN = 4  # pictures of each kind
LOSSES = {"loss": "total", "rpn_class_loss": "classifier", "rpn_box_loss": "regressor"}


def run(page, setup):
    """Finds the anchor, trains backbone and RPN, and writes steps 1 to 7.

    Args:
        page: `page.Page`.
        setup: `setup.Setup`.

    Returns:
        dict of figures, as JSON takes them: `anchor`, `anchors` (roles a picture, mean), `receptive_field`, `losses`
        (first and last of each), `test` and `untrained` (`evaluation.anchor_report`), `proposal_recall` by number of
        proposals, `steps`, `batch_size` and `seconds` of training.
    """
    anchor = part_a_training.find_anchor(setup.train, setup.canvas_a)
    counts = part_a_training.count_roles(part_a_training.build(setup, anchor, 2), setup)
    model = part_a_training.build(setup, anchor, part_a_training.sample_size(counts["positive"]))
    untrained = evaluation.anchor_report(model, part_a_training.test_batches(setup))
    field = probe(_intermediate(model), setup.canvas_a)
    history, seconds = part_a_training.fit(model, setup)
    model.save(setup.output / "part_a.keras")
    figures = {
        "anchor": {"scale": anchor.scale, "ratio": anchor.ratio},
        "anchors": counts,
        "losses": {name: [history[key][0], history[key][-1]] for key, name in LOSSES.items()},
        "untrained": _numbers(untrained),
        "test": _numbers(evaluation.anchor_report(model, part_a_training.test_batches(setup))),
        "proposal_recall": _numbers(evaluation.proposal_recall(FirstStage(model, max_proposals=100), setup.test)),
        "steps": int(model.optimizer.iterations),
        "batch_size": setup.arguments.batch_size,
        "seconds": round(seconds, 1),
    }
    page.part("Part A: the backbone and the region proposal network, from scratch")
    step_1(page, model)
    step_2(page, setup, anchor)
    step_3(page, setup, model, counts)
    step_4(page, model)
    figures["receptive_field"] = step_5(page, model, anchor, field, setup.canvas_a)
    step_6(page, model, counts)
    step_7(page, setup, model, history, figures)
    return figures


def step_1(page, model):
    """The backbone's table."""
    page.step(1, "The backbone")
    header, rows = plots.layer_table(model.backbone)
    total = sum(row[-1] for row in rows)
    page.text(
        "Five convolutions of 5 × 5 with 16, 32, 64, 128 and 256 channels, each followed by batch normalisation and "
        "ReLU, with 2 × 2 max pooling between them. The convolutions keep the size of their map (zeros around it) and "
        f"have no bias, for the normalisation brings one. {total:,} parameters, initialised after He et al. (2015)."
    )
    page.table(header, rows, "The backbone as it was built; parameters include those of the normalisation.")


def step_2(page, setup, anchor):
    """Histograms and the anchor."""
    page.step(2, "The anchor")
    scales, ratios = part_a_training.scales_and_ratios(anchor.boxes)
    panels = [
        (scales, plots.bin_edges(scales, anchor.bins), "scale √(w·h), pixels"),
        (ratios, plots.bin_edges(ratios, anchor.bins, logarithmic=True), "aspect ratio h / w"),
    ]
    page.figure(
        plots.histograms(panels),
        f"{len(anchor.boxes):,} boxes of {anchor.pictures} training pictures, in pixels of the network's input of "
        f"{setup.canvas_a[0]} × {setup.canvas_a[1]}; {anchor.bins} bins of equal width, for the ratio on a "
        "logarithmic axis.",
    )
    height, width = anchor.sides
    page.text(
        f"The modes, that is the middles of the fullest bins, are a scale of {anchor.scale:g} pixels and a ratio of "
        f"{anchor.ratio:g}. The single anchor is therefore {width:.0f} pixels wide and {height:.0f} high. "
        f"{anchor.bins} bins are what Sturges' rule gives for so many boxes: with many more the fullest bin would be "
        "a matter of chance, with fewer the anchor would be coarse."
    )


def step_3(page, setup, model, counts):
    """Ground truth for every anchor."""
    page.step(3, "Ground truth for every anchor")
    page.table(
        ["positive", "negative", "neither", "beyond the picture", "all"],
        [[counts[name] for name in ("positive", "negative", "ignored", "crossing", "all")]],
        "Anchors of a picture, mean over training pictures.",
    )
    x, y = next(iter(part_a_training.first_batches(setup.train, setup.canvas_a, SHOWN)))
    inputs = {**x, **y}
    found, drawn = part_a_training.roles(model, inputs), []
    images, boxes, valid = (np.asarray(inputs[name]) for name in ("images", "boxes", "valid"))
    for i in range(len(images)):
        drawn.append(
            drawings.anchor_roles(
                images[i], found["anchors"], found["role"][i], found["crossing"][i], boxes[i][valid[i]]
            )
        )
    page.picture(
        visualize.grid(drawn, columns=2),
        "Centres of all anchors in the colour of their role, the positive ones with their frame.",
    )
    figures = {name: counts[name] for name in ("positive", "negative", "ignored", "crossing", "forced")}
    page.answer(answers.QUESTIONS[3], answers.anchor_truth(**figures))


def step_4(page, model):
    """The classifier."""
    page.step(4, "The intermediate layer and the classifier")
    rpn, stride = model.rpn, model.strides[0]
    height, width = (side // stride for side in model.image_size)
    rows = [
        ["intermediate", "3 × 3, then batch normalisation and ReLU", f"{height} × {width} × 256",
         rpn.convs[0].count_params() + rpn.norms[0].count_params()],
        ["classifier", "1 × 1, then sigmoid", f"{height} × {width} × 1", rpn.objectness.count_params()],
        ["regressor", "1 × 1", f"{height} × {width} × 4", rpn.deltas.count_params()],
    ]  # fmt: skip
    page.table(["layer", "kernel", "output", "parameters"], rows, "The region proposal network, at stride 16.")
    page.text(
        "Each location has one number: its sigmoid p is the probability that the anchor there shows an object. The "
        "loss is the point-wise binary cross-entropy -y·log p - (1 - y)·log(1 - p) of the sampled anchors, y = 1 for "
        "positive and 0 for negative ones, worked out from the logit, so that no logarithm of zero can occur."
    )


def step_5(page, model, anchor, field, canvas):
    """The receptive field, in theory and measured."""
    page.step(5, "The receptive field")
    size, stride = receptive_field(model.backbone)
    rows = [
        [name, *receptive_field(model.backbone, level, then)]
        for name, level, then in (*((level, level, ()) for level in model.backbone.output),
                                  ("intermediate layer", "C4", ((3, 1),)))
    ]  # fmt: skip
    page.table(
        ["map", "receptive field, pixels", "stride, pixels"], rows, "From the kernels and strides of the layers."
    )
    trained = probe(_intermediate(model), canvas)
    allowed = _field_box(model, canvas)
    for measured, state in ((field, "before"), (trained, "after")):
        page.figure(
            plots.receptive_map(measured.gradient, allowed, f"{state} training"),
            f"Where the middle unit of the intermediate layer looks, {state} training: pixels with a gradient span "
            f"{measured.extent[0]} × {measured.extent[1]}; above a twentieth of the highest lies an area of "
            f"{effective_size(measured.gradient):.0f} × {effective_size(measured.gradient):.0f}. The frame is the "
            "field that the layers allow.",
        )
    effective = effective_size(trained.gradient)
    sides = (anchor.boxes[:, 2:] - anchor.boxes[:, :2]).max(axis=1)
    text = answers.receptive_field(size, stride, field.extent, effective, sides, anchor.sides)
    page.answer(answers.QUESTIONS[5], text)
    return {
        "size": size,
        "stride": stride,
        "measured": list(field.extent),
        "effective_untrained": effective_size(field.gradient),
        "effective": effective,
        "objects_larger": float((sides > size).mean()),
    }


def _intermediate(model):
    """Pictures to the RPN's intermediate 3×3 layer, before its normalisation."""
    return lambda images: model.rpn.convs[0](model.backbone(images)["C4"])


def _field_box(model, canvas):
    """x1, y1, x2, y2 of the field of the unit in the middle of the map, as far as it lies in the canvas."""
    sees = [reach(model.backbone, axis=axis) for axis in (0, 1)]
    starts = [side // part.stride // 2 * part.stride for side, part in zip(canvas, sees, strict=True)]
    low = [max(start + part.low, 0) for start, part in zip(starts, sees, strict=True)]
    high = [min(start + part.high + 1, side) for start, part, side in zip(starts, sees, canvas, strict=True)]
    return low[1], low[0], high[1], high[0]


def step_6(page, model, counts):
    """The regressor and the sampling."""
    page.step(6, "The regressor and the sampling of anchors")
    page.text(
        "Four numbers at each location say how the anchor (centre xa, ya, size wa, ha) becomes the box (x, y, w, h): "
        "tx = (x - xa) / wa, ty = (y - ya) / ha, tw = log(w / wa), th = log(h / ha). Shifts in units of the anchor and "
        "sizes as ratios make the four alike in magnitude whatever the size. The loss is the smooth L1 of the "
        "difference, summed over the four and over the positive anchors, divided by N_reg."
    )
    text = answers.sampling(counts["positive"], counts["negative"], model.rpn_sampling.size)
    page.answer(answers.QUESTIONS[6], text)


def step_7(page, setup, model, history, figures):
    """Joint training and what came of it."""
    page.step(7, "Joint training")
    text = answers.normalisation(model.rpn_sampling.size, setup.arguments.batch_size)
    page.answer(answers.QUESTIONS[7], text)
    page.figure(
        plots.curves(history, LOSSES, xlabel="part of the training"),
        f"Training in {len(history['loss'])} parts, {figures['steps']} steps of {figures['batch_size']} pictures in "
        f"all, {figures['seconds']:.0f} s; dashed: {min(part_a_training.VALIDATED, len(setup.test))} test pictures.",
    )
    names = {
        "accuracy": "point-wise accuracy of the classifier",
        "positive_accuracy": "of it, on positive anchors",
        "negative_accuracy": "of it, on negative anchors",
        "box_error": "error of the regressor: smooth L1, sum of four, mean over positive anchors",
        "mean_iou": "IoU of the moved positive anchors with their objects, mean",
    }
    page.table(
        ["on the test set, all anchors that have a role", "untrained", "trained"],
        [[told, figures["untrained"][name], figures["test"][name]] for name, told in names.items()],
        f"{figures['test']['positives']:,} positive and {figures['test']['negatives']:,} negative anchors.",
    )
    recall = figures["proposal_recall"]
    page.table(
        [f"{most} proposal{'s' * (int(most) > 1)}" for most in recall],
        [list(recall.values())],
        "Proposal recall: share of the test objects that one of the best proposals overlaps by an IoU of 0.5 or more.",
    )
    _overlays(page, setup, model)


def _overlays(page, setup, model):
    """Test pictures with positive and negative proposals."""
    # Suppressed harder than for the second stage, or twenty boxes around each object would hide it.
    stage, drawn, right, positives = FirstStage(model, max_proposals=40, nms_iou=0.5), [], 0, 0
    for position in range(min(SHOWN, len(setup.test))):
        sample = setup.test[position]
        found = stage.detect(sample["image"])
        positive = found["scores"] >= 0.5
        overlap = ops.convert_to_numpy(box_ops.iou(found["boxes"], sample["boxes"]))
        right += int((overlap.max(axis=1, initial=0)[positive] >= 0.5).sum())
        positives += int(positive.sum())
        drawn.append(drawings.proposals_by_role(sample["image"], found["boxes"], positive, sample["boxes"]))
    page.picture(
        visualize.grid(drawn, columns=2),
        "The 40 likeliest proposals for test pictures after suppression at an IoU of 0.5: green where the classifier's "
        f"probability is 0.5 or more, blue where it is less. Of {positives} green ones {right} overlap an object by an "
        "IoU of 0.5 or more.",
    )


def _numbers(figures):
    """Figures as JSON takes them: counts as they are, other numbers with four digits, None for NaN."""
    return {
        str(name): value if isinstance(value, int) else None if np.isnan(value) else round(float(value), 4)
        for name, value in figures.items()
    }
