"""Answers to the written questions of the assignment. Each speaks of the numbers of the run that it is given."""

QUESTIONS = {
    3: "Why two rules for positive anchors, and why do some anchors count as neither?",
    5: "How large is the receptive field of the intermediate layer, and what does it mean for what can be detected?",
    6: "Why sample anchors, and why as near to 1:1 as possible?",
    7: "What do equally weighted and equally normalised losses mean here?",
    8: "Would you freeze the backbone or fine-tune it?",
    10: "What do the outputs of the pyramid and of the region proposal network mean?",
    11: "End-to-end or alternating training?",
    12: "Why RoIAlign rather than RoIPool, why four samples a bin, and which feature map?",
    13: "What does the second stage give that a one-stage detector lacks, and what does it cost?",
    14: "Why one box for each class, and why more background than objects?",
    15: "What does post-processing do, and what do the figures say?",
    16: "Why one mask for each class, with a sigmoid rather than a softmax?",
}


def anchor_truth(positive, negative, ignored, crossing, forced):
    """Step 3.

    Args:
        positive: positive anchors a picture, mean.
        negative: negative ones.
        ignored: ones between, inside the picture.
        crossing: ones that reach beyond the picture.
        forced: share of the positives that are positive only because no anchor overlaps their object more.
    """
    return (
        "An IoU above 0.7 says that the anchor is already nearly right, so that the regressor has little left to do. "
        "With a single anchor shape many objects are too small, too large or too long to reach it anywhere, and by "
        "that rule alone they would never be learned. The other rule gives each object the anchor that overlaps it "
        f"most, however little that is: in this run {forced:.0%} of the positives are there for that reason alone.\n\n"
        f"A picture has on average {positive:.1f} positive and {negative:.0f} negative anchors; {ignored:.0f} lie "
        "between. To call those background would punish the network for answering to something that is partly an "
        "object, to call them objects would teach it sloppy boxes; so they are left out of both losses. The "
        f"{crossing:.0f} anchors that reach beyond the picture are left out too: part of what they stand for cannot be "
        "seen, their error would never become small, and Faster R-CNN reports that training does not converge with "
        "them."
    )


def receptive_field(size, stride, measured, effective, sides, anchor):
    """Step 5.

    Args:
        size: theoretical receptive field in pixels.
        stride: of the map.
        measured: (height, width) that the gradient probe found.
        effective: side in pixels of the effective field after training.
        sides: longer sides of the training objects, in pixels of the network's input.
        anchor: (height, width) of the anchor.
    """
    sides = sorted(float(side) for side in sides)
    middle, share = sides[len(sides) // 2], sum(side > size for side in sides) / len(sides)
    agrees = tuple(measured) == (size, size)
    probe = "the same" if agrees else "where the picture's border or silent paths hide a part of it"
    if share == 0:
        larger = f"No object of the training pictures is longer than that: the longest has {sides[-1]:.0f} pixels"
    else:
        larger = (
            f"{share:.1%} of the training objects are longer than that: of those no unit sees both ends at once, and "
            "it must guess the far side from what it knows of the class"
        )
    inside = max(anchor) < size
    anchor_seen = "sees all of it and some of its surroundings" if inside else "cannot see all of it"
    half = (size - 1) // 2
    return (
        f"Going through the layers, a k × k kernel on a map of stride j adds (k - 1)·j pixels: a unit of the 3 × 3 "
        f"layer sees {size} × {size} pixels, one unit every {stride} pixels. The gradient probe finds {measured[0]} × "
        f"{measured[1]}: {probe}. {larger}; half of them are longer than {middle:.0f}. The anchor has {anchor[1]:.0f} "
        f"× {anchor[0]:.0f} pixels: a unit {anchor_seen}.\n\n"
        "Within the field pixels do not count alike: those in its middle have many paths to the unit, those at its rim "
        f"one. After training, an area of about {effective:.0f} × {effective:.0f} pixels has a gradient above a "
        "twentieth of the highest. The ends of an object that fills the whole field are seen faintly.\n\n"
        f"Units nearer than about {half} pixels to the border see zeros of the padding in place of a picture. There "
        "the features mean something else, and the network can learn from the zeros where the border is. Anchors that "
        "cross the border belong mostly to such units; they take no part in training."
    )


def sampling(positive, negative, size):
    """Step 6.

    Args:
        positive: positive anchors a picture, mean.
        negative: negative ones.
        size: anchors sampled a picture.
    """
    ratio = negative / max(positive, 1e-9)
    return (
        f"A picture has {ratio:.0f} times as many negative anchors as positive ones. A "
        f"network that says background everywhere would be right in "
        f"{negative / max(positive + negative, 1e-9):.1%} of all cases and find nothing, and most of the gradient "
        f"would come from background that is easy to tell. So each picture gives a random "
        f"sample of {size} anchors, at most half of them positive; where there are fewer positives, negatives fill the "
        f"places. A picture has {positive:.1f} positives on average, so that at most {min(positive, size / 2):.0f} of "
        f"{size} sampled anchors are positive on average.\n\n"
        "The sample is drawn within each picture (image-centric), because its anchors share one pass through the "
        "convolutions: hundreds of training cases cost no more than one. That they are alike is made good by drawing "
        "anew every time. The price of balance is that the probabilities are not those of a random anchor: the network "
        "believes that objects are commoner than they are. For proposals this does no harm, for only their order "
        "counts."
    )


def normalisation(size, batch_size):
    """Step 7.

    Args:
        size: anchors sampled a picture.
        batch_size: pictures a step.
    """
    return (
        f"L = L_cls + λ·L_reg with λ = 1. Both sums are divided by the same number, that of the sampled anchors of the "
        f"batch, N_cls = N_reg = {size} · {batch_size} = {size * batch_size} (less where a picture cannot fill its "
        "sample). L_cls adds the binary cross-entropy of every sampled anchor, L_reg the smooth L1 of the four "
        "coordinates (turning from quadratic to linear at 1) of the positive ones alone.\n\n"
        "With one divisor for both, a picture with few positives has a small box loss, and each positive anchor weighs "
        "the same wherever it is. Divided by the number of positives instead, one lucky anchor in a picture would "
        "count as much as twenty in another, and the sum of the losses would lean to the boxes early in training, "
        "when the classifier needs to learn first where there is anything at all."
    )


def fine_tuning(figures, pictures, measure="box AP50"):
    """Step 8.

    Args:
        figures: dict from what was done with the backbone ("frozen", "fine-tuned", …) to (figure, seconds).
        pictures: number of training pictures.
        measure: what the figure is.
    """
    known = {name: pair for name, pair in figures.items() if pair[0] is not None}
    told = ", ".join(f"{name} {figure:.3f} ({seconds:.0f} s)" for name, (figure, seconds) in known.items())
    ranked = [*sorted((figure for figure, _ in known.values()), reverse=True), 0.0, 0.0]
    if ranked[0] - ranked[1] > 0.02:
        best = f"Best is “{max(known, key=lambda name: known[name][0])}”"
    else:
        best = "The best two are too near to each other to tell from one run"
    fastest = min(figures, key=lambda name: figures[name][1])
    return (
        "Early layers find edges and textures that any pictures have, late ones what the old classes were made of. A "
        "frozen backbone keeps both, needs no gradients or their memory, and cannot be spoiled by few pictures; but "
        "its features stay those of another task. A fine-tuned one fits them to the new task, and with few pictures "
        "or too high a learning rate it forgets what it knew. The usual compromise freezes the first layers and the "
        "batch statistics (a batch of two pictures has no statistics worth the name) and trains the rest at a low "
        "rate.\n\n"
        f"Measured here with the same number of steps for each, {pictures:,} training pictures, {measure}: "
        f"{told or 'no figure, for there is no object to find'}. {best}; fastest is “{fastest}”."
        " With more pictures and steps one expects fine-tuning to gain, for "
        "there is more to fit; with fewer, freezing."
    )


def pyramid(strides, canvas, anchors_per_location, anchors, proposals):
    """Step 10.

    Args:
        strides: of the levels.
        canvas: (height, width) of the input.
        anchors_per_location: at each location of a level.
        anchors: in all.
        proposals: an image.
    """
    levels = ", ".join(
        f"P{stride.bit_length() - 1} ({-(-canvas[0] // stride)} × {-(-canvas[1] // stride)})" for stride in strides
    )
    return (
        f"The pyramid turns {canvas[0]} × {canvas[1]} pixels into {levels}, all with the same number of channels. A "
        "fine level alone would know where an edge is and not of what, a coarse one the reverse; by the path from the "
        "top each level gets both, so that small objects are read from fine levels and large ones from coarse levels "
        "by the same head. The coarsest serves the proposals of large objects alone; regions are never cut from it.\n\n"
        f"At each location of each level, for each of {anchors_per_location} anchors, the network gives one logit (its "
        "sigmoid is the probability that the anchor shows an object of any class) and four numbers t: the shift of the "
        "centre in widths and heights of the anchor, and the logarithms of the change of its sides. Of "
        f"{anchors:,} anchors the likeliest of each level are decoded to boxes in pixels, cut at the picture's border "
        f"and thinned by non-maximum suppression; the best {proposals:,} remain. They are guesses where to look, with "
        "many on one object; to choose among them is the second stage's affair."
    )


def training_schemes(joint, alternating, measure="box AP"):
    """Step 11.

    Args:
        joint: (figure, seconds) of end-to-end training.
        alternating: the same of alternating training.
        measure: what the figure is.
    """
    if None in (joint[0], alternating[0]):
        joint, alternating = ((float("nan"), seconds) for _, seconds in (joint, alternating))
    gap = joint[0] - alternating[0]
    if not abs(gap) > 0.02:
        told = f"The two differ by {abs(gap):.3f}; whether another seed would turn that round was not tried"
    else:
        told = f"{'Joint' if gap > 0 else 'Alternating'} training is ahead by {abs(gap):.3f}"
    return (
        f"{measure} is {joint[0]:.3f} after {joint[1]:.0f} s of joint training and {alternating[0]:.3f} after "
        f"{alternating[1]:.0f} s of alternating training. {told}.\n\n"
        "Alternating training makes four networks of one: proposals; a detector of its own on those proposals; "
        "proposals anew on the detector's backbone, which is now frozen; the heads anew on the same backbone. Each "
        "step works on proposals that stand still, which is easy to understand and to debug, and the last two need no "
        "gradient of the backbone. But it has four schedules to set, and in the paper step two starts from ImageNet "
        "again, so that what the proposals taught the backbone in step one is lost.\n\n"
        "End-to-end training adds the losses and takes one step for all. The features serve both stages at once and "
        "the proposals improve while the heads learn. The gradient through the proposals' coordinates is left out, so "
        "it is an approximation; Faster R-CNN found it as good in less time. Early on, when proposals are bad, the "
        "heads live on the ground-truth boxes that are added to them."
    )


def roi_align(bins, stride, figures=None, measure="box AP"):
    """Step 12.

    Args:
        bins: P.
        stride: of the map from which a region was cut, in pixels.
        figures: dict from variants ("regular", "random", "P4 alone", …) to a measured figure, or None.
        measure: what the figure is.
    """
    told = ""
    if figures:
        told = (
            f" Measured here, {measure}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()) + "."
        )
    return (
        "RoIPool rounds a region's corners to whole cells of the map, and then the edges of its bins once more. At a "
        f"stride of {stride} the first rounding alone moves an edge by up to {stride / 2:g} pixels of the picture: "
        "little for the class, but a mask cut with that error no longer fits its object. RoIAlign rounds nothing; it "
        f"reads the map by bilinear interpolation at exact places in each of {bins} × {bins} bins and averages.\n\n"
        "A single sample in the middle of a bin reads the four cells around it and misses the others of a larger bin. "
        "Two by two read up to four cells a side, about as many as a bin spans on the level that is chosen; more cost "
        "more and add little. Random places within the bin, new at every step, are a small augmentation while "
        f"training; for a prediction the regular grid gives the same answer every time.{told}\n\n"
        "Large regions are cut from coarse levels and small ones from fine levels, so that bins span a like number of "
        "cells at any size. On one map alone a small object is hardly a cell, and a large one is read at few points."
    )


def two_stages(anchors=None, proposals=None):
    """Step 13.

    Args:
        anchors: boxes that the first stage judges for a picture, or None.
        proposals: boxes that the second stage judges, or None.
    """
    counted = f" (here {proposals:,} of {anchors:,})" if anchors and proposals else ""
    return (
        "A one-stage detector (SSD, YOLO, RetinaNet) says class and box for every anchor at once. It costs the same "
        "whatever is in the picture and runs faster; but nearly all of its training cases are easy background, which "
        "needs a focal loss or hard-negative mining, and each answer comes from features at a fixed place that may not "
        "fit the object.\n\n"
        f"Of two stages the first throws out most of the background with a cheap yes or no{counted}. The second gets a "
        "balanced sample of what is left and cuts features out of exactly the box that it judges: RoIAlign makes them "
        "fit the object, whatever its size and shape. It refines a box that was refined already, and a mask needs "
        "such aligned features of one object. What it costs is time that grows with the number of proposals, a longer "
        "chain of options, and that an object without a proposal is lost for good. With many small objects or where "
        "masks must fit, two stages are the better choice; for a camera at thirty pictures a second, one."
    )


def box_head(classes, foreground, background):
    """Step 14.

    Args:
        classes: K.
        foreground: positive regions sampled a picture, mean.
        background: negative ones.
    """
    ratio = background / max(foreground, 1e-9)
    reached = (
        "near the 3:1 that was asked for"
        if 2 <= ratio <= 4
        else "as near to 3:1 as the proposals of these pictures allow"
    )
    return (
        f"The regressor gives four numbers for each of {classes} classes, and only those of the true class are "
        "trained. A wheel at the left edge of a region means one thing for the box of a car and another for that of a "
        "person; with one box for all classes the regressor would have to settle between them. Classification stays "
        "apart too: which class it is decides the softmax, the box answers where it is if it is one of that class.\n\n"
        "After the first stage most proposals still show background. At 3:1 the softmax meets enough of it to keep "
        "false alarms down, and enough objects to learn the classes; equal numbers would make it too ready to see "
        f"objects, for in use it meets more background than that. In this run a picture gave on average "
        f"{foreground:.1f} regions with an object and {background:.1f} without, {ratio:.1f} to one: {reached}. There "
        "is no grey zone here: an IoU of 0.5 divides, because every proposal must be given some class in the end."
    )


def post_processing(f1, reference):
    """Step 15.

    Args:
        f1: dict from class names, "background" among them, to F1 measured here; None or NaN where there is none.
        reference: dict from names to the F1 of the report that this is compared with.
    """
    known = {name: value for name, value in f1.items() if value is not None and value == value}
    measured = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
    theirs = ", ".join(f"{name} {value:.2f}" for name, value in reference.items())
    weakest = f" The weakest is {min(known, key=known.get)}." if known else ""
    return (
        "A trained head answers for every proposal, and many proposals lie on one object. First go boxes that a "
        "decoded regression left without area or beyond the picture. Then, class by class, the likeliest box is kept "
        "and every other that overlaps it by 0.5 or more goes; by class, because a person may stand before a car and "
        "neither is a copy of the other. Of what is left the best 100 stay. Two objects of one class that hide each "
        "other by more than half become one: that is what the rule costs.\n\n"
        f"F1 here: {measured or 'nothing was classified'}; the report that this one follows has {theirs}.{weakest} The "
        "two were not measured on the same pictures. Accuracy flatters: most proposals are background, and whoever "
        "always says background is mostly right. Precision, recall and F1 of each class show what is found and what is "
        "made up."
    )


def masks(classes, size, weights):
    """Step 16.

    Args:
        classes: K.
        size: cells a side of a mask.
        weights: dict from losses ("box", "class", "mask") to their factors.
    """
    told = " + ".join(f"{value:g} · {name}" for name, value in weights.items())
    return (
        f"The head gives {classes} masks of {size} × {size} cells for a region, one a class, and each cell of each "
        "mask is a yes or no of its own. A softmax over the classes would make them compete in every cell and would "
        "decide the class a second time, cell by cell; what the classifier says of the whole region is surer. So "
        "classification and segmentation are taken apart: the box head says which class, and that class's mask says "
        "which cells. In training only the mask of the true class has a loss, the mean binary cross-entropy of its "
        "cells; the others are left alone. (He et al. measured 5.5 points of AP less with a softmax.)\n\n"
        f"The losses are added as {told}. Smooth L1 of a box that is nearly right is small beside a cross-entropy; the "
        "factor keeps it from being overheard. A mask is then stretched to its box by bilinear interpolation and cut "
        "at 0.5; the coarse grid is why fine parts of an outline are rounded."
    )
