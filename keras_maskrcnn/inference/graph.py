"""The graph that inference engines convert: images in, detections out, in operations that all of them have.

Inside it, the canvas and what the network finds there have names. A reader can so run the network alone, on images that
`Placement.batch` has placed, with the results of the model: `detect` places tiles and mirrored images itself.
"""

import typing

from keras_maskrcnn import backend
from keras_maskrcnn.heads.outputs import exported, of_objects
from keras_maskrcnn.layers.region_pooling import Pooled, observed

CANVAS = ("canvas_images", "canvas_sizes")
THRESHOLDS = ("score_threshold", "nms_iou")
POOLED = "pooled"  # begins the names of the tensors of `PooledNames`


class EngineGraph(typing.NamedTuple):
    """A graph to be converted, as a whole and as its two parts.

    Attributes:
        function: `tf.function` of the tensors in `signature`, to a dict of tensors.
        signature: list of `TensorSpec`: `images`, and for models of objects the names in `THRESHOLDS`.
        defaults: dict of the thresholds' values, which become constants of the file.
        public: names of the outputs of the file, those of a SavedModel; empty until a function with the network is
            traced, as is `pooled`: no engine needs all of the functions, and each trace takes seconds.
        network: names of the inner tensors that the network computes from those in `CANVAS`, by the names of its
            outputs.
        parts: two `tf.function`s: of the images, to the tensors in `CANVAS` and `image_size`; and of these and the
            thresholds, to all other tensors, those of `pooled` included.
        pooled: list of `PooledNames`, of the calls of RoIAlign and its relatives.
    """

    function: typing.Any
    signature: list
    defaults: dict
    public: list
    network: dict
    parts: tuple
    pooled: list


class PooledNames(typing.NamedTuple):
    """Names of the tensors of a `layers.region_pooling.Pooled` in the second part of the graph.

    Attributes:
        layer: the `RegionPooling`.
        features: list of names, finest level first; the others as in `Pooled`.
    """

    layer: typing.Any
    features: list
    boxes: str
    image_index: str
    levels: str
    regions: str


def network_outputs(schema):
    """Names of the inner tensors by the names of those outputs of the network that are exported."""
    names = [output.name for output in schema if output.exported] + ["valid"] * bool(of_objects(schema))
    return {name: f"canvas_{name}" for name in names}


def engine_graph(model, placement, batch=None, dynamic=()):
    """The graph of a model from images of any size to detections.

    Args:
        model: an `ImageModel`.
        placement: `Placement` of the images, the model's or one with a `canvas`.
        batch: number of images, or None for any.
        dynamic: operations of `backend.lowering` whose sizes may depend on the image; all others have static shapes.

    Returns:
        `EngineGraph`.
    """
    import tensorflow as tf

    limits = model.detection.limits()
    defaults = {name: getattr(limits, name) for name in THRESHOLDS if of_objects(model.schema)}
    image_type, network, public, pooled = model.image_type, network_outputs(model.schema), [], []
    signature = [tf.TensorSpec([batch, None, None, image_type.channels], image_type.dtype, name="images")]
    signature += [tf.TensorSpec([], tf.float32, name=name) for name in defaults]

    def place(images):
        placed, size = placement.graph(images, portable=True)
        sizes = tf.tile(size[None], [tf.shape(placed)[0], 1])
        tensors = zip((*CANVAS, "image_size"), (placed, sizes, tf.shape(images)[1:3]), strict=True)
        return {name: tf.identity(values) for name, values in tensors}

    def run(images, sizes, image_size, *thresholds):
        inputs = {"images": images, "sizes": sizes, **dict(zip(defaults, thresholds, strict=True))}
        with backend.static_shapes_scope(True), backend.dynamic_scope(*dynamic), observed() as seen:
            found = model(inputs, training=False)
            canvas = tf.unstack(tf.shape(images)[1:3])
            answer = exported(model.schema, found, sizes, tf.unstack(image_size), canvas)
        public[:] = answer
        answer |= {inner: tf.identity(found[name]) for name, inner in network.items()}
        pooled[:] = [_name_pooled(number, call, answer) for number, call in enumerate(seen)]
        return answer

    def whole(images, *thresholds):
        placed = place(images)
        found = run(*placed.values(), *thresholds)
        shown = {name: tensor for name, tensor in found.items() if not name.startswith(POOLED)}
        return {**shown, **{name: placed[name] for name in CANVAS}}

    canvas = placement.one_canvas or (None, None)
    shapes = ([batch, *canvas, image_type.channels], [batch, 2])
    between = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(CANVAS, shapes, strict=True)]
    between.append(tf.TensorSpec([2], tf.int32, name="image_size"))
    function, *parts = (
        tf.function(part, input_signature=specs, autograph=False)
        for part, specs in ((whole, signature), (place, signature[:1]), (run, [*between, *signature[1:]]))
    )
    return EngineGraph(function, signature, defaults, public, network, tuple(parts), pooled)


def _name_pooled(number, call, answer):
    """Adds the tensors of a `Pooled` to the outputs; returns `PooledNames`."""
    import tensorflow as tf

    def named(name, tensor):
        answer[f"{POOLED}{number}_{name}"] = tf.identity(tensor)
        return f"{POOLED}{number}_{name}"

    features = [named(f"level{level}", feature) for level, feature in enumerate(call.features)]
    return PooledNames(call.layer, features, *(named(name, getattr(call, name)) for name in Pooled._fields[2:]))
