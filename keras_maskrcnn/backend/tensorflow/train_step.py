"""The training step on TensorFlow."""

import tensorflow as tf


def train_step(model, inputs):
    """Forward pass, gradients and update; a step with a non-finite loss or gradient is skipped.

    A skipped step leaves weights, optimizer state and batch statistics unchanged, adds one to the metric
    `skipped_steps`, and records the indices of its samples in `model.skipped_images`.

    Args:
        model: an `InstanceModel`.
        inputs: dict of images and ground truth.

    Returns:
        dict of metrics for the Keras logs.
    """
    statistics = [tf.identity(v.value) for v in _statistics(model)]
    with tf.GradientTape() as tape:
        terms = model(inputs, training=True)
        loss = model.total_loss(terms)
    weights = model.trainable_weights
    gradients = [_dense(g) for g in tape.gradient(loss, weights)]
    norm = tf.linalg.global_norm([g for g in gradients if g is not None])
    finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
    _apply_if(finite, model.optimizer, gradients, weights)
    for variable, before in zip(_statistics(model), statistics, strict=True):
        variable.assign(tf.where(finite, variable.value, before))
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

    tf.cond(finite, update, lambda: tf.constant(0))


def _logs(model, inputs, terms, loss, norm, finite):
    """Metrics after the step; a skipped step does not enter the running means of the loss terms."""
    weight = tf.cast(finite, tf.float32)
    known = lambda value: tf.where(finite, value, tf.zeros_like(value))  # noqa: E731
    batch = tf.shape(inputs["images"])[0]
    model.loss_metric.update_state(known(loss), sample_weight=weight * tf.cast(batch, tf.float32))
    for name, metric in model.loss_terms.items():
        metric.update_state(known(terms[name]), sample_weight=weight)
    model.gradient_norm.update_state(known(norm), sample_weight=weight)
    model.skipped_steps.update_state(1.0 - weight)
    if "image_index" in inputs:
        _remember(model.skipped_images, inputs["image_index"], finite)
    return {metric.name: metric.result() for metric in model.metrics}


def _remember(ring, index, finite):
    """If the step was skipped, prepend the batch's sample indices to the list of skipped samples."""
    kept = tf.concat([tf.cast(index, tf.int32), ring.value], axis=0)[: ring.shape[0]]
    ring.assign(tf.where(finite, ring.value, kept))
