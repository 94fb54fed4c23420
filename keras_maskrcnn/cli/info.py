"""`info`: versions and devices, a model's options and parameters, conventions of a preset, ImageNet weights."""

import pathlib

from keras_maskrcnn.cli.common import MODEL, PROGRAM, load

# Classes of the presets in the list that have no weights of their own: COCO's.
CLASSES = 80
EXAMPLE = "--preset mask_rcnn_resnet50_fpn --num-classes 22"


def arguments(parser):
    """Adds the verb's arguments."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help=f"describe {MODEL}. {PROGRAM}")
    which.add_argument("--preset", metavar="NAME", help="show a preset's conventions, weights and parameters")
    which.add_argument("--presets", action="store_true", help="list all presets with their parameters (makes each one)")
    which.add_argument(
        "--weights", action="store_true", help="list the ImageNet weights of backbones and their sources"
    )
    which.add_argument("--preset-table", action="store_true", help="print what each preset uses as a Markdown table")
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="K",
        help=f"classes of the presets, without background (default: their weights', or {CLASSES} in the list)",
    )


def run(args):
    """Prints versions and devices, what a model is, the conventions of a preset, all presets, or ImageNet weights."""
    if args.weights:
        print("\n\n".join(map(_text, _weights())))
        return 0
    if args.presets:
        for line in _presets(args.num_classes):
            print(line, flush=True)
        return 0
    if args.preset_table:
        from keras_maskrcnn.cli.preset_table import table

        print(table())
        return 0
    blocks = [_machine()]
    if args.model:
        blocks.append(_model(args.model))
    elif args.preset:
        blocks += _preset(args)
    else:
        from keras_maskrcnn.models import presets

        blocks[0].append(("presets", ", ".join(presets.names())))
    print("\n\n".join(map(_text, blocks)))
    return 0


def _text(rows):
    """Lines of labels and values, with the values aligned."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def _machine():
    import importlib.metadata
    import platform

    import keras

    import keras_maskrcnn

    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    packages = ("keras", "tensorflow", "jax", "torch", "numpy")
    rows = [("keras-maskrcnn", keras_maskrcnn.__version__), ("python", platform.python_version())]
    rows += [(package, version(package)) for package in packages]
    try:
        devices = ", ".join(keras.distribution.list_devices())
    except AttributeError:  # torch
        devices = "not listed by Keras on this backend"
    return [*rows, ("backend", keras.backend.backend()), ("devices", devices), *_lowerings()]


def _lowerings():
    """Rows with the implementation of each operation on this machine, as a graph and compiled by XLA."""
    from keras_maskrcnn import backend
    from keras_maskrcnn.backend.precision import fastest_policy

    def chosen():
        names = {
            "roi_align": "RoIAlign",
            "nms": "NMS",
            "mask_rows": "mask head on rows",
            "large_conv": "large 3×3 convolutions at inference",
        }
        with backend.inference_scope():
            return ", ".join(f"{name} {backend.lowering(operation)}" for operation, name in names.items())

    with backend.static_shapes_scope(True):
        rows = [("implementations, XLA", chosen())]
    if backend.is_tensorflow():
        rows.insert(0, ("implementations, graph", chosen()))
    return [*rows, ("fastest precision", fastest_policy())]


def _weights():
    """Blocks of rows: the ImageNet weights that need no network, whether they are installed, and the others."""
    from keras_maskrcnn.data.errors import DataError
    from keras_maskrcnn.weights import imagenet

    for name, package in imagenet.PACKAGES.items():
        try:
            place = f"yes, {package.checked_path()}" if package.path() else f"no: {imagenet.EXTRA}"
        except DataError as error:
            place = f"no: {error}"
        yield [
            ("imagenet", name),
            ("installed", place),
            ("licence", package.licence),
            ("source", package.source),
            ("sha256", package.sha256),
        ]
    yield [
        ("imagenet", ", ".join(imagenet.KERAS)),
        ("installed", "no: Keras downloads them on first use and keeps them"),
        ("source", "https://keras.io/api/applications/"),
    ]


def _preset(args):
    """Blocks of rows: parameters, conventions and published weights of a preset."""
    from keras_maskrcnn.models import presets
    from keras_maskrcnn.models.image_model import ImageModel

    content = presets.read(args.preset)
    weights = content.get("weights") or {}
    classes = weights.get("classes") if args.num_classes is None else args.num_classes
    if classes is None:
        raise ValueError(f"--preset {args.preset} needs --num-classes")
    model = ImageModel.from_preset(args.preset, num_classes=classes, weights=False)
    yield [("model", args.preset), *_parameters(model), *_receptive_field(model), ("classes", str(classes))]
    yield [("preset", content["description"]), *(content.get("conventions") or {}).items()]
    if weights:
        where = weights.pop("path", None)
        yield [("weights", str(where or "published, not part of this package")), *_known(weights)]


def _presets(num_classes):
    """Lines: a preset's name, classes, parameters with and without batch statistics, and description."""
    from keras_maskrcnn.models import presets
    from keras_maskrcnn.models.image_model import ImageModel
    from keras_maskrcnn.models.parameters import count_parameters

    width = max(map(len, presets.names()))
    yield f"{'preset':<{width}}  classes   parameters  without statistics  description"
    for name in presets.names():
        content = presets.read(name)
        classes = num_classes or content["weights"].get("classes") or CLASSES
        model = ImageModel.from_preset(name, num_classes=classes, weights=False)
        counts = count_parameters(model)
        numbers = f"{classes:>7}  {counts['total']:>11,}  {counts['without_statistics']:>18,}"
        yield f"{name:<{width}}  {numbers}  {content['description']}"
        del model  # the next one is made without this one in memory


def _known(values):
    """Rows of a dict, without values that are None."""
    return [(name, _flat(value)) for name, value in values.items() if value is not None]


def _flat(value):
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _model(path):
    """Rows of a model; a SavedModel does not hold the backbone's name and the parameters."""
    import keras

    from keras_maskrcnn.heads.outputs import of_objects
    from keras_maskrcnn.models import presets

    model = load(path)
    names = f": {', '.join(model.class_names)}" if model.class_names else ", without names"
    rows = [
        ("model", str(path)),
        ("class", type(model).__name__),
        ("classes", f"{model.num_classes}{names}"),
        ("pixels", str(model.image_type)),
        ("images", _images(model.predictor.placement)),
        ("thresholds", _thresholds(model.predictor.detection) if of_objects(model.schema) else None),
        ("precision", getattr(model, "layer_dtype", None)),
        ("backbone", getattr(getattr(model, "backbone", None), "name", None)),
        *_trained(pathlib.Path(path)),
    ]
    if presets.holds_weights(path):
        content = presets.read(path)
        known = {"description": content["description"], **content["weights"]}
        rows += [row for row in _known(known) if row[0] not in ("classes", "path")]
    if isinstance(model, keras.Model):
        rows += [*_parameters(model), *_receptive_field(model)]
    return [row for row in rows if row[1] is not None]


def _images(placement):
    if placement.image_size:
        height, width = placement.image_size
        return f"on a canvas of {height} x {width} pixels (height x width)"
    rule = placement.resize
    sides = f"shorter side {rule.shorter} pixels, longer at most {rule.longer}"
    return f"{sides}, canvas in multiples of {placement.multiple}"


def _thresholds(detection):
    from keras_maskrcnn.heads.detection import ALL, SHOWN

    score = f"{SHOWN} ({ALL} in an export)" if detection.score_threshold is None else detection.score_threshold
    return f"score above {score}, NMS IoU {detection.nms_iou}, at most {detection.max_detections} objects per image"


def _trained(path):
    """Rows from the summary that a recipe writes next to its models."""
    from keras_maskrcnn.data.json_text import read_json

    try:
        summary = read_json(path.parent / "summary.json")
        if path.name not in [pathlib.Path(summary[name] or "").name for name in ("keras_file", "saved_model")]:
            return []
        images, steps = f"{summary['train_images']:,} images", f"{summary['steps']:,} steps of {summary['batch_size']}"
        scores = (
            f"{name} {summary[name]}" for name in ("bbox_AP", "segm_AP", "keypoints_AP", "mean_IoU") if name in summary
        )
        return [("trained by", summary["command"]), ("  on", f"{images}, {steps}"), ("  scores", ", ".join(scores))]
    except (OSError, ValueError, KeyError):  # no summary, or one of another program
        return []


def _parameters(model):
    from keras_maskrcnn.models.parameters import count_parameters

    if hasattr(model, "backbone"):
        counts = count_parameters(model)
    else:
        counts = {"total": sum(layer.count_params() for layer in model.layers)}
    labels = {
        "total": "parameters",
        "trainable": "  trainable now",
        "without_statistics": "  without batch statistics",
        "without_backbone_norm": "without the backbone's batch-norm scales and offsets",
        "trainable_frozen_stem": "  trainable with stem and first stage frozen",
    }
    return [(labels[key], f"{count:,}") for key, count in counts.items()]


def _receptive_field(model):
    """A row with the receptive field of the units of each level of the backbone, in pixels per side."""
    from keras_maskrcnn.receptive_field import receptive_field

    if not isinstance(getattr(getattr(model, "backbone", None), "output", None), dict):
        return []
    try:
        sizes = {level: receptive_field(model.backbone, level, then=())[0] for level in sorted(model.backbone.output)}
    except ValueError as error:
        return [("receptive field", str(error))]
    shown = (f"{level} {'whole image' if size == float('inf') else size}" for level, size in sizes.items())
    return [("receptive field", f"{', '.join(shown)} (pixels per side, of the backbone's levels)")]
