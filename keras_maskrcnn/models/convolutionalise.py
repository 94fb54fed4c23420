"""Classifiers as fully convolutional networks (Long et al. 2015, section 3.1): dense layers become convolutions."""

import keras
from keras import layers

# What may stand between dense layers: layers that act on each number alone, and on each vector alone.
ELEMENTWISE = (layers.Dropout, layers.ReLU, layers.LeakyReLU, layers.ELU)
VECTORWISE = (*ELEMENTWISE, layers.Activation, layers.Softmax, layers.BatchNormalization, layers.LayerNormalization)


def convolutionalise(model, image_size=None):
    """Turn a classifier into a network from images of any size to maps of class scores.

    Everything before `Flatten` or `GlobalAveragePooling2D` is kept. The first dense layer after `Flatten` becomes a
    convolution of the size of the map that was flattened, a global average an average pooling of that size, and further
    dense layers become 1×1 convolutions, all with the same weights.

    An image of the classifier's size gives one cell, its output. Of a larger image each cell is the output for the
    window of that size at its place, if the convolutions have padding="valid"; where they pad, the zeros at the border
    of a window are pixels of the larger image.

    Args:
        model: `keras.Sequential` or functional model `[B, H, W, C]` to `[B, K]`, channels last: any layers that take
            maps of all sizes, one `Flatten` or `GlobalAveragePooling2D`, and a chain of dense layers and `VECTORWISE`
            ones.
        image_size: (height, width) that the classifier takes; None for that of its input.

    Returns:
        keras.Model `[B, H, W, C]` to `[B, h, w, K]`.

    Raises:
        ValueError: in one line, for a layer that cannot be turned, several inputs or outputs, or an unknown size.
    """
    bridge, head = _divided(model)
    image = model.inputs[0]
    sides = tuple(image_size or image.shape[1:3])
    if None in sides:
        raise ValueError(f"{model.name} takes images of any size: give the image_size that it was trained with")
    pixels = keras.Input((None, None, image.shape[-1]), dtype=image.dtype, name="images")
    trunk, features = _opened(model, bridge, pixels)
    window = tuple(features.compute_output_shape((1, *sides, image.shape[-1]))[1:3])
    values = features.output
    if isinstance(bridge, layers.GlobalAveragePooling2D):
        values, window = layers.AveragePooling2D(window, 1, name=bridge.name, dtype=bridge.dtype_policy)(values), (1, 1)
    turned = [*_turned(model, head, window)]
    for layer in turned:
        values = layer(values)
    result = keras.Model(pixels, values, name=f"{model.name}_convolutional")
    features.set_weights(trunk.get_weights())
    for ours, theirs in zip(turned, head, strict=True):
        pairs = zip(theirs.get_weights(), ours.weights, strict=True)
        ours.set_weights([array.reshape(variable.shape) for array, variable in pairs])
    return result


def _divided(model):
    """The layer that ends the maps, and the list of those behind it."""
    if not getattr(model, "inputs", None) or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"{model.name} must be a built Sequential or functional model with one input and one output")
    if len(model.inputs[0].shape) != 4:
        raise ValueError(f"{model.name} must take images [B, H, W, C], not {list(model.inputs[0].shape)}")
    ends = [layer for layer in model.layers if isinstance(layer, layers.Flatten | layers.GlobalAveragePooling2D)]
    if len(ends) != 1:
        raise ValueError(f"{model.name} must have one Flatten or GlobalAveragePooling2D, not {len(ends)}")
    (bridge,) = ends
    if bridge.data_format != "channels_last" or len(bridge.input.shape) != 4:
        raise ValueError(f"layer {bridge.name!r} of {model.name} must take maps [B, H, W, C]")
    head = model.layers[model.layers.index(bridge) + 1 :]
    if not isinstance(model, keras.Sequential):  # which is a chain
        _check_chain(model, bridge, head)
    return bridge, head


def _check_chain(model, bridge, head):
    values = bridge.output
    for layer in head:
        if layer.input is not values:
            raise ValueError(f"layer {layer.name!r} of {model.name} is not in a chain behind {bridge.name!r}")
        values = layer.output
    if values is not model.outputs[0]:
        raise ValueError(f"the layers behind {bridge.name!r} do not end with the output of {model.name}")


def _opened(model, bridge, pixels):
    """The layers before `bridge`, as they are and as new layers that take images of any size."""
    trunk = keras.Model(model.inputs[0], bridge.input)
    try:
        return trunk, keras.models.clone_model(trunk, input_tensors=pixels)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model.name} has a layer that does not take maps of any size: {reason}") from error


def _turned(model, head, window):
    """Yields the layers behind the bridge as layers on maps; `window` is the size of the map that was flattened."""
    for layer in head:
        if isinstance(layer, layers.Dense):
            yield layers.Conv2D(
                layer.units,
                window,
                activation=layer.activation,
                use_bias=layer.use_bias,
                name=layer.name,
                dtype=layer.dtype_policy,
            )
            window = (1, 1)
        elif isinstance(layer, VECTORWISE if window == (1, 1) else ELEMENTWISE):
            config = layer.get_config()
            yield type(layer).from_config({**config, **({"axis": -1} if "axis" in config else {})})
        else:
            kind = type(layer).__name__
            raise ValueError(f"layer {layer.name!r} ({kind}) of {model.name} cannot be turned into a convolution")
    if window != (1, 1):
        raise ValueError(f"{model.name} has no dense layer behind its Flatten")
