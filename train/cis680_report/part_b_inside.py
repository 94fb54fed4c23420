"""Steps 9, 10 and 12: what goes into the network, what it is made of, and how regions are cut from its features."""

import time

import numpy as np
from keras import ops

from cis680_report import answers, drawings, experiments
from keras_maskrcnn import MaskRCNN, data, evaluation, visualize
from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.layers.roi_align import RoIAlign
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.ops import images as image_ops
from keras_maskrcnn.ops.roi import assign_levels

CENTRED = data.Centred(size=(800, 1066), canvas=(800, 1088))
BINS = (3, 7, 14, 28)
LIMITS = (1, 10, 100, 1000)


# Step 9: the pictures -------------------------------------------------------------------------------------------------


def step_9(page, setup):
    """Pictures of 800 × 1066 pixels, normalised, in the middle of 800 × 1088; boxes and masks with them."""
    page.step(9, "Pictures of 800 × 1066, centred in 800 × 1088")
    page.text(
        "The height and the width of a picture are scaled by factors of their own, so that it becomes 800 × 1066 "
        "pixels. Eleven columns on either side make 1088, a multiple of 32. Boxes are scaled and moved by the same "
        "numbers, masks are resampled. The columns have the colour of ImageNet's mean, which the model's normalisation "
        "turns into zeros: the table shows how near to zero.\n\n"
        f"The runs below train at {setup.canvas_b[0]} × {setup.canvas_b[1]} pixels to be done in minutes. There the "
        "picture keeps its aspect and lies at the top left, which is the data pipeline's usual way."
    )
    samples = [setup.test[i] for i in range(min(3, len(setup.test)))]
    centred = [CENTRED(sample, np.random.default_rng(0)) for sample in samples]
    pictures = [visualize.draw(sample["image"], sample, setup.class_names) for sample in centred]
    page.picture(visualize.grid(pictures, columns=1), "Test pictures at 800 × 1088 with their boxes and masks.")
    rows = [_input_row(before, after) for before, after in zip(samples, centred, strict=True)]
    page.table(list(rows[0]), [list(row.values()) for row in rows], "What became of these pictures.")


def _input_row(before, after):
    """Numbers that show that picture, boxes and masks moved together."""
    pixels = _normalised(after["image"])
    (height, width), left = CENTRED.size, CENTRED.offset[1]
    inside = pixels[:, left : left + width]
    border = np.concatenate([pixels[:, :left], pixels[:, left + width :]], axis=1)
    rows, columns = before["image"].shape[:2]
    return {
        "size before": f"{rows} × {columns}",
        "factor down": height / rows,
        "factor across": width / columns,
        "columns left": int(left),
        "columns right": int(CENTRED.canvas[1] - width - left),
        "mean": float(inside.mean()),
        "deviation": float(inside.std()),
        "largest value in the border": float(np.abs(border).max()),
        "box against its mask, pixels": _box_error(after),
    }


def _normalised(image):
    """Pixels as the backbone sees them: ImageNet's mean and deviation."""
    mean, deviation = (np.array(v) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    return (image - mean) / deviation


def _box_error(sample):
    """Largest distance between an edge of a box and that of the box around its mask; NaN without objects."""
    if not len(sample["boxes"]):
        return float("nan")
    return float(np.abs(sample["boxes"] - mask_boxes(np.asarray(sample["masks"]))).max())


# Step 10: the architecture --------------------------------------------------------------------------------------------


def step_10(page, setup, trained):
    """ResNet-50-FPN at full size, untrained; then a thousand proposals of the trained network.

    Returns:
        dict: recall of the trained network's proposals on the test set, by their number.
    """
    page.step(10, "The network: ResNet-50-FPN, RPN, 1000 proposals")
    _full_size(page, setup)
    page.heading("Proposals of the trained network")
    page.text(_small_network(setup, trained.model))
    stage = FirstStage(trained.model, max_proposals=max(LIMITS))
    recall = evaluation.proposal_recall(stage, setup.test, limits=LIMITS)
    header = [f"best {most}" for most in LIMITS]
    page.table(
        header, [list(recall.values())], "Share of the test objects that a proposal overlaps by IoU 0.5 or more."
    )
    images = [setup.test[i]["image"] for i in range(min(2, len(setup.test)))]
    rows = zip(images, stage.detect(images), strict=True)
    panels = [_with_boxes(image, found["boxes"][:most]) for image, found in rows for most in (10, 100, 1000)]
    page.picture(
        visualize.grid(panels, columns=3),
        "The best 10, the best 100 and all of up to 1000 proposals in test pictures, in their own pixels.",
    )
    return {str(most): experiments.number(share) for most, share in recall.items()}


def _full_size(page, setup):
    """One forward pass of the papers' network at 800 × 1088, and what comes out."""
    model = MaskRCNN(len(setup.class_names), backbone="resnet50", neck="fpn", seed=setup.arguments.seed)
    sample = CENTRED(setup.test[0], np.random.default_rng(0))
    images, sizes = sample["image"][None], np.array([CENTRED.canvas], "float32")
    start = time.perf_counter()
    features = model.features(images, sizes)
    logits, deltas = model.rpn(list(features.values()))
    anchors = model.anchors.boxes(CENTRED.canvas, model.strides)
    proposals, valid = model.propose(logits, deltas, anchors, sizes)
    seconds = time.perf_counter() - start
    rows = _level_rows(model, features, anchors)
    page.table(
        ["level", "stride", "features", "anchor side", "anchors a location", "anchors"],
        [*rows, ["all", "", "", "", "", sum(row[-1] for row in rows)]],
        f"The pyramid of {model.count_params():,} weights in all at {CENTRED.canvas[0]} × {CENTRED.canvas[1]} pixels; "
        "three aspect ratios, 1:2, 1:1 and 2:1, at each location.",
    )
    kept = ops.convert_to_numpy(proposals)[0][ops.convert_to_numpy(valid)[0]]
    page.text(
        [
            "objectness: [1, anchors], a logit each. Its sigmoid is the probability that the anchor holds an object.",
            "deltas: [1, anchors, 4], the shift and the logarithm of the scale from the anchor to the box.",
            f"proposals: [1, {len(kept)}, 4], decoded, cut to the picture, after NMS at IoU 0.7, in pixels of the "
            f"picture: x from {kept[:, 0].min():.1f} to {kept[:, 2].max():.1f}, y from {kept[:, 1].min():.1f} to "
            f"{kept[:, 3].max():.1f}.",
            f"This network has learnt nothing yet: its proposals are as good as drawn by lot. All this took "
            f"{seconds:.1f} s.",
        ]
    )
    each, count = model.anchors.per_location(), sum(map(len, anchors))
    page.answer(answers.QUESTIONS[10], answers.pyramid(model.strides, CENTRED.canvas, each, count, len(kept)))


def _level_rows(model, features, anchors):
    each = model.anchors.per_location()
    sides = model.anchors.level_sizes(model.strides)
    levels = zip(features.items(), model.strides, sides, anchors, strict=True)
    return [
        [name, stride, " × ".join(map(str, tensor.shape[1:])), side[0], each, len(boxes)]
        for (name, tensor), stride, side, boxes in levels
    ]


def _small_network(setup, model):
    """A sentence on what was trained in place of the network of full size."""
    return (
        f"What is trained here is smaller: {setup.arguments.backbone} with a stem of {setup.arguments.width} channels "
        f"and {experiments.norm(setup)} normalisation, a pyramid of {model.fpn_channels} channels, "
        f"{model.count_params():,} weights, pictures of {setup.canvas_b[0]} × {setup.canvas_b[1]} pixels, anchors with "
        f"sides of {', '.join(f'{side[0]:g}' for side in model.anchors.sizes)} pixels. Every number is an argument of "
        "the same class. It trains on up to "
        f"{experiments.PROPOSALS['training_post_nms']} proposals a picture and gives up to "
        f"{experiments.PROPOSALS['post_nms']} when it is asked."
    )


def _busiest(dataset, among=30):
    """Of the first pictures the one with most objects."""
    samples = [dataset[i] for i in range(min(among, len(dataset)))]
    return max(samples, key=lambda sample: len(sample["labels"]))


def _with_boxes(image, boxes):
    return drawings.outlined(image, [("proposal", boxes, drawings.YELLOW, 1)])


# Step 12: RoIAlign ----------------------------------------------------------------------------------------------------


def step_12(page, setup, trained):
    """Regions cut with several P, at regular and at random places, from one level and from the pyramid.

    Returns:
        dict: mean difference of random from regular samples, by P.
    """
    page.step(12, "RoIAlign")
    page.text(
        "Each region is divided into P × P bins, and a bin is the mean of four bilinear samples (two by two). Regular "
        "samples lie in the middles of the bin's quarters; random ones anywhere in the bin, drawn anew at every "
        "training step. Outside training the regular ones are taken always, so that answers do not change."
    )
    sample = _busiest(setup.test)
    canvas, boxes, features = _on_canvas(trained.model, sample)
    page.picture(
        visualize.grid(_places(sample["image"], sample["boxes"][0]), columns=2),
        "A test object with its 7 × 7 bins: regular places of the samples, and random ones.",
    )
    page.picture(_crops(canvas, boxes[0]), "Objects cut from the picture's own pixels with several P.")
    page.picture(
        drawings.pyramid({name: ops.convert_to_numpy(level)[0] for name, level in features.items()}),
        "The levels of the trained pyramid that regions are cut from; three principal components as colours.",
    )
    page.picture(
        _feature_crops(features, boxes[:, :1]),
        "The first object cut from the pyramid: mean of the channels' absolute values.",
    )
    rows = [_difference(features, boxes, bins) for bins in BINS]
    page.table(
        ["P", "shape of a region", "spread of the values", "random against regular", "one level against the pyramid"],
        rows,
        "Mean absolute differences over the objects of the picture. One level is the option level=4: all from P4.",
    )
    _levels_table(page, setup)
    page.answer(answers.QUESTIONS[12], answers.roi_align(trained.model.box_stage.pool, 16))
    return {str(row[0]): experiments.number(row[3]) for row in rows}


def _on_canvas(model, sample):
    """Picture on the model's canvas float32 [1, H, W, 3], boxes in its pixels [1, n, 4], and its features."""
    size, (_, fitted) = sample["image"].shape[:2], model.place(sample["image"].shape[:2])
    canvas = np.zeros((1, *model.image_size, 3), "float32")
    canvas[0, : fitted[0], : fitted[1]] = ops.convert_to_numpy(image_ops.fit(sample["image"], fitted, True))
    boxes = sample["boxes"] * np.array([fitted[1] / size[1], fitted[0] / size[0]] * 2, "float32")
    features = model.features(canvas, np.array([fitted], "float32"))
    return canvas, boxes[None], {level: features[level] for level in model.region_levels}


def _places(image, box, bins=7):
    """A box with its bins and the places of the samples, regular and random: two pictures."""
    points = drawings.sample_points(box, bins), drawings.sample_points(box, bins, rng=np.random.default_rng(0))
    pictures = [drawings.sampled_box(image, box, each, bins) for each in points]
    return [drawings.titled(picture, name) for picture, name in zip(pictures, ("regular", "random"), strict=True)]


def _crops(canvas, boxes, most=3):
    """Boxes cut from pixels, a row a box: every P at regular places, and one at random ones."""
    kinds = [*((bins, "regular") for bins in BINS), (7, "random")]
    rows = [[_pixels(canvas, box, *kind) for kind in kinds] for box in boxes[:most]]
    return drawings.crops(rows, [[f"P = {bins}, {kind}" for bins, kind in kinds]] * len(rows))


def _pixels(canvas, box, bins, positions):
    """One box cut from a picture: uint8 [P, P, 3]."""
    align = RoIAlign(bins, (1,), positions=positions, seed=0)
    pixels = ops.convert_to_numpy(align([canvas], box[None, None], training=True))[0, 0]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _aligned(features, boxes, bins, positions="regular"):
    """Regions float32 [n, P, P, C] cut from the levels that are given."""
    strides = tuple(2 ** int(level[1:]) for level in features)
    align = RoIAlign(bins, strides, positions=positions, seed=0)
    cut = align([ops.cast(level, "float32") for level in features.values()], boxes, training=positions == "random")
    return ops.convert_to_numpy(cut)[0]


def _feature_crops(features, boxes):
    """The first of some boxes cut from the features with every P, regular above random: uint8 picture."""
    kinds = ("regular", "random")
    rows = [[np.abs(_aligned(features, boxes, bins, kind)[0]).mean(axis=-1) for bins in BINS] for kind in kinds]
    return drawings.crops(rows, [[f"P = {bins}, {kind}" for bins in BINS] for kind in kinds])


def _difference(features, boxes, bins):
    """A row of the table: P, shape, spread, random against regular, one level against all."""
    regular = _aligned(features, boxes, bins)
    random = _aligned(features, boxes, bins, "random")
    single = _aligned({"P4": features["P4"]}, boxes, bins)
    shape = " × ".join(map(str, regular.shape[1:]))
    differences = (float(np.abs(other - regular).mean()) for other in (random, single))
    return [bins, shape, float(regular.std()), *differences]


def _levels_table(page, setup):
    """How many test objects each level would be cut from, at the assignment's size and at the run's."""
    rows = []
    for name, canvas in (("800 × 1088", CENTRED.size), ("this run", setup.canvas_b)):
        boxes = [_scaled(setup.test[i], canvas) for i in range(min(100, len(setup.test)))]
        levels = ops.convert_to_numpy(assign_levels(np.concatenate(boxes)))
        rows.append([name, *(int((levels == level).sum()) for level in range(2, 6))])
    page.table(
        ["pictures", "P2", "P3", "P4", "P5"],
        rows,
        "Objects of test pictures by the level that they are cut from: ⌊4 + log2(√area / 224)⌋, limited to 2…5.",
    )


def _scaled(sample, canvas):
    """Boxes of a sample fitted into a canvas, float32 [n, 4]."""
    factor = (np.array(canvas) / sample["image"].shape[:2]).min()
    return sample["boxes"] * np.float32(factor)


def step_13(page, setup, trained):
    """Two stages against one."""
    page.step(13, "Two stages against one")
    anchors = len(trained.stage.anchors(setup.canvas_b))
    page.answer(answers.QUESTIONS[13], answers.two_stages(anchors, trained.model.proposals.post_nms))
