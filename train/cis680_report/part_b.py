"""Part B of the assignment, steps 8 to 18: the full network, its trainings, its stages and its results."""

import collections
import time

import numpy as np
from keras import ops

from cis680_report import cases, experiments, roi
from cis680_report.experiments import rounded
from cis680_report.page import Table
from keras_maskrcnn import MaskRCNN, data, evaluation, plots, visualize
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.models.first_stage import FirstStage

CENTRED = data.Centred(size=(800, 1066), canvas=(800, 1088))
LIMITS = (1, 10, 100, 1000)  # numbers of proposals
SHOWN = 6  # test images per figure
# F1 of proposals by class in the student's report.
REPORTED = {"background": 0.89, "vehicle": 0.71, "person": 0.74, "animal": 0.79}
RATES = ("precision", "recall", "f1")
PART = "part of the training"


def run(report, setup):
    """Trains the networks, and fills steps 8 to 18.

    Args:
        report: `page.Report`.
        setup: `setup.Setup`.

    Returns:
        dict of figures for JSON: `joint` and `alternating` (`experiments.compare`, recall of proposals, seconds by
        phase, rates by class on the test set and, for `joint`, on training images), `transfer` by backbone,
        `proposal_recall` by number of proposals, `random_positions` by P, `regions` (`accuracy`, rates by class),
        `losses` (first and last), `false_positive`, `photo` (objects by class).
    """
    joint, alternating = experiments.joint(setup), experiments.alternating(setup)
    arms = [
        experiments.transfer(setup, None, "new backbone", True),
        experiments.transfer(setup, joint.model.backbone, "trained, frozen", False),
        experiments.transfer(setup, joint.model.backbone, "trained, fine-tuned", True),
    ]
    for trained in (joint, alternating):
        trained.model.save(setup.arguments.output / f"{trained.name}.keras")
    figures = {run.name: _figures(run, setup) for run in (joint, alternating)}
    figures["transfer"] = {arm.name: _arm(arm, joint, setup) for arm in arms}
    step_8(report, setup, arms, figures["transfer"])
    step_9(report, setup)
    figures["proposal_recall"] = step_10(report, setup, joint)
    step_11(report, setup, joint, alternating, figures)
    figures["random_positions"] = roi.step_12(report, setup, joint.model)
    anchors = len(joint.stage.anchors(setup.canvas_b))
    report.step(13, anchors=anchors, proposals=joint.model.proposals.post_nms)
    step_14(report, setup, joint)
    rates, figures["regions"] = step_15(report, setup, joint)
    figures["joint"] |= rates
    reports = experiments.reports(alternating, setup.test)
    figures["alternating"]["test"] = {kind: experiments.rates(found) for kind, found in reports.items()}
    figures["losses"] = step_16(report, setup, joint)
    figures["false_positive"] = step_17(report, setup, joint.model)
    figures["photo"] = step_18(report, setup, joint.model)
    return figures


def _figures(run, setup):
    """Scores of a training, recall of its 100 best proposals, and seconds by phase."""
    recall = rounded(evaluation.proposal_recall(run.stage, setup.test, limits=(100,)))["100"]
    phases = {phase["phase"]: round(phase["seconds"], 1) for phase in run.phases}
    return {**experiments.compare(run, setup.test), "proposal_recall": recall, "phases": phases}


def _arm(arm, joint, setup):
    """Scores of an arm of step 8, and the largest difference of its backbone's weights from the joint training's."""
    pairs = zip(arm.model.backbone.get_weights(), joint.model.backbone.get_weights(), strict=True)
    distance = max(float(np.abs(now - trained).max()) for now, trained in pairs)
    return {**experiments.compare(arm, setup.test), "backbone_distance": distance}


def step_8(report, setup, arms, figures):
    """Frozen, fine-tuned and new backbones."""
    header = ["backbone", "box AP", "box AP50", "mask AP", "F1", "seconds", "distance"]
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "f1", "seconds", "backbone_distance")
    measured = {arm.name: _number(figures[arm.name]["bbox_AP50"]) for arm in arms}
    report.step(
        8,
        steps=setup.arguments.transfer_steps,
        arms=Table(header, [[arm.name, *(figures[arm.name][name] for name in names)] for arm in arms]),
        losses=plots.curves({"": {arm.name: arm.history["loss"] for arm in arms}}, ylabel="total loss"),
        images=len(setup.train),
        measured=", ".join(f"{arm.name} {measured[arm.name]:.3f} ({arm.seconds:.0f} s)" for arm in arms),
        gap=measured["trained, fine-tuned"] - measured["trained, frozen"],
    )


def step_9(report, setup):
    """Images of 800 × 1066 pixels centred in 800 × 1088, with boxes and masks."""
    samples = [setup.test[i] for i in range(min(3, len(setup.test)))]
    centred = [CENTRED(sample, np.random.default_rng(0)) for sample in samples]
    images = [visualize.draw(sample["image"], sample, setup.class_names) for sample in centred]
    rows = [_input_row(before, after) for before, after in zip(samples, centred, strict=True)]
    table = Table(list(rows[0]), [list(row.values()) for row in rows])
    report.step(9, canvas=setup.canvas_b, images=visualize.grid(images, columns=1), inputs=table)


def _input_row(before, after):
    """Numbers that show that image, boxes and masks are transformed alike."""
    mean, deviation = (np.array(v) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    pixels = (after["image"] - mean) / deviation
    (height, width), left = CENTRED.size, int(CENTRED.offset[1])
    inside = pixels[:, left : left + width]
    border = np.concatenate([pixels[:, :left], pixels[:, left + width :]], axis=1)
    rows, columns = before["image"].shape[:2]
    distance = np.abs(after["boxes"] - mask_boxes(np.asarray(after["masks"])))
    return {
        "size before": f"{rows} × {columns}",
        "vertical factor": height / rows,
        "horizontal factor": width / columns,
        "columns left": left,
        "columns right": CENTRED.canvas[1] - width - left,
        "mean": inside.mean(),
        "deviation": inside.std(),
        "maximum in the border": np.abs(border).max(),
        "box against mask, pixels": distance.max() if len(distance) else None,
    }


def step_10(report, setup, trained):
    """ResNet-50-FPN at full size, untrained; proposals of the trained network and their recall, which is returned."""
    recall = rounded(evaluation.proposal_recall(FirstStage(trained.model, LIMITS[-1]), setup.test, limits=LIMITS))
    images = [setup.test[i]["image"] for i in range(min(2, len(setup.test)))]
    found = zip(images, FirstStage(trained.model, LIMITS[-1]).detect(images), strict=True)
    panels = [
        visualize.outline(image, [("proposal", proposals["boxes"][:count], visualize.YELLOW, 1)])
        for image, proposals in found
        for count in LIMITS[1:]
    ]
    report.step(
        10,
        backbone=setup.arguments.backbone,
        width=setup.arguments.width,
        norm=experiments.norm(setup),
        channels=trained.model.fpn_channels,
        small=trained.model.count_params(),
        small_canvas=setup.canvas_b,
        sides=", ".join(f"{side[0]:g}" for side in trained.model.anchors.sizes),
        training_proposals=experiments.PROPOSALS["training_post_nms"],
        proposals=experiments.PROPOSALS["post_nms"],
        recall=Table([f"best {count}" for count in recall], [list(recall.values())]),
        best=visualize.grid(panels, columns=3),
        **_full_size(setup),
    )
    return recall


def _full_size(setup):
    """Fields of step 10 about the network of the papers at 800 × 1088, from a forward pass."""
    model = MaskRCNN(len(setup.class_names), backbone="resnet50", neck="fpn", seed=setup.arguments.seed)
    inputs = {"images": CENTRED(setup.test[0], np.random.default_rng(0))["image"][None]}
    inputs["sizes"] = np.array([CENTRED.canvas], "float32")
    start = time.perf_counter()
    found = FirstStage(model, model.proposals.post_nms)(inputs)
    seconds = time.perf_counter() - start
    kept = ops.convert_to_numpy(found["boxes"])[ops.convert_to_numpy(found["valid"])]
    each, sides = model.anchors.per_location(), model.anchors.level_sizes(model.strides)
    features, rows, strides = model.features(**inputs), [], []
    for (name, level), stride, side in zip(features.items(), model.strides, sides, strict=True):
        _, height, width, channels = level.shape
        rows.append([name, stride, f"{height} × {width} × {channels}", side[0], each, height * width * each])
        strides.append(f"{name} ({height} × {width})")
    anchors = found["logits"].shape[1]
    return {
        "parameters": model.count_params(),
        "canvas": CENTRED.canvas,
        "levels": Table(["level", "stride", "features", "anchor side", "anchors per location", "anchors"], rows),
        "strides": ", ".join(strides),
        "each": each,
        "anchors": anchors,
        "kept": len(kept),
        "x": (kept[:, 0].min(), kept[:, 2].max()),
        "y": (kept[:, 1].min(), kept[:, 3].max()),
        "seconds": seconds,
    }


def step_11(report, setup, joint, alternating, figures):
    """Joint training and alternating training."""
    runs = (joint, alternating)
    header = [
        "training",
        "steps",
        "box AP",
        "box AP50",
        "mask AP",
        "mask AP50",
        "F1",
        "from score",
        "recall",
        "seconds",
    ]
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "f1", "threshold", "proposal_recall", "seconds")
    phases = [[p["phase"], p["seconds"], p["history"]["loss"][0], p["history"]["loss"][-1]] for p in alternating.phases]
    accuracy = {run.name: _number(figures[run.name]["segm_AP"]) for run in runs}
    report.step(
        11,
        phase_steps=", ".join(str(phase["steps"]) for phase in alternating.phases),
        batch=setup.arguments.batch_size,
        schemes=Table(header, [[run.name, run.steps, *(figures[run.name][name] for name in names)] for run in runs]),
        bars=plots.bars({"mask AP": accuracy, "seconds": {run.name: run.seconds for run in runs}}),
        phases=Table(["phase", "seconds", "first loss", "last loss"], phases),
        losses=[_curves(phase) for phase in (*joint.phases, *alternating.phases)],
        joint_seconds=joint.seconds,
        alternating_seconds=alternating.seconds,
        gap=accuracy["joint"] - accuracy["alternating"],
        **accuracy,
    )


def _curves(phase):
    """The losses of a phase that are not zero throughout."""
    columns = {name: values for name, values in phase["history"].items() if name.endswith("loss") and any(values)}
    return plots.curves({phase["phase"]: columns}, PART)


def step_14(report, setup, trained):
    """The box head: shapes, candidates under two rules, losses."""
    model, history = trained.model, trained.history
    bins, outputs = model.box_stage.pool, len(setup.class_names) + 1
    header = ["positive from IoU", "negative below IoU", "positive", "negative", "ignored", "positives in the sample"]
    foreground, background = (history[kind][-1] for kind in ("foreground", "background"))
    report.step(
        14,
        bins=bins,
        cells=bins**2,
        channels=model.fpn_channels,
        features=model.fpn_channels * bins**2,
        width=model.box_stage.width,
        outputs=outputs,
        classes=outputs - 1,
        size=experiments.SAMPLED["size"],
        scored=experiments.SCORED,
        criteria=Table(header, cases.criteria(setup.train, trained.stage)),
        losses=plots.curves({"": {name: history[name] for name in ("class_loss", "box_loss")}}, PART),
        foreground=foreground,
        background=background,
        ratio=background / max(foreground, 1e-9),
    )


def step_15(report, setup, trained):
    """Classes of proposals, detections after NMS, and the effect of refinement.

    Returns:
        (rates, regions): dict by part of the data ("test", "train") of dicts by kind ("bbox", "segm") of rates by
        class; dict of the `accuracy` and the rates by class of the classification of proposals.
    """
    found = evaluation.region_report(trained.stage, setup.test)
    classes, note = _class_table(found, setup.class_names)
    parts = {"test": setup.test, "train": experiments.some(setup.train)}
    reports = {part: experiments.reports(trained, dataset) for part, dataset in parts.items()}
    pairs = [(sample["image"], detections) for _, sample, detections in _shown(setup.test, trained.model)]
    refined = [visualize.outline(image, _refinement(boxes["proposals"], boxes["boxes"])) for image, boxes in pairs]
    half, image = _half_figure(cases.half_covered(trained.model, setup.test), setup.class_names)
    rates = experiments.rates(found)
    f1 = {name: values["f1"] for name, values in rates.items() if values["f1"] is not None}
    report.step(
        15,
        threshold=trained.threshold,
        accuracy=found["accuracy"],
        regions=found["confusion"].sum(),
        rates=classes,
        note=note,
        confusion=plots.confusion(found["confusion"], found["names"]),
        **{part: _rate_table(pair) for part, pair in reports.items()},
        scored=len(parts["train"]),
        refined=visualize.grid(refined, columns=2),
        half=half,
        half_covered=image,
        f1=", ".join(f"{name} {value:.2f}" for name, value in f1.items()),
        reference=", ".join(f"{name} {value:.2f}" for name, value in REPORTED.items()),
    )
    by_class = {part: {kind: experiments.rates(r) for kind, r in pair.items()} for part, pair in reports.items()}
    return by_class, {**rounded({"accuracy": found["accuracy"]}), "classes": rates}


def _class_table(report, class_names):
    """Rates of the classification of proposals next to the student's F1, and a note on the classes."""
    order = ["background", *class_names]
    same = set(order) == set(REPORTED)
    others = order if same else [*REPORTED, *[None] * len(order)]
    pairs = zip(order, others, strict=False)
    rows = [[name, *(report["classes"][name][k] for k in RATES), other, REPORTED.get(other)] for name, other in pairs]
    header = ["class", "precision", "recall", "F1", "class in the student's report", "F1 there"]
    return Table(header, rows), "" if same else " The student's classes differ and are paired by position only."


def _rate_table(reports):
    """Precision, recall and F1 of boxes and masks by class and overall."""
    each = [{**report["classes"], "all": report["overall"]} for report in reports.values()]
    header = [
        "class",
        *(f"{figure}, {kind}" for kind in ("boxes", "masks") for figure in ("precision", "recall", "F1")),
    ]
    return Table(header, [[name, *(rates[name][k] for rates in each for k in RATES)] for name in each[0]])


def _refinement(proposals, refined):
    return [("proposal", proposals, visualize.YELLOW, 2), ("refined box", refined, visualize.CYAN, 2)]


def _half_figure(case, class_names):
    """Caption and images of a `Half`, or of None."""
    if case is None:
        return "No detection has a proposal that covers 35 to 65 % of its object and an IoU above 0.7.", []
    groups = [("object", case.truth, visualize.WHITE, 1), *_refinement(case.proposal, case.box)]
    caption = (
        f"A proposal that covers {case.covered:.0%} of an object ({class_names[case.label - 1]}), IoU "
        f"{case.before:.2f}. The refined box has IoU {case.after:.2f} and score {case.score:.2f}."
    )
    return caption, [visualize.outline(case.sample["image"], groups)]


def step_16(report, setup, trained):
    """The mask head: its output and all losses; returns the first and last value of each loss."""
    history, side = trained.history, 2 * trained.model.mask_stage.pool
    losses = {name: history[name] for name in ("loss", *trained.model.LOSSES)}
    weights = {name: experiments.LOSS_WEIGHTS.get(name, 1) for name in trained.model.LOSSES}
    report.step(
        16,
        bins=trained.model.mask_stage.pool,
        side=side,
        classes=len(setup.class_names),
        weights=" + ".join(f"{weight:g} · {name}" for name, weight in weights.items()),
        losses=plots.curves({"": losses}, PART),
        masks=_raw_masks(setup, trained.model),
    )
    return {name: list(rounded({0: values[0], -1: values[-1]}).values()) for name, values in losses.items()}


def _raw_masks(setup, model, count=16, enlarge=4):
    """Output of the mask head for the detections of highest score in a few test images: uint8 image."""
    dataset = experiments.some(setup.test, 8)
    (x, _), *_ = data.batches(dataset, setup.canvas_b, len(dataset), mask_size=28)
    found = model.predict_on_batch({name: np.asarray(x[name]) for name in ("images", "sizes")})
    best = np.argsort(-np.where(found["valid"], found["scores"], -1.0), axis=None)[:count]
    masks = found["masks"].reshape(-1, *found["masks"].shape[2:])[best]
    cells = np.rint(masks * 255).astype(np.uint8)
    return visualize.grid(list(cells.repeat(enlarge, axis=1).repeat(enlarge, axis=2)), columns=count // 2)


def step_17(report, setup, model):
    """Detections in test images, and the false positive of highest score; returns its figures or None."""
    shown = _shown(setup.test, model)
    case = cases.false_positive(model, setup.test)
    caption, images, figures = "Every prediction overlaps an object.", [], None
    if case is not None:
        name = setup.class_names[case.label - 1]
        caption = (
            f"The prediction of highest score without ground truth (cyan): {name}, {case.score:.3f}. Its IoU with the "
            f"nearest object (white) is {case.overlap:.2f}."
        )
        groups = [("object", case.sample["boxes"], visualize.WHITE, 1), ("prediction", case.box, visualize.CYAN, 2)]
        images = [visualize.outline(case.sample["image"], groups)]
        figures = {"class": name, **rounded({"score": case.score, "overlap": case.overlap})}
    report.step(
        17,
        places=", ".join(str(i) for i, _, _ in shown),
        objects=sum(len(sample["labels"]) for _, sample, _ in shown),
        detections=sum(len(found["labels"]) for _, _, found in shown),
        pairs=[visualize.side_by_side(s["image"], s, found, setup.class_names) for _, s, found in shown],
        false_positive=caption,
        stranger=images,
    )
    return figures


def step_18(report, setup, model):
    """An image of the user's own, or a test image; returns the number of objects by class."""
    photo = setup.arguments.photo
    image = setup.test[0]["image"] if photo is None else data.read_image(photo)
    found = model.detect(image)
    counts = collections.Counter(setup.class_names[label - 1] for label in found["labels"])
    report.step(
        18,
        name="A test image (use --photo FILE for your own)" if photo is None else photo.name,
        names=", ".join(f"{count} × {name}" for name, count in counts.items()) or "no detection",
        image=visualize.draw(image, found, setup.class_names, scale=visualize.fitting_scale(image)),
    )
    return dict(counts)


def _shown(dataset, model):
    """Some evenly spaced images of a data set: list of (position, sample, detections)."""
    places = [int(i) for i in np.unique(np.linspace(0, len(dataset) - 1, SHOWN).astype(int))]
    samples = [dataset[i] for i in places]
    return list(zip(places, samples, model.detect([sample["image"] for sample in samples]), strict=True))


def _number(figure):
    """NaN for None, so that a missing figure can be formatted."""
    return float("nan") if figure is None else figure
