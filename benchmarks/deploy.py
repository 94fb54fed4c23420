r"""Formats to run a trained model in: milliseconds an image, megabytes of the file, and AP, by device and precision.

    python benchmarks/deploy.py --nuclei DATA/nuclei --shapes runs/shapes/model.keras \
        --output benchmarks/results/deploy.json --docs docs
    python benchmarks/deploy.py --redraw benchmarks/results/deploy.json --docs docs

The models are the preset `nuclei` on the validation images of its data, and a model of `train/shapes.py` on that
recipe's validation images. `VARIANTS` lists formats and precisions. A format whose package is not installed, one that
refuses the model, and bfloat16 on a processor without its instructions are left out, with the reason.

Every variant is written to a file and loaded as `predict --model` loads it, in a process of its own. `detect` is timed
on some of the images, one at a time, all variants in turn; it starts with the uint8 image and ends with masks at its
size. AP is that of all images; a LiteRT file fits those larger than its canvas into it. Files have a minimum score of
0.05, at which all are scored, and are timed at 0.5. INT8 of OpenVINO is calibrated with 100 of the training images.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import pathlib
import sys
import tempfile

import machine
import pairs
import reports

PACKAGES = ("tensorflow", "keras", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "numpy")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "float32", "int8": "float32"}
CALIBRATION = 100  # training images


@dataclasses.dataclass(frozen=True)
class Variant:
    """A format and a precision.

    Attributes:
        runtime: what runs the file, as the table names it.
        format: of `model.export`, or "keras" for `model.save`.
        file: name of the file or folder; its suffix tells `load` the format.
        precision: a name in `POLICIES`.
        needs: modules that write or run it, beside TensorFlow.
        reading: pairs of arguments of `inference.export.opened`.
        options: pairs of further arguments of `model.export`, such as `("image_size", (256, 256))`.
        calibrated: whether `model.export` takes training images.
    """

    runtime: str
    format: str
    file: str
    precision: str
    needs: tuple = ()
    reading: tuple = ()
    options: tuple = ()
    calibrated: bool = False

    def __str__(self):
        return f"{self.runtime}, {self.precision}"


# For the preset `nuclei`, whose images most often have this size; a model that has a canvas keeps its own.
CANVAS = (("image_size", (256, 256)),)
VARIANTS = (
    Variant("Keras", "keras", "model.keras", "float32"),
    Variant("Keras", "keras", "model.keras", "bfloat16"),
    Variant("SavedModel", "saved_model", "model", "float32"),
    Variant("SavedModel", "saved_model", "model", "bfloat16"),
    Variant("ONNX Runtime", "onnx", "model.onnx", "float32", ("onnx", "onnxruntime", "tf2onnx")),
    Variant("OpenVINO", "openvino", "model.xml", "float32", ("openvino",)),
    Variant("OpenVINO", "openvino", "model.xml", "bfloat16", ("openvino",), (("precision", "bfloat16"),)),
    Variant("OpenVINO", "openvino", "model.xml", "int8", ("openvino", "nncf"), calibrated=True),
    Variant("LiteRT", "litert", "model.tflite", "float32", ("ai_edge_litert",), options=CANVAS),
    *(
        Variant(
            "LiteRT", "litert", "model.tflite", weights, ("ai_edge_litert",), options=(*CANVAS, ("weights", weights))
        )
        for weights in ("float16", "int8")
    ),
)
FORMATS = tuple(dict.fromkeys(variant.format for variant in VARIANTS))
SETS = ("nuclei", "shapes")


def images_of(name, options, split="val"):
    """The validation or training images of a data set by its name."""
    from keras_maskrcnn import data

    if name == "nuclei":
        return data.Nuclei(options.nuclei, split)
    return data.Shapes(200, image_size=(128, 128), seed={"train": 1, "val": 2}[split])  # the recipe's defaults


def calibration(name, options):
    """`CALIBRATION` training images of a data set by its name, spread evenly over it."""
    train = images_of(name, options, "train")
    return [train[number * len(train) // CALIBRATION]["image"] for number in range(CALIBRATION)]


# Files ------------------------------------------------------------------------------------------------------------


def write(model, variant, folder, **given):
    """Writes a variant of a model into a folder, and returns the path of the file.

    Args:
        model: an `ImageModel`.
        variant: `Variant`.
        folder: new folder.
        **given: further arguments of `model.export`.
    """
    from keras_maskrcnn.heads.detection import ALL
    from keras_maskrcnn.inference.export import reconfigured

    folder.mkdir(parents=True)
    path = folder / variant.file
    changed = reconfigured(model, POLICIES[variant.precision], score_threshold=ALL)
    if variant.format == "keras":
        changed.save(path)
    else:
        changed.export(path, format=variant.format, **dict(variant.options), **given)
    return path


def why_not(variant):
    """The reason why this machine cannot run a variant, or None."""
    missing = [name for name in variant.needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if variant.precision == "bfloat16" and not machine.has_bfloat16():
        return "the processor has no bfloat16 instructions"
    return None


def written(name, variants, options, place):
    """Files of a model in the variants that this machine and the model can have.

    Returns:
        (files, skipped): dict from `Variant` to a path, and list of dicts with `data`, `variant` and `reason`.
    """
    from keras_maskrcnn.cli.common import load

    model = load("nuclei" if name == "nuclei" else options.shapes)
    files, skipped = {}, []
    for number, variant in enumerate(variants):
        reason = why_not(variant)
        if reason is None:
            try:
                given = {"calibration": calibration(name, options)} if variant.calibrated else {}
                files[variant] = write(model, variant, place / str(number), **given)
            except Exception as error:  # converters raise what they like
                reason = " ".join(f"{type(error).__name__}: {error}".split())
        if reason:
            print(f"{name}: {variant} is left out: {reason}", flush=True)
            skipped.append({"data": name, "variant": str(variant), "reason": reason})
    return files, skipped


def megabytes(path):
    """Size of the file at a path and of those beside and below it, in MB of 10⁶ bytes."""
    return round(sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()) / 1e6, 3)


# Worker -----------------------------------------------------------------------------------------------------------


def opened(path, reading):
    """The model in a file, with arguments of its reader."""
    from keras_maskrcnn.cli.common import load
    from keras_maskrcnn.inference import export

    return export.opened(path, **reading) if reading else load(path)


def case(text, options):
    """The timed call of a file, for a worker; its facts have the scores.

    Args:
        text: JSON with `data`, the name of the data set, `file`, and `reading`, arguments of its reader.
        options: arguments of the command line.
    """
    import numpy as np

    from keras_maskrcnn import evaluation
    from keras_maskrcnn.heads.detection import ALL, SHOWN

    asked = json.loads(text)
    model, val = opened(asked["file"], asked["reading"]), images_of(asked["data"], options)
    most = model.predictor.detection.max_detections
    limits = {"score_threshold": ALL, "max_detections": most, "batch_size": 1}
    scores = evaluation.coco_scores(model, val, **limits, limit=options.limit)
    places = np.unique(np.linspace(0, len(val) - 1, min(options.images, len(val))).astype(int))
    images = [val[int(place)]["image"] for place in places]
    figures = {kind: scores.get(f"{kind}_AP") for kind in ("bbox", "segm")}

    def call():
        found = [model.detect(image, score_threshold=SHOWN, max_detections=most) for image in images]
        return {"images": len(images), "detections": sum(len(one["scores"]) for one in found), "AP": figures}

    return call, 1


# Report -----------------------------------------------------------------------------------------------------------


def timed(name, files, options):
    """Rows of the report: every file of a model in a worker of its own, all in turn."""
    words = [sys.executable, __file__, "--worker", "ours", "--images", options.images]
    words += ["--nuclei", options.nuclei] if options.nuclei else []
    words += ["--limit", options.limit] if options.limit else []
    questions = {
        variant: json.dumps({"data": name, "file": str(path), "reading": dict(variant.reading)})
        for variant, path in files.items()
    }
    answers = {variant: [] for variant in files}
    with contextlib.ExitStack() as stack:
        workers = {}
        for variant, question in questions.items():
            workers[variant] = stack.enter_context(pairs.Worker(str(variant), [str(word) for word in words]))
            workers[variant].ask(question)  # loads, scores and warms up
        for _ in range(options.rounds):
            for variant, question in questions.items():
                answers[variant].append(workers[variant].ask(question))
    return [row(name, variant, megabytes(path), answers[variant]) for variant, path in files.items()]


def row(name, variant, size, answers):
    """A row of the report."""
    facts = answers[-1]["facts"]
    ms = [1e3 * answer["seconds"] / facts["images"] for answer in answers]
    return {
        "data": name,
        "runtime": variant.runtime,
        "format": variant.format,
        "precision": variant.precision,
        "device": device(variant),
        "ms": reports.spread(ms),
        "mb": size,
        **facts,
    }


def device(variant):
    """The device of a variant: "GPU" for what TensorFlow runs where it sees one, else "CPU"."""
    import tensorflow as tf

    on_gpu = variant.format in ("keras", "saved_model") and tf.config.list_physical_devices("GPU")
    return "GPU" if on_gpu else "CPU"


def run(options):
    """Writes, scores and times the files of one model after the other; the report is written after each."""
    report = {**reports.header("deploy.py"), "versions": machine.versions(PACKAGES), "rows": [], "skipped": []}
    variants = [variant for variant in VARIANTS if variant.format in options.formats]
    for name in SETS:
        if getattr(options, name) is None:
            continue
        with tempfile.TemporaryDirectory() as place:
            files, skipped = written(name, variants, options, pathlib.Path(place))
            report["rows"] += timed(name, files, options)
            report["skipped"] += skipped
        reports.write(options.output, report)
    return report


def table(report):
    """Markdown: where the figures are from, a row for each model and variant, and what is left out."""
    origin = f"{report['machine']}, {report['date']}; {reports.versions(report['versions'])}"
    lines = [
        f"`benchmarks/deploy.py`, {origin}.",
        "",
        "| model | runs in | device | precision | ms an image | file, MB | box AP | mask AP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in report["rows"]:
        numbers = [f"{one['ms']['median']:.1f}", f"{one['mb']:.1f}"]
        numbers += [f"{score:.3f}" if score is not None else "–" for score in one["AP"].values()]
        lines.append(f"| {' | '.join((one['data'], one['runtime'], one['device'], one['precision'], *numbers))} |")
    left_out = [f"- {one['data']}, {one['variant']}: {one['reason']}" for one in report["skipped"]]
    return "\n".join([*lines, *(["", "Left out:", "", *left_out] if left_out else [])])


def parse(words=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--nuclei", type=pathlib.Path, metavar="FOLDER", help="data of the preset nuclei")
    add("--shapes", type=pathlib.Path, metavar="FILE", help="a .keras file of train/shapes.py")
    add(
        "--formats", nargs="+", choices=FORMATS, default=FORMATS, metavar="FORMAT", help=f"some of {', '.join(FORMATS)}"
    )
    add("--images", type=pairs.positive, default=20, help="images that are timed (default: %(default)s)")
    add("--limit", type=pairs.positive, metavar="N", help="score the first N images only")
    add("--rounds", type=pairs.positive, default=7, help="timings of each variant (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the results as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the table in deploy.md of this folder")
    add("--redraw", type=pathlib.Path, metavar="FILE", help="write --docs from a file of results, without measuring")
    add("--worker", choices=("ours",), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.redraw:
        if not options.redraw.is_file():
            parser.error(f"--redraw {options.redraw}: no such file")
    elif not options.worker:
        if not (options.nuclei or options.shapes):
            parser.error("give --nuclei FOLDER, --shapes FILE, or both")
        for name in SETS:
            path = getattr(options, name)
            if path and not path.exists():
                parser.error(f"--{name} {path}: no such file or folder")
    return options


def main():
    """Parent: writes, times, and prints the table. Worker: serves its file."""
    options = parse()
    if options.worker:
        pairs.serve(functools.partial(case, options=options))
        return
    report = json.loads(options.redraw.read_text(encoding="utf-8")) if options.redraw else run(options)
    print(f"\n{table(report)}")
    if options.docs:
        reports.fill(options.docs / "deploy.md", "deploy", table(report))
        print(f"written: {options.docs / 'deploy.md'}")


if __name__ == "__main__":
    main()
