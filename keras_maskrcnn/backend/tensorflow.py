"""TensorFlow's own train step, its convolution with a scaled kernel and its fused batch normalisation."""

import tensorflow as tf


def train_step(model, inputs):
    """Forward pass, gradients, update; a step whose loss or gradient is not finite changes nothing.

    A skipped step leaves weights, optimizer and batch statistics as they were, adds one to the metric
    `skipped_steps`, and notes the positions of its samples in `model.skipped_images`.

    Args:
        model: an `InstanceModel`.
        inputs: dict of images and ground truth.

    Returns:
        dict of metrics for the Keras logs.
    """
    statistics = [tf.identity(v.value) for v in _statistics(model)]
    with tf.GradientTape() as tape:
        terms = model(inputs, training=True)
        loss = model.compute_loss(x=inputs, y_pred=terms)
    weights = model.trainable_weights
    gradients = [_dense(g) for g in tape.gradient(loss, weights)]
    norm = tf.linalg.global_norm([g for g in gradients if g is not None])
    finite = tf.math.is_finite(loss) & tf.math.is_finite(norm)
    _apply_if(finite, model.optimizer, gradients, weights)
    for variable, before in zip(_statistics(model), statistics, strict=True):
        variable.assign(tf.where(finite, variable.value, before))
    return _logs(model, inputs, terms, loss, norm, finite)


def predict_function(model):
    """The network as one graph for pictures and batches of all sizes.

    Args:
        model: an `InstanceModel` or a view of one.

    Returns:
        Function from a dict of `images` float32 `[B, H, W, 3]` and `sizes` float32 `[B, 2]` to what `model` gives.
    """
    images, sizes = tf.TensorSpec([None, None, None, 3], tf.float32), tf.TensorSpec([None, 2], tf.float32)

    # Autograph would read source again that has no Python control flow to convert.
    @tf.function(input_signature=[{"images": images, "sizes": sizes}], autograph=False)
    def predict(inputs):
        return model(inputs, training=False)

    return predict


def _statistics(model):
    """Moving averages of batch normalisation: what a forward pass changes by itself."""
    return [v for v in model.non_trainable_variables if v.name.startswith("moving_") and "float" in v.dtype]


def _dense(gradient):
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def _apply_if(finite, optimizer, gradients, weights):
    """Update the weights in a branch: the optimizer's own step count and momenta stay too when it is not taken."""

    def update():
        optimizer.apply(gradients, weights)
        return tf.constant(0)

    tf.cond(finite, update, lambda: tf.constant(0))


def _logs(model, inputs, terms, loss, norm, finite):
    """Metrics after the step; terms of a skipped step stay out of the running means."""
    weight = tf.cast(finite, tf.float32)
    known = lambda value: tf.where(finite, value, tf.zeros_like(value))  # noqa: E731
    batch = tf.shape(inputs["images"])[0]
    model._loss_tracker.update_state(known(loss), sample_weight=weight * tf.cast(batch, tf.float32))
    for name, metric in model.loss_terms.items():
        metric.update_state(known(terms[name]), sample_weight=weight)
    model.gradient_norm.update_state(known(norm), sample_weight=weight)
    model.skipped_steps.update_state(1.0 - weight)
    if "image_index" in inputs:
        _remember(model.skipped_images, inputs["image_index"], finite)
    metrics = [model._loss_tracker, *model.loss_terms.values(), model.gradient_norm, model.skipped_steps]
    return {metric.name: metric.result() for metric in metrics}


def _remember(ring, index, finite):
    """Put the batch's sample positions in front of the list of skipped ones, if the step was skipped."""
    kept = tf.concat([tf.cast(index, tf.int32), ring.value], axis=0)[: ring.shape[0]]
    ring.assign(tf.where(finite, ring.value, kept))


def scaled_conv(inputs, kernel, scale, strides, padding):
    """Convolution with kernel·scale, a product that is worked out again for the gradient and not kept until then.

    Kept, the products of a network weigh as much as its kernels, from the first layer until the last gradient.

    Args:
        inputs: `[B, H, W, C]`.
        kernel: float32 `[h, w, C, D]`.
        scale: float32 `[D]`.
        strides: two ints.
        padding: "same" or "valid".

    Returns:
        `[B, H', W', D]` in the dtype of `inputs`.
    """
    options = {"strides": [1, *strides, 1], "padding": padding.upper()}

    def scaled(kernel, scale):
        return tf.cast(kernel * scale, inputs.dtype)

    @tf.custom_gradient
    def run(inputs, kernel, scale):
        def gradient(upstream):
            # The dependency keeps the product from being made early, or taken for the one of the forward pass.
            with tf.control_dependencies([upstream]):
                again = scaled(tf.identity(kernel), tf.identity(scale))
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=again, out_backprop=upstream, **options
            )
            to_product = tf.raw_ops.Conv2DBackpropFilter(
                input=inputs, filter_sizes=tf.shape(kernel), out_backprop=upstream, **options
            )
            to_product = tf.cast(to_product, tf.float32)
            return to_inputs, to_product * scale, tf.reduce_sum(to_product * kernel, axis=(0, 1, 2))

        return tf.raw_ops.Conv2D(input=inputs, filter=scaled(kernel, scale), **options), gradient

    return run(inputs, kernel, scale)


def batch_norm(layer, inputs, training):
    """Batch normalisation of `[B, H, W, C]` in one fused operation, moving averages updated when training.

    Args:
        layer: a built `keras.layers.BatchNormalization` with scale and centre.
        inputs: float tensor; statistics and affine part are float32 under any policy.
        training: whether the batch's statistics are used and averaged.

    Returns:
        tensor like `inputs`.
    """
    gamma, beta, mean, variance = (
        tf.cast(v.value, tf.float32) for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    if not training:
        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, mean, variance, epsilon=layer.epsilon, is_training=False
        )
        return outputs
    outputs, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
        inputs, gamma, beta, epsilon=layer.epsilon, is_training=True
    )
    for variable, value in ((layer.moving_mean, new_mean), (layer.moving_variance, new_variance)):
        variable.assign(variable.value * layer.momentum + tf.stop_gradient(value) * (1 - layer.momentum))
    return outputs
