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
CRITERIA = ((0.5, 0.5), (0.7, 0.3))  # IoU from which a candidate is positive, and below which it is negative
MOST_POSITIVE = int(experiments.SAMPLED["size"] * experiments.SAMPLED["positive_fraction"])
RATES = ("precision", "recall", "f1")
PART = "part of the training"


def run(report, setup):
    """Trains the networks, fills steps 8 to 18 of a `page.Report`, and returns the figures for JSON."""
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
    report.values |= {"model": joint.model, "joint": joint, "figures": figures}
    step_8(report, arms, figures["transfer"])
    step_9(report, setup)
    figures["proposal_recall"] = step_10(report, setup, joint.model)
    step_11(report, joint, alternating, figures)
    figures["random_positions"] = roi.step_12(report, setup, joint.model)
    report.step(13, anchors=len(joint.stage.anchors(setup.canvas_b)))
    step_14(report, setup, joint)
    rates, figures["regions"] = step_15(report, setup, joint)
    figures["joint"] |= rates
    figures["alternating"]["test"] = experiments.rates(experiments.reports(alternating, setup.test))
    figures["losses"] = step_16(report, setup, joint)
    figures["false_positive"] = step_17(report, setup, joint.model)
    figures["photo"] = step_18(report, setup, joint.model)
    return figures


def _figures(run, setup):
    """Scores of a training, recall of its 100 best proposals, and seconds by phase."""
    recall = rounded(evaluation.proposal_recall(run.stage, setup.test, limits=(100,))[100])
    phases = {phase["phase"]: round(phase["seconds"], 1) for phase in run.phases}
    return {**experiments.compare(run, setup.test), "proposal_recall": recall, "phases": phases}


def _arm(arm, joint, setup):
    """Scores of an arm of step 8, and the largest difference of its backbone's weights from the joint training's."""
    pairs = zip(arm.model.backbone.get_weights(), joint.model.backbone.get_weights(), strict=True)
    distance = max(float(np.abs(now - trained).max()) for now, trained in pairs)
    return {**experiments.compare(arm, setup.test), "backbone_distance": distance}


def step_8(report, arms, figures):
    """Frozen, fine-tuned and new backbones."""
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "f1", "seconds", "backbone_distance")
    accuracy = {name: _number(figures[name]["bbox_AP50"]) for name in figures}
    report.step(
        8,
        arms=Table(["backbone", *names], [[arm, *(figures[arm][name] for name in names)] for arm in figures]),
        losses=plots.curves({"": {arm.name: arm.history["loss"] for arm in arms}}, ylabel="total loss"),
        trained_for=" or ".join(map(str, sorted({arm.steps for arm in arms}))),
        measured=", ".join(f"{arm.name} {accuracy[arm.name]:.3f} ({arm.seconds:.0f} s)" for arm in arms),
        gap=accuracy["trained, fine-tuned"] - accuracy["trained, frozen"],
    )


def step_9(report, setup):
    """Images of 800 × 1066 pixels centred in 800 × 1088, with boxes and masks."""
    samples = [setup.test[i] for i in range(min(3, len(setup.test)))]
    centred = [CENTRED(sample, np.random.default_rng(0)) for sample in samples]
    images = [visualize.draw(sample["image"], sample, setup.class_names) for sample in centred]
    header = ["size before", "scale y", "scale x", "mean", "deviation", "largest border value", "box to mask, pixels"]
    rows = [_input_row(*pair) for pair in zip(samples, centred, strict=True)]
    report.step(9, images=visualize.grid(images, columns=1), inputs=Table(header, rows))


def _input_row(before, after):
    """Numbers that show that image, boxes and masks are transformed alike."""
    mean, deviation = (np.array(v) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    pixels = (after["image"] - mean) / deviation
    (height, width), left = CENTRED.size, int(CENTRED.offset[1])
    inside = pixels[:, left : left + width]
    border = np.concatenate([pixels[:, :left], pixels[:, left + width :]], axis=1)
    rows, columns = before["image"].shape[:2]
    distance = np.abs(after["boxes"] - mask_boxes(np.asarray(after["masks"])))
    values = [inside.mean(), inside.std(), np.abs(border).max(), distance.max() if len(distance) else None]
    return [f"{rows} × {columns}", height / rows, width / columns, *values]


def step_10(report, setup, model):
    """ResNet-50-FPN at full size, untrained; proposals of the trained network and their recall, which is returned."""
    stage = FirstStage(model, max_proposals=LIMITS[-1])
    recall = rounded(evaluation.proposal_recall(stage, setup.test, limits=LIMITS))
    panels = []
    for sample in (setup.test[i] for i in range(min(2, len(setup.test)))):
        boxes = stage.detect(sample["image"])["boxes"]
        groups = [[("proposal", boxes[:count], visualize.YELLOW, 1)] for count in LIMITS[1:]]
        panels += [visualize.outline(sample["image"], group) for group in groups]
    report.step(
        10,
        weights=model.count_params(),
        sides=", ".join(f"{side[0]:g}" for side in model.rpn.anchors.sizes),
        recall=Table([f"best {count}" for count in recall], [list(recall.values())]),
        best=visualize.grid(panels, columns=3),
        **_full_size(setup),
    )
    return recall


def _full_size(setup):
    """Fields of step 10 about the network of the papers at 800 × 1088, from a forward pass."""
    model = MaskRCNN(len(setup.class_names), backbone="resnet50", neck="fpn", seed=setup.arguments.seed)
    image = CENTRED(setup.test[0], np.random.default_rng(0))["image"]
    inputs = {"images": image[None], "sizes": np.array([CENTRED.canvas], "float32")}
    start = time.perf_counter()
    found = FirstStage(model, model.rpn.proposals.post_nms)(inputs)
    seconds = time.perf_counter() - start
    each, rows = model.rpn.anchors.per_location(), []
    sides = [size[0] for size in model.rpn.anchors.level_sizes(model.strides)]
    for (name, level), side in zip(model.features(**inputs).items(), sides, strict=True):
        _, height, width, channels = level.shape
        rows.append([name, f"{height} × {width} × {channels}", side, each, height * width * each])
    return {
        "full_weights": model.count_params(),
        "levels": Table(["level", "features", "anchor side", "anchors per location", "anchors"], rows),
        "strides": ", ".join(f"{name} ({shape})" for name, shape, *_ in rows),
        "each": each,
        "anchors": found["logits"].shape[1],
        "kept": int(ops.sum(ops.cast(found["valid"], "int32"))),
        "seconds": seconds,
    }


def step_11(report, joint, alternating, figures):
    """Joint training and alternating training."""
    runs = (joint, alternating)
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "f1", "threshold", "proposal_recall", "seconds")
    accuracy = {run.name: _number(figures[run.name]["segm_AP"]) for run in runs}
    phases = [
        [p["phase"], p["steps"], p["seconds"], *np.take(p["history"]["loss"], [0, -1])] for p in alternating.phases
    ]
    schemes = [[run.name, run.steps, *(figures[run.name][name] for name in names)] for run in runs]
    report.step(
        11,
        schemes=Table(["", "steps", *names], schemes),
        bars=plots.bars({"mask AP": accuracy, "seconds": {run.name: run.seconds for run in runs}}),
        phases=Table(["phase", "steps", "seconds", "first loss", "last loss"], phases),
        losses=[_curves(phase) for phase in (*joint.phases, *alternating.phases)],
        accuracy=accuracy,
        gap=accuracy["joint"] - accuracy["alternating"],
    )


def _curves(phase):
    """The losses of a phase that are not zero throughout."""
    columns = {name: values for name, values in phase["history"].items() if name.endswith("loss") and any(values)}
    return plots.curves({phase["phase"]: columns}, PART)


def step_14(report, setup, trained):
    """The box head: shapes, candidates under two rules, losses."""
    history, criteria = trained.history, []
    for rule in CRITERIA:
        counts = evaluation.candidate_counts(trained.stage, setup.train, *rule, limit=experiments.SCORED)
        criteria.append([*rule, *counts.mean(axis=0), np.minimum(counts[:, 0], MOST_POSITIVE).mean()])
    header = ["positive from IoU", "negative below IoU", "positive", "negative", "ignored", "positives in the sample"]
    foreground, background = (history[kind][-1] for kind in ("foreground", "background"))
    report.step(
        14,
        features=trained.model.fpn_channels * trained.model.box_head.stage.pool**2,
        criteria=Table(header, criteria),
        losses=plots.curves({"": {name: history[name] for name in ("class_loss", "box_loss")}}, PART),
        foreground=foreground,
        background=background,
        ratio=background / max(foreground, 1e-9),
    )


def step_15(report, setup, trained):
    """Classes of proposals, detections after NMS, refinement; returns rates of detections, figures of the proposals."""
    found = evaluation.region_report(trained.stage, setup.test)
    parts = {"test": setup.test, "train": experiments.some(setup.train)}
    reports = {part: experiments.reports(trained, dataset) for part, dataset in parts.items()}
    shown = _shown(setup.test, trained.model)
    refined = [visualize.outline(sample["image"], _refinement(boxes)) for _, sample, boxes in shown]
    half = cases.half_covered(trained.model, setup.test)
    rates = experiments.rates({"": found})[""]
    f1 = {name: _number(values["f1"]) for name, values in rates.items()}
    report.step(
        15,
        found=found,
        regions=found["confusion"].sum(),
        rates=_class_table(found, setup.class_names),
        confusion=plots.confusion(found["confusion"], found["names"]),
        **{part: _rate_table(pair) for part, pair in reports.items()},
        refined=visualize.grid(refined, columns=2),
        half=half,
        half_covered=half and visualize.outline(half.sample["image"], _refinement(half._asdict())),
        f1=", ".join(f"{name} {value:.2f}" for name, value in f1.items()),
    )
    regions = {"accuracy": rounded(found["accuracy"]), "classes": rates}
    return {part: experiments.rates(pair) for part, pair in reports.items()}, regions


def _class_table(report, class_names):
    """Rates of the classification of proposals next to the student's F1: of the same classes, else by position."""
    order = ["background", *class_names]
    others = order if set(order) == set(REPORTED) else [*REPORTED, *[None] * len(order)]
    pairs = zip(order, others, strict=False)
    rows = [[name, *(report["classes"][name][k] for k in RATES), other, REPORTED.get(other)] for name, other in pairs]
    return Table(["class", *RATES, "class in the student's report", "f1 there"], rows)


def _rate_table(reports):
    """Precision, recall and F1 of boxes and masks by class and overall."""
    each = [{**report["classes"], "all": report["overall"]} for report in reports.values()]
    header = ["class", *(f"{rate}, {kind}" for kind in ("boxes", "masks") for rate in RATES)]
    return Table(header, [[name, *(rates[name][k] for rates in each for k in RATES)] for name in each[0]])


def _refinement(found):
    """Groups for `visualize.outline` of proposals, the boxes refined from them, and, in a `cases.Half`, the object."""
    names = {"truth": ("object", visualize.WHITE), "proposals": ("proposal", visualize.YELLOW)}
    names["boxes"] = ("refined box", visualize.CYAN)
    return [(name, found[key], tint, 2) for key, (name, tint) in names.items() if key in found]


def step_16(report, setup, trained):
    """The mask head: its output and all losses; returns the first and last value of each loss."""
    losses = {name: trained.history[name] for name in ("loss", *trained.model.loss_names)}
    weights = [f"{experiments.LOSS_WEIGHTS.get(name, 1):g} · {name}" for name in trained.model.loss_names]
    curves, masks = plots.curves({"": losses}, PART), _raw_masks(setup, trained.model)
    report.step(16, side=2 * trained.model.mask_head.pool, weights=" + ".join(weights), losses=curves, masks=masks)
    return {name: rounded([values[0], values[-1]]) for name, values in losses.items()}


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
    case, drawn, figures = cases.false_positive(model, setup.test), None, None
    if case is not None:
        name, scores = setup.class_names[case.label - 1], {"score": case.score, "overlap": case.overlap}
        figures = {"class": name, **rounded(scores)}
        groups = [("object", case.sample["boxes"], visualize.WHITE, 1), ("prediction", case.box, visualize.CYAN, 2)]
        drawn = visualize.outline(case.sample["image"], groups)
    places = ", ".join(str(i) for i, _, _ in shown)
    pairs = [visualize.side_by_side(s["image"], s, found, setup.class_names) for _, s, found in shown]
    report.step(17, places=places, pairs=pairs, case=figures, false_positive=drawn)
    return figures


def step_18(report, setup, model):
    """An image of the user's own, or a test image; returns the number of objects by class."""
    photo = setup.arguments.photo
    image = setup.test[0]["image"] if photo is None else data.read_image(photo)
    found = model.detect(image)
    counts = collections.Counter(setup.class_names[label - 1] for label in found["labels"])
    names = ", ".join(f"{count} × {name}" for name, count in counts.items()) or "no detection"
    name = "A test image (use --photo FILE for your own)" if photo is None else photo.name
    drawn = visualize.draw(image, found, setup.class_names, scale=visualize.fitting_scale(image))
    report.step(18, name=name, names=names, image=drawn)
    return dict(counts)


def _shown(dataset, model):
    """Some evenly spaced images of a data set: list of (position, sample, detections)."""
    places = [int(i) for i in np.unique(np.linspace(0, len(dataset) - 1, SHOWN).astype(int))]
    samples = [dataset[i] for i in places]
    return list(zip(places, samples, model.detect([sample["image"] for sample in samples]), strict=True))


def _number(figure):
    """NaN for None, so that a missing figure can be formatted."""
    return float("nan") if figure is None else figure
