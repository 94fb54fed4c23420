"""Backbones from keras.applications, KerasHub and other functional Keras models, by layer names or by strides."""

import difflib

import keras

STRIDES = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
# Input size for finding strides: large enough that padding layers, which add a row, do not give the size of a level.
_CANVAS = (256, 352)


def from_keras(model, levels=None):
    """Turn a Keras model into a backbone: the same layers and weights, with outputs {"C2": …, "C5": …}.

    The network's input normalisation must be passed to `MaskRCNN` as `pixel_mean` and `pixel_std`:

    | keras.applications (weights of ImageNet)      | pixel_mean             | pixel_std             |
    |-----------------------------------------------|------------------------|-----------------------|
    | MobileNet, MobileNetV2, ResNet…V2, Xception   | (127.5, 127.5, 127.5)  | (127.5, 127.5, 127.5) |
    | EfficientNet, EfficientNetV2, ConvNeXt,       | (0, 0, 0)              | (1, 1, 1)             |
    | MobileNetV3 (contain a rescaling layer)       |                        |                       |
    | DenseNet                                      | MaskRCNN's defaults    | MaskRCNN's defaults   |
    | ResNet50/101/152, VGG (channels B, G, R: flip | (123.68, 116.779,      | (1, 1, 1)             |
    | the first kernel's input axis)                | 103.939)               |                       |

    For KerasHub backbones they follow from the image converter: `pixel_std = 1 / scale`, `pixel_mean = -offset /
    scale`. Batch normalisation trains as configured in the model: set `trainable = False` on those layers to keep their
    statistics when batches are small.

    Args:
        model: functional `keras.Model` with one `[B, H, W, C]` input and without classifier, such as
            `keras.applications.MobileNetV2(include_top=False, input_shape=(None, None, 3))`. A model with a fixed input
            size supports that canvas size only. It keeps its dtype policy.
        levels: dict from levels to layer names, such as {"C3": "block_6_expand_relu", …}. None for the model's
            `pyramid_outputs` if it has them (KerasHub), else for the last layer of each of the strides 4, 8, 16 and 32.

    Returns:
        Functional `keras.Model` from `[B, H, W, C]` to {"C2": `[B, H/4, W/4, …]`, …, "C5": `[B, H/32, W/32, …]`}, for
        H and W that are multiples of 32, or of the coarsest stride in `levels`.

    Raises:
        ValueError: for an unsupported model, an unknown layer (the message lists similar names), or a level of another
            stride.
    """
    image = _image_input(model)
    if levels is not None:
        outputs = {level: _layer_output(model, name) for level, name in levels.items()}
        _check_levels(model, levels)
    else:
        outputs = _pyramid_outputs(model) or _last_of_each_stride(model, image)
    _check_strides(model, image, outputs)
    return keras.Model(image, dict(sorted(outputs.items())), name=model.name)


def _image_input(model):
    """The model's only input, a symbolic `[B, H, W, C]`."""
    inputs = getattr(model, "inputs", None)
    if not isinstance(model, keras.Model) or not inputs:
        raise ValueError(f"{model!r} is not a functional Keras model: from_keras requires symbolic layer outputs")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] is None:
        found = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ValueError(f"{model.name} takes inputs of shape {found}, not one of (None, height, width, channels)")
    return inputs[0]


def _check_levels(model, levels):
    """Levels must be consecutive: the pyramid adds each level to the next finer one, at twice the size."""
    known = list(STRIDES)
    first = known.index(min(levels)) if levels and set(levels) <= set(known) else None
    if first is None or sorted(levels) != known[first : first + len(levels)]:
        raise ValueError(f"levels of {model.name} are {', '.join(levels) or 'none'}, not consecutive ones of C2 … C5")


def _layer_output(model, name):
    outputs = _outputs(model)
    if name not in outputs:
        near = difflib.get_close_matches(str(name), outputs, n=3, cutoff=0.3)
        hint = f"; the nearest names are {', '.join(near)}" if near else ""
        raise ValueError(f"{model.name} has no layer {name!r}{hint}")
    return outputs[name]


def _outputs(model):
    """Outputs of the layers with exactly one, by layer name, in topological order."""
    outputs = {layer.name: getattr(layer, "output", None) for layer in model.layers}
    return {name: tensor for name, tensor in outputs.items() if isinstance(tensor, keras.KerasTensor)}


def _pyramid_outputs(model):
    """KerasHub's {"P2": tensor, …}, the outputs of the stages, with keys C2 … C5."""
    pyramid = getattr(model, "pyramid_outputs", None) or {}
    return {f"C{level[1:]}": tensor for level, tensor in pyramid.items() if f"C{level[1:]}" in STRIDES}


def _last_of_each_stride(model, image):
    outputs = _outputs(model)
    strides = _strides(image, outputs)
    # The last layer of each stride.
    last = {stride: outputs[name] for name, stride in strides.items()}
    missing = [str(stride) for stride in STRIDES.values() if stride not in last]
    if missing:
        raise ValueError(f"{model.name} has no layer of stride {', '.join(missing)}: specify the layers with `levels`")
    return {level: last[stride] for level, stride in STRIDES.items()}


def _check_strides(model, image, outputs):
    found = _strides(image, outputs)
    names = {id(tensor): name for name, tensor in _outputs(model).items()}
    for level, tensor in outputs.items():
        if found.get(level) != STRIDES[level]:
            actual = f"has stride {found[level]}" if level in found else "has no integer stride"
            layer = names.get(id(tensor), tensor.name)
            raise ValueError(f"{level} of {model.name}, layer {layer!r}, {actual}; {level} is stride {STRIDES[level]}")


def _strides(image, outputs):
    """Strides of tensors by name, without those whose shape is not `[B, H / stride, W / stride, C]`."""
    height, width = (given or usual for given, usual in zip(image.shape[1:3], _CANVAS, strict=True))
    shapes = keras.Model(image, outputs).compute_output_shape((1, height, width, image.shape[-1]))
    strides = {}
    for name, shape in shapes.items():
        stride = height // shape[1] if len(shape) == 4 and shape[1] else 0
        if stride and tuple(shape[1:3]) == (height / stride, width / stride):
            strides[name] = stride
    return strides
