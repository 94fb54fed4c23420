"""The 4-step alternating training of Faster R-CNN (Ren et al. 2015, section 3.2, "Sharing features for both")."""

import collections
import time

import keras

from keras_maskrcnn.backend.keras_internals import flatten_layers
from keras_maskrcnn.models.first_stage import FirstStage
from keras_maskrcnn.training.clock import until_over

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
    clock=None,
    **compile,
):
    """Train the two stages of a model alternately until they share one backbone.

    1. The RPN trains with the backbone. 2. The detector trains with its own backbone, on the proposals of phase 1.
    3. The RPN trains on the detector's backbone, which is now frozen. 4. The detector's heads train on it. Each phase
    freezes layers, creates an optimizer and compiles, because a compiled step ignores later changes of `trainable`.
    Finally the `trainable` flags are restored, and the model is compiled for joint training. With `neck="c4"` the fifth
    stage of the backbone is one of the shared layers, although only the detector uses it.

    Args:
        model: `MaskRCNN`, compiled or not.
        batches: infinite batches with ground truth, see `data.batches(..., repeat=True)`.
        steps: number of steps of each of the four phases, rounded down to multiples of `epochs`; with `clock` their
            minutes.
        make_optimizer: function from the number of steps, or minutes, of a phase to an optimizer.
        loss_weights: factors of the losses, see `MaskRCNN.compile`.
        restart: initial weights of the backbone (and FPN) in phase 2: "initial", the weights before phase 1, as in the
            paper, where both stages start from ImageNet weights; or "rpn", the weights after phase 1, which is better
            if the initial weights are random.
        epochs: epochs per phase.
        callbacks: Keras callbacks, passed to the `fit` of each phase; callbacks with state for a single `fit`, such as
            EarlyStopping, are not supported.
        verbose: as for `fit`.
        clock: function from the minutes of a phase to a `clock.TimeBudget` for its `fit`; None trains by steps.
        **compile: passed to `MaskRCNN.compile`, such as `jit_compile`.

    Returns:
        list of four dicts: `phase` (str), `steps` (int), `seconds` (float, including tracing), `history` (dict of
        lists, from Keras).

    Raises:
        ValueError: if `steps` is not four numbers of at least `epochs`, or for an unknown `restart`.
    """
    steps = tuple(steps)
    if len(steps) != len(PHASES) or (clock is None and min(steps) < epochs):
        raise ValueError(f"steps={steps} must be four numbers, each at least epochs={epochs}")
    if restart not in ("initial", "rpn"):
        raise ValueError(f"restart={restart!r} is not 'initial' or 'rpn'")
    if clock is None:
        steps = tuple(count - count % epochs for count in steps)
    model.compile(make_optimizer(sum(steps)), loss_weights=loss_weights, **compile)  # raises for invalid arguments
    flags = [(layer, layer.trainable) for layer in flatten_layers(model)]
    initial = _shared_weights(model)
    found = []
    try:
        for number, (phase, count) in enumerate(zip(PHASES, steps, strict=True), start=1):
            _restore(flags)
            _freeze(model, phase)
            data = batches
            if number == 2:
                data = _with_proposals(batches, _proposer(model))
                if restart == "initial":
                    _set_shared_weights(model, initial)
            left_out = [name for name in model.loss_names if (name in model.rpn.LOSSES) != (phase.stage == "rpn")]
            weights = {**(loss_weights or {}), **dict.fromkeys(left_out, 0.0)}
            model.compile(make_optimizer(count), loss_weights=weights, **compile)
            found.append(_train(model, data, phase.name, count, epochs, callbacks, verbose, clock))
    finally:  # also after an interruption
        _restore(flags)
        model.compile(make_optimizer(sum(steps)), loss_weights=loss_weights, **compile)
    return found


def _train(model, batches, name, steps, epochs, callbacks, verbose, clock):
    start = time.perf_counter()
    if verbose:
        print(f"phase {name}")
    if clock is None:
        options = {"x": batches, "steps_per_epoch": steps // epochs, "callbacks": list(callbacks)}
    else:
        budget = clock(steps)
        options = until_over(budget, batches, callbacks)
    history = model.fit(epochs=epochs, verbose=verbose, **options)
    steps = steps if clock is None else budget.steps
    return {"phase": name, "steps": steps, "seconds": time.perf_counter() - start, "history": history.history}


def _freeze(model, phase):
    """Freezes the parts of the model that a phase does not train."""
    for name, part in model.parts().items():
        stage = "rpn" if name == "rpn" else "detector"
        if not (phase.shared if name in SHARED else phase.stage == stage):
            part.trainable = False


def _restore(flags):
    """Restores the `trainable` flags; outer layers come first, because setting the flag also sets it in sublayers."""
    for layer, trainable in flags:
        layer.trainable = trainable


def _shared_weights(model):
    return {name: part.get_weights() for name, part in model.parts().items() if name in SHARED}


def _set_shared_weights(model, weights):
    for name, values in weights.items():
        model.parts()[name].set_weights(values)


def _copy(model):
    """A second model with the same weights."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _proposer(model):
    """The current first stage as a separate model, unaffected by further training."""
    limits = model.rpn.proposals.limits(training=True)
    return FirstStage(_copy(model), limits["post_nms"], pre_nms=limits["pre_nms"])


def _with_proposals(batches, first_stage):
    """Yields the batches with the proposals of `first_stage` added to the inputs."""
    for x, y in batches:
        images = {name: keras.ops.convert_to_numpy(x[name]) for name in ("images", "sizes")}
        found = first_stage.predict_on_batch(images)
        yield {**x, "proposals": found["boxes"], "proposal_valid": found["valid"]}, y
