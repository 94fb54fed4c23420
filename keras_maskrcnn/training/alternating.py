"""The 4-step alternating training of Faster R-CNN (Ren et al. 2015, section 3.2, "Sharing features for both")."""

import collections
import time

import keras

from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.models.first_stage import FirstStage

# A phase trains the RPN or the detector (the other heads), with or without the shared layers; the other stage is frozen
# and its losses are left out.
Phase = collections.namedtuple("Phase", "name stage shared")

PHASES = (
    Phase("1: RPN", "rpn", True),
    Phase("2: detector on those proposals", "detector", True),
    Phase("3: RPN on the detector's features", "rpn", False),
    Phase("4: detector on shared features", "detector", False),
)
SHARED = ("backbone", "fpn")


def alternate(
    model,
    batches,
    steps,
    make_optimizer,
    loss_weights=None,
    restart="initial",
    epochs=1,
    callbacks=(),
    verbose="auto",
    **compile,
):
    """Train the two stages of a model in turns, until they share one backbone.

    1. The RPN trains with the backbone. 2. The detector trains with a backbone of its own, on the proposals of phase 1.
    3. The RPN trains anew on the detector's backbone, which stays as it is now. 4. So do the detector's heads. Each
    phase sets what is trainable, takes a new optimizer and compiles, because a compiled step does not notice when
    layers freeze. At the end everything is trainable that was before, and the model is compiled for joint training.

    Args:
        model: `MaskRCNN`, compiled or not.
        batches: endless batches with ground truth, see `data.batches(..., repeat=True)`.
        steps: four numbers, the steps of each phase; rounded down to multiples of `epochs`.
        make_optimizer: function that makes an optimizer from a phase's number of steps.
        loss_weights: factors of the losses, see `MaskRCNN.compile`.
        restart: where the backbone (and the pyramid) of phase 2 starts: "initial", the weights that the model came
            with, as in the paper, which starts both from ImageNet; or "rpn", what phase 1 made of them, which wastes
            less where the initial weights are random.
        epochs: parts of each phase, one line in the history each.
        callbacks: Keras callbacks, given to each phase's `fit`: those that keep a state or a file across one `fit`
            only, such as EarlyStopping, are not meant for four.
        verbose: as for `fit`.
        **compile: passed to `MaskRCNN.compile`, such as `jit_compile`.

    Returns:
        list of four dicts: `phase` (str), `steps` (int), `seconds` (float, tracing included), `history` (dict of lists,
        as Keras').

    Raises:
        ValueError: if `steps` is not four numbers of at least `epochs`, or for another `restart`.
    """
    steps = tuple(steps)
    if len(steps) != len(PHASES) or min(steps) < epochs:
        raise ValueError(f"steps={steps} must be four numbers, none below epochs={epochs}")
    if restart not in ("initial", "rpn"):
        raise ValueError(f"restart={restart!r} is not 'initial' or 'rpn'")
    steps = tuple(count - count % epochs for count in steps)
    model.compile(make_optimizer(sum(steps)), loss_weights=loss_weights, **compile)  # refuses what is wrong, before all
    learns = [(layer, layer.trainable) for layer in flatten_layers(model)]
    initial = _shared_weights(model)
    found = []
    try:
        for number, (phase, count) in enumerate(zip(PHASES, steps, strict=True), start=1):
            _release(learns)
            _freeze(model, phase)
            data = batches
            if number == 2:
                data = _with_proposals(batches, _proposer(model))
                if restart == "initial":
                    _set_shared_weights(model, initial)
            left_out = [name for name in model.loss_names if (name in model.rpn.LOSSES) != (phase.stage == "rpn")]
            weights = {**(loss_weights or {}), **dict.fromkeys(left_out, 0.0)}
            model.compile(make_optimizer(count), loss_weights=weights, **compile)
            found.append(_train(model, data, phase.name, count, epochs, callbacks, verbose))
    finally:  # an interrupted phase leaves no part frozen behind
        _release(learns)
        model.compile(make_optimizer(sum(steps)), loss_weights=loss_weights, **compile)
    return found


def _train(model, batches, name, steps, epochs, callbacks, verbose):
    start = time.perf_counter()
    if verbose:
        print(f"phase {name}")
    history = model.fit(
        batches, epochs=epochs, steps_per_epoch=steps // epochs, callbacks=list(callbacks), verbose=verbose
    )
    return {"phase": name, "steps": steps, "seconds": time.perf_counter() - start, "history": history.history}


def _freeze(model, phase):
    """Freezes the parts of the model that a phase does not train."""
    for name, part in model.parts().items():
        stage = "rpn" if name == "rpn" else "detector"
        if not (phase.shared if name in SHARED else phase.stage == stage):
            part.trainable = False


def _release(learns):
    """Puts the layers' own settings back; outer layers come first, because theirs reach their parts."""
    for layer, trainable in learns:
        layer.trainable = trainable


def _shared_weights(model):
    return {name: part.get_weights() for name, part in model.parts().items() if name in SHARED}


def _set_shared_weights(model, weights):
    for name, values in weights.items():
        model.parts()[name].set_weights(values)


def _copy(model):
    """A second model with the same weights: the RPN of phase 1 keeps the backbone that it was trained with."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _proposer(model):
    """The first stage as it is now, kept apart from what the model learns from here on."""
    limits = model.rpn.proposals.limits(training=True)
    return FirstStage(_copy(model), limits["post_nms"], pre_nms=limits["pre_nms"])


def _with_proposals(batches, first_stage):
    """Yields the batches with another model's proposals among the inputs."""
    for x, y in batches:
        images = {name: keras.ops.convert_to_numpy(x[name]) for name in ("images", "sizes")}
        found = first_stage.predict_on_batch(images)
        yield {**x, "proposals": found["boxes"], "proposal_valid": found["valid"]}, y
