"""Steps 14 to 18: what the heads of the trained network learnt, and what it finds."""

import collections

import numpy as np
from keras import ops

from cis680_report import answers, drawings, experiments, plots
from keras_maskrcnn import data, evaluation, visualize
from keras_maskrcnn.evaluation.report import overlap_matrix
from keras_maskrcnn.ops import boxes as box_ops

# The student's report: F1 of proposals by class.
REPORTED = {"background": 0.89, "vehicle": 0.71, "person": 0.74, "animal": 0.79}
CRITERIA = ((0.5, 0.5), (0.7, 0.3))
FALSE_POSITIVE = 0.3  # a prediction that overlaps no object by this IoU shows something that is not in the ground truth
SHOWN = 6

# A detection whose proposal covered about half of the object.
Half = collections.namedtuple("Half", "sample proposal box truth covered before after label score")
Stranger = collections.namedtuple("Stranger", "sample box label score overlap")


# Step 14: the box head ------------------------------------------------------------------------------------------------


def step_14(page, setup, trained):
    """The box head: shapes, sampling, curves, and the class of every proposal.

    Returns:
        dict: `accuracy` of the classes of the test set's proposals, and precision, recall and F1 by class.
    """
    page.step(14, "The box head")
    model, bins, classes = trained.model, trained.model.box_stage.pool, len(setup.class_names)
    page.text(
        f"A region of P = {bins} becomes a vector of C·P² = {model.fpn_channels}·{bins**2} = "
        f"{model.fpn_channels * bins**2:,} numbers (256·49 = 12,544 in the network of full size). Two layers of "
        f"{model.box_stage.width} units follow (1024 there), then {classes + 1} class scores with background first, "
        f"softmax, and four deltas for each of the {classes + 1}, relative to the proposal; those of background are "
        f"never used. Up to {experiments.SAMPLED['size']} regions a picture are sampled, at most a quarter of them "
        "positive, which makes background to objects 3:1 wherever there are enough positives."
    )
    page.table(
        ["positive from IoU", "negative below IoU", "positive", "negative", "left out", "positives in the sample"],
        _criteria(setup, trained.stage),
        "Candidates a training picture (the best 100 proposals and the objects' own boxes), on average over up to "
        f"{experiments.FROM_TRAINING} pictures: the assignment's rule without a grey zone, and that of the RPN as an "
        "option.",
    )
    page.figure(
        plots.curves(trained.history, {"class_loss": "class", "box_loss": "box"}, xlabel="part of the training"),
        "Losses of the box head over the parts of the joint training, unweighted.",
    )
    sampled = (trained.history[kind][-1] for kind in ("foreground", "background"))
    page.answer(answers.QUESTIONS[14], answers.box_head(classes, *sampled))


def _criteria(setup, stage):
    """Rows: high, low, positives, negatives and ignored a picture, and the positives that are sampled."""
    counts = {rule: [] for rule in CRITERIA}
    for sample, found in evaluation.predictions(stage, experiments.some(setup.train)):
        sample = {**sample, **{name: sample[name][~sample["crowd"]] for name in ("boxes", "labels", "crowd")}}
        own = {"boxes": sample["boxes"], "labels": sample["labels"]}
        candidates = {name: np.concatenate([own[name], found[name]]) for name in own}
        best = overlap_matrix(sample, candidates, "bbox").max(axis=1, initial=0.0)
        for (high, low), found_counts in counts.items():
            positive, negative = int((best >= high).sum()), int((best < low).sum())
            found_counts.append((positive, negative, len(best) - positive - negative, min(positive, _most_positive())))
    return [[*rule, *map(float, np.mean(found, axis=0))] for rule, found in counts.items()]


def _most_positive():
    return int(experiments.SAMPLED["size"] * experiments.SAMPLED["positive_fraction"])


def _region_table(page, setup, report):
    """Precision, recall and F1 of proposals beside the student's F1, and the confusion matrix."""
    order = ["background", *setup.class_names]
    same = set(order) == set(REPORTED)
    beside = order if same else [*REPORTED, *[None] * len(order)]
    rows = [
        [name, *_rates(report["classes"][name]), other, REPORTED.get(other)]
        for name, other in zip(order, beside, strict=False)
    ]
    note = "" if same else " The classes are others than the student's and stand beside them by position only."
    page.table(
        ["class", "precision", "recall", "F1", "class in the student's report", "F1 there"],
        rows,
        f"The best 100 proposals of each test picture, as the box head sees them before its NMS. Their true class is "
        "that of the object that they overlap most, if by IoU 0.5. "
        f"{report['accuracy']:.3f} of {int(report['confusion'].sum()):,} are right.{note}",
    )
    page.figure(plots.confusion(report["confusion"], report["names"]), "Proposals by true and by predicted class.")


# Step 15: after post-processing ---------------------------------------------------------------------------------------


def step_15(page, setup, trained):
    """Precision and recall of what is left after NMS, and what refinement does to proposals.

    Args:
        page: `page.Page`.
        setup: `setup.Setup`.
        trained: `experiments.Trained`.

    Returns:
        (figures, regions): dict by part of the data ("test", "train") of dicts by kind ("bbox", "segm") of rates by
        class; dict of the `accuracy` of the classes of the test set's proposals and of their rates by class.
    """
    page.step(15, "Post-processing, and what refinement is good for")
    page.text(
        "Boxes are cut to the picture and those without extent go. Of two boxes of a class that overlap by IoU 0.5 or "
        "more the one of lower score goes, and the best 100 of a picture stay. For the tables a detection counts from "
        f"a score of {trained.threshold:g}: of many thresholds the one that gives the highest F1 on training pictures."
    )
    report = evaluation.region_report(trained.stage, setup.test)
    _region_table(page, setup, report)
    parts = {"test": setup.test, "train": experiments.some(setup.train)}
    figures = {part: _rates_table(page, part, dataset, trained) for part, dataset in parts.items()}
    pictures = [
        drawings.refinement(sample["image"], found["proposals"], found["boxes"])
        for _, sample, found in _shown(setup.test, trained.model)
    ]
    page.picture(visualize.grid(pictures, columns=2), "Proposals (yellow) and the boxes refined from them (cyan).")
    _half_covered(page, setup, trained.model)
    regions = {"accuracy": experiments.number(report["accuracy"]), "classes": experiments.by_class(report)}
    f1 = {name: rates["f1"] for name, rates in regions["classes"].items()}
    page.answer(answers.QUESTIONS[15], answers.post_processing(f1, REPORTED))
    return figures, regions


def _rates_table(page, part, dataset, trained):
    reports = experiments.reports(trained, dataset)
    names = [*reports["bbox"]["classes"], "all"]
    each = {kind: {**report["classes"], "all": report["overall"]} for kind, report in reports.items()}
    rows = [[name, *_rates(each["bbox"][name]), *_rates(each["segm"][name])] for name in names]
    header = [
        "class",
        *(f"{figure}, {kind}" for kind in ("boxes", "masks") for figure in ("precision", "recall", "F1")),
    ]
    where = "test pictures" if part == "test" else f"training pictures ({len(dataset)} of them): what it has learnt"
    page.table(header, rows, f"Detections matched with objects at IoU 0.5, {where}.")
    return {kind: experiments.by_class(report) for kind, report in reports.items()}


def _half_covered(page, setup, model):
    case = half_covered(model, setup.test)
    if case is None:
        page.text(
            "No detection of the test set came from a proposal that held 35 to 65 % of an object and reached an IoU "
            "above 0.7."
        )
        return
    page.picture(
        drawings.refinement(case.sample["image"], case.proposal, case.box, case.truth),
        f"A proposal (yellow) that covers {case.covered:.0%} of an object (white, "
        f"{setup.class_names[case.label - 1]}): IoU {case.before:.2f}. The second stage made a box of it (cyan) of IoU "
        f"{case.after:.2f}, score {case.score:.2f}.",
    )


def half_covered(model, dataset):
    """Of the detections of IoU above 0.7 with their object the one whose proposal held nearest to half of it, or None.

    Half of it is 35 to 65 % of its area.
    """
    cases = []
    for sample, found in evaluation.predictions(model, dataset, score_threshold=0.5):
        cases += _refined(sample, found)
    return min(cases, key=lambda case: abs(case.covered - 0.5), default=None)


def _refined(sample, found):
    """The detection of a picture whose proposal held nearest to half of the object: list of one or no `Half`."""
    after = overlap_matrix(sample, found, "bbox") * (found["labels"][:, None] == sample["labels"][None])
    before = overlap_matrix(sample, {**found, "boxes": found["proposals"]}, "bbox")
    covered = ops.convert_to_numpy(box_ops.covered(sample["boxes"], found["proposals"])).T
    good = (after > 0.7) & (np.abs(covered - 0.5) <= 0.15) & ~np.asarray(sample["crowd"], bool)
    if not good.any():
        return []
    row, column = np.unravel_index(np.where(good, np.abs(covered - 0.5), np.inf).argmin(), good.shape)
    boxes = found["proposals"][row], found["boxes"][row], sample["boxes"][column]
    numbers = *(float(part[row, column]) for part in (covered, before, after)), int(found["labels"][row])
    return [Half(sample, *boxes, *numbers, float(found["scores"][row]))]


# Steps 16 to 18: masks, pictures --------------------------------------------------------------------------------------


def step_16(page, setup, trained):
    """The mask head: what it says about its regions, and the curves of every loss."""
    page.step(16, "The mask head")
    size = 2 * trained.model.mask_stage.pool
    weights = {_name(loss): experiments.LOSS_WEIGHTS.get(loss, 1.0) for loss in trained.model.LOSSES}
    page.text(f"Regions of P = {size // 2} become masks of {size} × {size} cells, one a class.")
    page.answer(answers.QUESTIONS[16], answers.masks(len(setup.class_names), size, weights))
    names = ("loss", *trained.model.LOSSES)
    page.figure(
        plots.curves(trained.history, {name: name for name in names}, xlabel="part of the training"),
        "All losses of the joint training. The total is weighted as above, each loss stands unweighted.",
    )
    page.picture(
        _raw_masks(setup, trained.model),
        f"What leaves the mask head: probabilities of {size} × {size} cells, for the surest detections of some test "
        "pictures.",
    )
    return {name: [experiments.number(trained.history[name][part]) for part in (0, -1)] for name in names}


def _raw_masks(setup, model, count=16, enlarge=4):
    """The mask head's own output for the surest detections of a few test pictures: uint8 picture."""
    dataset = experiments.some(setup.test, 8)
    (x, _), *_ = data.batches(dataset, setup.canvas_b, len(dataset), mask_size=28)
    found = model.predict_on_batch({name: np.asarray(x[name]) for name in ("images", "sizes")})
    surest = np.argsort(-np.where(found["valid"], found["scores"], -1.0), axis=None)[:count]
    masks = found["masks"].reshape(-1, *found["masks"].shape[2:])[surest]
    cells = np.rint(masks * 255).astype(np.uint8)
    return visualize.grid(list(cells.repeat(enlarge, axis=1).repeat(enlarge, axis=2)), columns=count // 2)


def step_17(page, setup, trained):
    """Boxes, masks and scores on test pictures, and something that is not in the ground truth.

    Returns:
        dict of the false positive's `class`, `score` and `overlap`, or None.
    """
    page.step(17, "What it finds in test pictures")
    for i, sample, found in _shown(setup.test, trained.model):
        pair = visualize.side_by_side(sample["image"], sample, found, setup.class_names)
        page.picture(pair, f"Test picture {i}: {len(sample['labels'])} objects, {len(found['labels'])} found.")
    case = stranger(trained.model, setup.test)
    if case is None:
        page.text(f"Every prediction on the test set overlaps some object by IoU {FALSE_POSITIVE} or more.")
        return None
    name = setup.class_names[case.label - 1]
    page.picture(
        drawings.outlined(
            case.sample["image"],
            [("object", case.sample["boxes"], drawings.WHITE, 1), ("prediction", case.box, drawings.CYAN, 2)],
        ),
        f"The surest prediction (cyan) that has no ground truth (white): {name}, probability {case.score:.3f}. It "
        f"overlaps the nearest object by IoU {case.overlap:.2f}.",
    )
    return {"class": name, "score": experiments.number(case.score), "overlap": experiments.number(case.overlap)}


def stranger(model, dataset):
    """The prediction of highest score that overlaps no object by `FALSE_POSITIVE`, or None."""
    surest = None
    for sample, found in evaluation.predictions(model, dataset, score_threshold=model.detection.score_threshold):
        best = overlap_matrix(sample, found, "bbox").max(axis=1, initial=0.0)
        alone = np.flatnonzero(best < FALSE_POSITIVE)
        if len(alone) and (surest is None or found["scores"][alone[0]] > surest.score):
            row = alone[0]  # scores descend
            label, score = int(found["labels"][row]), float(found["scores"][row])
            surest = Stranger(sample, found["boxes"][row], label, score, float(best[row]))
    return surest


def step_18(page, setup, trained):
    """One's own picture, or how to give one."""
    page.step(18, "One's own picture")
    photo = setup.arguments.photo
    if photo is None:
        page.text("Run the command with --photo FILE to see your own picture here. In its place stands a test picture.")
        image, name = setup.test[0]["image"], "a test picture"
    else:
        image, name = data.read_image(photo), photo.name
    found = trained.model.detect(image)
    picture = visualize.draw(image, found, setup.class_names, scale=visualize.fitting_scale(image))
    counts = collections.Counter(setup.class_names[label - 1] for label in found["labels"])
    names = ", ".join(f"{count} × {name}" for name, count in counts.items()) or "nothing that scores 0.5"
    page.picture(picture, f"{name}: {names}.")
    return dict(counts)


def _rates(rates):
    return [rates["precision"], rates["recall"], rates["f1"]]


def _name(loss):
    """A loss as a person calls it: "rpn_box_loss" is "rpn box"."""
    return loss.removesuffix("_loss").replace("_", " ")


def _shown(dataset, model):
    """Some pictures spread evenly over a data set: list of (position, sample, what the model finds)."""
    places = [int(i) for i in np.unique(np.linspace(0, len(dataset) - 1, SHOWN).astype(int))]
    samples = [dataset[i] for i in places]
    return list(zip(places, samples, model.detect([sample["image"] for sample in samples]), strict=True))
