"""`convert`: published weights of other libraries to a `.keras` file."""

import importlib
import pathlib

from keras_maskrcnn.cli.common import counted

EXAMPLE = "--preset mask_rcnn_resnet50_fpn maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth --output coco.keras"
SOURCES = ("torchvision", "detectron2", "matterport", "yolact")
SUFFIXES = (".keras", ".weights.h5")


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("file", type=pathlib.Path, metavar="FILE", help="the published weights (.pth, .pkl, .safetensors, .h5)")
    add("--preset", required=True, metavar="NAME", help="the model that fits the weights; `info` lists the presets")
    add("--source", choices=SOURCES, help="naming scheme of the file (default: the preset's)")
    add("--output", required=True, type=pathlib.Path, metavar="FILE", help="file to write: .keras or .weights.h5")
    add("--num-classes", type=int, metavar="K", help="classes without background (default: the file's)")
    add("--class-names", metavar="FILE", help='one name per line, or "coco" (default: COCO\'s for 80 or 90 classes)')


def run(args):
    """Converts published weights of torchvision, detectron2, matterport or YOLACT's authors to a model file."""
    if not args.output.name.endswith(SUFFIXES):
        raise ValueError(f"{args.output}: give a file that ends in {' or '.join(SUFFIXES)}")
    from keras_maskrcnn.models import presets
    from keras_maskrcnn.models.image_model import ImageModel
    from keras_maskrcnn.weights import assign, files

    source = args.source or presets.read(args.preset)["weights"]["source"]
    arrays = files.read(args.file, source)
    stored = importlib.import_module(f"keras_maskrcnn.weights.{source}").num_classes(arrays)
    classes = stored if args.num_classes is None else args.num_classes
    if classes is None:
        raise ValueError(f"{args.file}: has no class scores, so give --num-classes")
    names, origin = _class_names(args.class_names, classes, stored)
    model = ImageModel.from_preset(args.preset, classes, class_names=names)
    report = assign.fill(model, arrays, source, args.file)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    (model.save if args.output.suffix == ".keras" else model.save_weights)(args.output)
    print(f"{args.file}: {counted(report.loaded, 'variable')} of {args.preset} loaded, {classes} classes, {origin}")
    for what, layers in (("not loaded, to be trained", report.reinitialised), ("left out", report.unused)):
        if layers:
            print(f"{what}: {', '.join(layers)}")
    print(f"written: {args.output}")
    print(f"{'train' if report.reinitialised else 'try'} it: {_next(args, model, report.reinitialised)}")
    return 0


def _class_names(source, classes, stored):
    """The class names, or None, and where they come from."""
    from keras_maskrcnn.data.coco_names import LAYOUTS, coco_names

    if source == "coco" or (source is None and classes == stored and classes in LAYOUTS):
        return coco_names(classes), "COCO's names"
    if source is None:
        return None, "no names"
    from keras_maskrcnn.data.paths import regular

    lines = regular(pathlib.Path(source)).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()], f"names of {source}"


def _next(args, model, untrained):
    if args.output.suffix == ".keras" and not untrained:
        return f"python -m keras_maskrcnn predict --model {args.output} IMAGE --output predictions"
    if args.output.suffix == ".keras":
        return f"import keras_maskrcnn, keras; model = keras.saving.load_model({str(args.output)!r})"
    made = f"{args.preset!r}, num_classes={model.num_classes}, weights={str(args.output)!r}"
    return f"{type(model).__name__}.from_preset({made})"
