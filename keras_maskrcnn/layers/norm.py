"""Normalisation layers: batch, frozen batch and group."""

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.backend import replicas

KINDS = ("batch", "sync_batch", "frozen_batch", "group", None)


def norm(kind, name, dtype=None, epsilon=1e-5, groups=32):
    """Create a normalisation layer for channels-last features.

    Args:
        kind: "batch" (batch statistics of the images of one device; for at least eight of them), "sync_batch" (of the
            images of all devices that train together), "frozen_batch" (stored statistics, no
            trainable weights; for fine-tuning pretrained backbones), "group" (independent of the batch size; for
            training from scratch with small batches), or None for no normalisation.
        name: name of the layer.
        dtype: Keras dtype policy.
        epsilon: added to the variance; 1e-5 is torch's value.
        groups: number of groups of group normalisation.

    Returns:
        A Keras layer.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind == "batch":
        return BatchNorm(epsilon=epsilon, momentum=0.9, name=name, dtype=dtype)
    if kind == "sync_batch":
        return BatchNorm(epsilon=epsilon, momentum=0.9, name=name, dtype=dtype, synchronized=True)
    if kind == "frozen_batch":
        return FrozenBatchNorm(epsilon=epsilon, name=name, dtype=dtype)
    if kind == "group":
        return GroupNorm(groups, epsilon=epsilon, name=name, dtype=dtype)
    if kind is None:
        return keras.layers.Identity(name=name, dtype=dtype)
    raise ValueError(f"norm={kind!r} is not one of {KINDS}")


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras batch normalisation over channels-last features, as one fused operation on TensorFlow.

    Takes the arguments of `keras.layers.BatchNormalization`. With `synchronized`, batch statistics are those of the
    images of all replicas of a `tf.distribute` strategy. On JAX they always are: a batch is one array there.

    The outputs are equal on all backends. The moving variance differs: the fused operation averages the unbiased
    variance, n / (n - 1) times the biased one, as torch does; the Keras implementation, used on other backends and for
    statistics of several replicas, averages the biased one. With `valid` the unbiased one is averaged everywhere.
    """

    def __init__(self, *args, synchronized=False, **kwargs):
        super().__init__(*args, **kwargs)  # Keras refuses the argument on other backends than TensorFlow
        self.synchronized = bool(synchronized)

    def constants(self, training):
        """Scale and offset of the layer, float32 `[C]`; None if they depend on the batch."""
        if (training and self.trainable) or not (self.scale and self.center and self.axis in (-1, 3)):
            return None
        return _constants(self)

    def call(self, inputs, training=None, mask=None, valid=None):
        """Normalise `[B, H, W, C]`, with batch statistics if `training` and trainable, else with stored ones.

        Args:
            inputs: `[B, H, W, C]`.
            training: whether batch statistics are used and added to the moving averages.
            mask: as for `keras.layers.BatchNormalization`.
            valid: bool `[B]`, the rows that batch statistics are computed from; None for all. Without a valid row the
                moving averages stay as they are.

        Raises:
            ValueError: for `valid` together with other axes or options than Keras' defaults.
        """
        if valid is not None and training and self.trainable:
            return self._normalise_valid(inputs, valid)
        if not backend.is_tensorflow() or mask is not None or not self._can_fuse(inputs, training):
            return super().call(inputs, training=training, mask=mask)
        from keras_maskrcnn.backend.tensorflow.normalisation import batch_norm

        return batch_norm(self, inputs, training=bool(training) and self.trainable)

    def _normalise_valid(self, inputs, valid):
        """Normalise with the statistics of the valid rows; the other rows get the offset and no gradient."""
        if not self._is_usual(inputs):
            raise ValueError(f"{self.name}: valid rows need channels last and Keras' default options")
        total = replicas.total if self._over_replicas() else lambda values: values
        values, valid = ops.cast(inputs, "float32"), ops.cast(valid, "bool")
        count = total(ops.sum(ops.cast(valid, "float32")) * ops.cast(ops.prod(ops.shape(inputs)[1:3]), "float32"))
        divisor, row = ops.maximum(count, 1.0), valid[:, None, None, None]
        mean = total(ops.sum(ops.where(row, values, 0.0), axis=(0, 1, 2))) / divisor
        centred = ops.where(row, values - mean, 0.0)
        variance = total(ops.sum(ops.square(centred), axis=(0, 1, 2))) / divisor
        kept = ops.where(count > 0, self.momentum, 1.0)
        unbiased = variance * (divisor / ops.maximum(divisor - 1.0, 1.0))
        for variable, value in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            variable.assign(variable.value * kept + ops.stop_gradient(value) * (1 - kept))
        gamma, beta = (ops.cast(w, "float32") for w in (self.gamma, self.beta))
        return ops.cast(centred * (gamma * ops.rsqrt(variance + self.epsilon)) + beta, inputs.dtype)

    def _moments(self, inputs, mask):
        """Mean and variance of the batch, see `keras.layers.BatchNormalization`."""
        synchronized, self.synchronized = self.synchronized, self._over_replicas()
        try:
            return super()._moments(inputs, mask)
        finally:
            self.synchronized = synchronized

    def _over_replicas(self):
        return self.synchronized and replicas.number() > 1

    def _is_usual(self, inputs):
        """Whether channels are last and the options are Keras' defaults."""
        return len(inputs.shape) == 4 and self.axis in (-1, 3) and self.scale and self.center and not self.renorm

    def _can_fuse(self, inputs, training):
        """Whether the fused operation supports the layer's options."""
        return self._is_usual(inputs) and not (training and self._over_replicas())


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class FrozenBatchNorm(keras.layers.Layer):
    """Batch normalisation with stored statistics and no trainable weights.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        """Create gamma, beta, moving_mean and moving_variance, all non-trainable."""
        shape = (input_shape[-1],)
        # Kept in float32 under any policy: scale and offset are computed first and rounded once.
        constant = {"shape": shape, "trainable": False, "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **constant)
        self.beta = self.add_weight(name="beta", initializer="zeros", **constant)
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **constant)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **constant)

    def constants(self, training=False):
        """Scale and offset of the layer, float32 `[C]`."""
        del training  # they never depend on the batch
        return _constants(self)

    def call(self, inputs, training=False):
        """Normalise `[..., C]` with the stored statistics."""
        scale, offset = self.constants(training)
        return inputs * ops.cast(scale, inputs.dtype) + ops.cast(offset, inputs.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


def _constants(norm):
    """Scale and offset equivalent to a normalisation with stored statistics."""
    gamma, beta, mean, variance = (
        ops.cast(w, "float32") for w in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma * ops.rsqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu & He 2018), computed from the moments of each channel.

    Averaging over space first gives moments `[B, C]`, so the large tensor is not reshaped. Squares are those of
    deviations from the channel's mean: E[x²] - E[x]² has no correct digit where the mean is a thousand deviations.

    Args:
        groups: number of groups; reduced to the number of channels if that is smaller.
        epsilon: added to the variance.
    """

    def __init__(self, groups=32, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.groups, self.epsilon = groups, epsilon

    def build(self, input_shape):
        """Create gamma and beta.

        Raises:
            ValueError: if the number of channels is not divisible by the number of groups.
        """
        channels = input_shape[-1]
        if channels % min(self.groups, channels):
            raise ValueError(f"{channels} channels are not divisible into {self.groups} groups")
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros", autocast=False)

    def call(self, inputs):
        """Normalise `[B, H, W, C]` per image and group."""
        channels = inputs.shape[-1]
        groups = min(self.groups, channels)
        values = ops.cast(inputs, "float32")
        means, within = ops.moments(values, axes=(1, 2))  # whose gradient keeps no deviations of all pixels
        means, within = (ops.reshape(moment, (-1, groups, channels // groups)) for moment in (means, within))
        mean = ops.mean(means, axis=-1, keepdims=True)
        variance = ops.mean(within + ops.square(means - mean), axis=-1, keepdims=True)
        inverse = ops.rsqrt(variance + self.epsilon)
        gamma, beta = (ops.reshape(ops.cast(w, "float32"), (groups, -1)) for w in (self.gamma, self.beta))
        scale = ops.reshape(inverse * gamma, (-1, 1, 1, channels))
        offset = ops.reshape(beta - mean * inverse * gamma, (-1, 1, 1, channels))
        return inputs * ops.cast(scale, inputs.dtype) + ops.cast(offset, inputs.dtype)

    def get_config(self):
        """Constructor arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
