"""Part B of the assignment, steps 8 to 18: the whole network, two ways to train it, and what it learns."""

import numpy as np

from cis680_report import answers, experiments, part_b_inside, part_b_results, plots


def run(page, setup):
    """Trains what the steps need, then writes them in their order.

    Args:
        page: `page.Page`.
        setup: `setup.Setup`.

    Returns:
        dict of figures, as JSON takes them: `joint` and `alternating` (`experiments.compare`, and rates by class on the
        test set, for `joint` on training pictures too), `transfer` by arm, `proposal_recall` by number of proposals,
        `random_positions` by P, `regions` (`accuracy`, rates by class), `losses` (first and last), `false_positive`,
        `photo` (objects by class).
    """
    joint, alternating = experiments.joint(setup), experiments.alternating(setup)
    arms = experiments.transfer(setup, joint.model.backbone)
    for trained in (joint, alternating):
        trained.model.save(setup.output / f"{trained.name}.keras")
    figures = {run.name: _figures(run, setup) for run in (joint, alternating)}
    figures["transfer"] = {arm.name: _arm(arm, joint, setup) for arm in arms}
    page.part("Part B: the full network")
    step_8(page, setup, arms, figures["transfer"])
    part_b_inside.step_9(page, setup)
    figures["proposal_recall"] = part_b_inside.step_10(page, setup, joint)
    step_11(page, setup, joint, alternating, figures)
    figures["random_positions"] = part_b_inside.step_12(page, setup, joint)
    part_b_inside.step_13(page, setup, joint)
    part_b_results.step_14(page, setup, joint)
    rates, figures["regions"] = part_b_results.step_15(page, setup, joint)
    figures["joint"] |= rates
    figures["alternating"]["test"] = experiments.rates(alternating, setup.test)
    figures["losses"] = part_b_results.step_16(page, setup, joint)
    figures["false_positive"] = part_b_results.step_17(page, setup, joint)
    figures["photo"] = part_b_results.step_18(page, setup, joint)
    return figures


def step_8(page, setup, arms, figures):
    """Why backbones are fine-tuned, and an experiment."""
    page.step(8, "Fine-tuning the backbone")
    page.text(
        "An experiment: the backbone of the joint training below goes into a new network whose other parts are "
        f"untrained, and this trains for {setup.arguments.transfer_steps} steps. Once the backbone stays as it is, "
        "once it is trained on. A third network has a new backbone. The trained one has seen these very pictures, so "
        "that freezing it costs less here than it would after ImageNet."
    )
    header = ["backbone", "box AP", "box AP50", "mask AP", "F1", "seconds", "distance of the backbone"]
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "f1", "seconds", "backbone_distance")
    page.table(
        header,
        [[arm.name, *(figures[arm.name][name] for name in names)] for arm in arms],
        "On the test set; F1 is of masks that score 0.5 or more. The distance is the largest difference of a weight "
        "of the backbone from the trained one.",
    )
    measured = {arm.name: (figures[arm.name]["bbox_AP50"], arm.seconds) for arm in arms}
    page.answer(answers.QUESTIONS[8], answers.fine_tuning(measured, len(setup.train)))
    histories = {arm.name: arm.history for arm in arms}
    page.figure(plots.compared_curves(histories, ylabel="total loss"), "Total loss of the three trainings.")


def _figures(run, setup):
    """Figures of a training: AP, F1, seconds by phase, recall of its proposals."""
    return {
        **experiments.compare(run, setup.test),
        "proposal_recall": experiments.recall(run, setup.test),
        "phases": {phase["phase"]: round(phase["seconds"], 1) for phase in run.phases},
    }


def _arm(arm, joint, setup):
    """Figures of one arm, and how far its backbone is from that of the joint training."""
    pairs = zip(arm.model.backbone.get_weights(), joint.model.backbone.get_weights(), strict=True)
    distance = max(float(np.abs(now - trained).max()) for now, trained in pairs)
    return {**experiments.compare(arm, setup.test), "backbone_distance": distance}


def step_11(page, setup, joint, alternating, figures):
    """Joint training against the 4-step one."""
    page.step(11, "Joint and alternating training")
    page.text(
        "Alternating: the RPN trains with the backbone; the detector trains with a backbone of its own on these "
        "proposals; the RPN trains anew on the detector's backbone, which is frozen now; so do the detector's heads. "
        f"The phases take {', '.join(str(phase['steps']) for phase in alternating.phases)} steps. Each "
        "freezes its layers and compiles anew. In the paper both backbones "
        "start from ImageNet. Nothing is pretrained here, so that phase 2 goes on from the backbone of phase 1 "
        '(restart="rpn"), in place of starting from noise once more.'
    )
    trained = (joint, alternating)
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "f1", "threshold", "proposal_recall", "seconds")
    page.table(
        ["training", "steps", "box AP", "box AP50", "mask AP", "mask AP50", "F1", "from score", "recall", "seconds"],
        [[run.name, run.steps, *(figures[run.name][name] for name in names)] for run in trained],
        f"On the test set, batches of {setup.arguments.batch_size} pictures. Detections that score 0.05 or more "
        "count for AP; for F1 (masks) those from the score that gives the boxes' highest F1 on training pictures. "
        "Recall: that of the best 100 proposals at IoU 0.5. The budgets are set in steps; a step of alternating "
        "training computes one stage only, and what both took is in the last column. "
        "The seconds hold the tracing of each compiled step, of which alternating training needs four.",
    )
    told = [(figures[run.name]["segm_AP"], run.seconds) for run in trained]
    page.answer(answers.QUESTIONS[11], answers.training_schemes(*told, measure="mask AP"))
    page.table(
        ["phase", "seconds", "loss at its start", "loss at its end"],
        [[p["phase"], p["seconds"], p["history"]["loss"][0], p["history"]["loss"][-1]] for p in alternating.phases],
        "The phases of alternating training; each adds up its own losses only.",
    )
    page.figure(
        plots.bars(
            {
                title: {run.name: figures[run.name][name] or 0.0 for run in trained}
                for title, name in (("mask AP", "segm_AP"), ("seconds", "seconds"))
            }
        ),
        "What both ways to train gave and took.",
    )
    page.figure(_curves(joint.phases[0], joint.model), "Losses of joint training.")
    for phase in alternating.phases:
        page.figure(_curves(phase, alternating.model), "The losses that this phase of alternating training minimises.")


def _curves(phase, model):
    """The losses of a phase that are not zero throughout."""
    names = {name: name for name in ("loss", *model.LOSSES) if any(phase["history"][name])}
    return plots.curves(phase["history"], names, title=phase["phase"], xlabel="part of the training")
