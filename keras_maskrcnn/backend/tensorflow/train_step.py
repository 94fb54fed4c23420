"""The training step on TensorFlow."""

import tensorflow as tf

from keras_maskrcnn import backend
from keras_maskrcnn.backend import keras_internals, replicas


def train_step(model, inputs):
    """Forward pass, gradients and update; a step with a non-finite loss or gradient is skipped.

    A skipped step leaves weights, optimizer state and batch statistics unchanged, adds one to the metric
    `skipped_steps`, and records the indices of its samples in `model.skipped_images`.

    Under a `tf.distribute` strategy all replicas apply the mean of their gradients, see `backend.replicas`, and a step
    that is not finite on one replica is skipped on all. Batch statistics are those of a replica's own images; their
    moving averages are averaged over the replicas.

    Args:
        model: an `ImageModel`.
        inputs: dict of images and ground truth.

    Returns:
        dict of metrics for the Keras logs.

    Raises:
        ValueError: for a strategy together with XLA.
    """
    if tf.distribute.has_strategy() and backend.static_shapes():
        raise ValueError("under a tf.distribute strategy, compile the model with jit_compile=False")
    statistics = [tf.identity(v.value) for v in _statistics(model)]
    with tf.GradientTape() as tape:
        terms = model(inputs, training=True)
        loss = model.total_loss(terms)
    weights = model.trainable_weights
    gradients = [_dense(g) for g in tape.gradient(loss, weights)]
    terms, loss, gradients = _of_all_replicas(terms, loss, gradients)
    norm = tf.linalg.global_norm([g for g in gradients if g is not None])
    finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
    _apply_if(finite, model.optimizer, gradients, weights)
    after = replicas.mean([tf.convert_to_tensor(v.value) for v in _statistics(model)])
    for variable, value, before in zip(_statistics(model), after, statistics, strict=True):
        variable.assign(tf.where(finite, value, before))
    return _logs(model, inputs, terms, loss, norm, finite)


def _statistics(model):
    """Moving averages of batch normalisation: the variables that the forward pass updates."""
    return [v for v in model.non_trainable_variables if v.name.startswith("moving_") and "float" in v.dtype]


def _dense(gradient):
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def _apply_if(finite, optimizer, gradients, weights):
    """Update the weights in a conditional branch, so that a skipped step also keeps the optimizer's variables."""

    def update():
        optimizer.apply(gradients, weights)
        return tf.constant(0)

    if tf.distribute.has_strategy():
        merge = tf.distribute.get_replica_context().merge_call
        merge(_apply_on_replicas, args=(finite, gradients), kwargs={"optimizer": optimizer, "weights": weights})
    else:
        tf.cond(finite, update, lambda: tf.constant(0))


class _Reduced(tf.distribute.ReplicaContext):
    """Context in which an optimizer takes gradients that are summed over the replicas already.

    `merge_call` runs its function at once, so that it is allowed in a conditional branch.
    """

    def all_reduce(self, reduce_op, value, options=None):
        """The value."""
        return value


def _apply_on_replicas(strategy, finite, gradients, optimizer, weights):
    """`_apply_if` for the weights of all replicas; the arguments are equal on all."""
    finite, *gradients = (
        None if value is None else strategy.experimental_local_results(value)[0] for value in (finite, *gradients)
    )

    def update():
        with _Reduced(strategy, 0):
            optimizer.apply(gradients, weights)
        # The optimizer writes these in the context of the first replica only.
        constrained = [weight for weight in weights if weight.constraint is not None]
        for variable in [*keras_internals.averages(optimizer), *constrained]:
            variable.assign(variable.value)
        return tf.constant(0)

    tf.cond(finite, update, lambda: tf.constant(0))


def _of_all_replicas(terms, loss, gradients):
    """Loss terms, loss and gradients of the global batch; `gradients` may hold None."""
    if replicas.number() == 1:
        return terms, loss, gradients
    present = [g for g in gradients if g is not None]
    terms, loss, present = replicas.mean((terms, loss, present))
    present = iter(present)
    return terms, loss, [None if g is None else next(present) for g in gradients]


def _logs(model, inputs, terms, loss, norm, finite):
    """Metrics after the step; a skipped step does not enter the running means of the loss terms."""
    weight = tf.cast(finite, tf.float32)
    known = lambda value: tf.where(finite, value, tf.zeros_like(value))  # noqa: E731
    batch = replicas.total(tf.cast(tf.shape(inputs["images"])[0], tf.float32))
    model.loss_metric.update_state(known(loss), sample_weight=weight * batch)
    for name, metric in model.loss_terms.items():
        metric.update_state(known(terms[name]), sample_weight=weight * batch)
    model.gradient_norm.update_state(known(norm), sample_weight=weight)
    model.skipped_steps.update_state(1.0 - weight)
    if "image_index" in inputs:
        _remember(model.skipped_images, inputs["image_index"], finite)
    return {metric.name: metric.result() for metric in model.metrics}


def _remember(ring, index, finite):
    """If the step was skipped, prepend the batch's sample indices to the list of skipped samples."""
    index = replicas.gathered(tf.cast(index, tf.int32))
    kept = tf.concat([index, ring.value], axis=0)[: ring.shape[0]]
    ring.assign(tf.where(finite, ring.value, kept))
