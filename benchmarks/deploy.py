"""A model in every format that it can be exported to: time of a call, size, and AP.

    python benchmarks/deploy.py --model nuclei --dataset nuclei --data NUCLEI --int8 PICTURES \
        --output benchmarks/results/deploy_nuclei.json
    python benchmarks/deploy.py --model runs/demo/model.keras --dataset shapes --limit 100

A call starts with the image and ends with pasted masks. `--int8` adds 8 bits where the format has them, calibrated with
the pictures in that folder, which should not be those of the data set. Formats whose package is missing are left out.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import pairs
import reports

# Format, precision, and options of its reader.
VARIANTS = (
    ("keras", "float32", {}),
    ("saved_model", "float32", {}),
    ("onnx", "float32", {}),
    ("openvino", "float32", {}),
    ("openvino", "bfloat16", {"precision": "bfloat16"}),
    ("litert", "float32", {}),
    ("litert", "float16", {}),
    ("litert", "int8", {}),
)
NAMES = {"saved_model": "model", "onnx": "model.onnx", "openvino": "model.xml", "litert": "model.tflite"}
FIGURES = ("bbox_AP", "segm_AP")


def measured(model, dataset, calls, limit):
    """Milliseconds of a call on one image, and AP.

    Args:
        model: an object with `detect` and `detect_each`.
        dataset: any reader of samples.
        calls: timed calls, on the first images.
        limit: images for AP, or None for all.

    Returns:
        dict: `ms`, the median, and the figures in `FIGURES` that the model has.
    """
    from keras_maskrcnn.evaluation.any_model import scores

    images = [dataset[i]["image"] for i in range(min(calls, len(dataset)))]
    model.detect(images[0])
    seconds = []
    for image in images:
        start = time.perf_counter()
        model.detect(image)
        seconds.append(time.perf_counter() - start)
    figures = scores(model, dataset, limit=limit)
    figures = {name: round(float(figures[name]), 4) for name in FIGURES if name in figures}
    return {"ms": round(1e3 * statistics.median(seconds), 2), **figures}


def row(model, variant, samples, options, folder, dataset):
    """The row of a variant, or None where the format does not have it; prints the reason."""
    from keras_maskrcnn.cli.export import size_of
    from keras_maskrcnn.inference.export import opened

    format, precision, reading = variant
    facts = {"format": format, "precision": precision}
    if format == "keras":
        return {**facts, "MB": None, **measured(model, dataset, options.calls, options.limit)}
    path = folder / precision / NAMES[format]
    try:
        size = None if format == "saved_model" else options.image_size
        weights = "float16" if precision == "float16" else None
        model.export(path, image_size=size, calibration=samples, weights=weights)
        size = round(size_of(path) / 1e6, 2)
        return {**facts, "MB": size, **measured(opened(path, **reading), dataset, options.calls, options.limit)}
    except ValueError as error:
        print(f"{format} {precision}: {error}", file=sys.stderr)
        return None


def parse():
    """Arguments of the command line."""
    from keras_maskrcnn.cli import evaluate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    evaluate.data_arguments(parser)
    add = parser.add_argument
    add("--model", required=True, help="a .keras file or a preset with weights")
    add("--limit", type=pairs.positive, metavar="N", help="images for AP (default: all)")
    add("--int8", type=pathlib.Path, metavar="FOLDER", help="pictures for the calibration of 8 bits")
    add("--export-size", dest="image_size", type=int, nargs=2, metavar=("H", "W"), help="one canvas, see `export`")
    add("--formats", nargs="+", choices=tuple(NAMES), default=tuple(NAMES), help="default: all")
    add("--calls", type=pairs.positive, default=20, help="timed calls (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the result as JSON")
    return parser.parse_args()


def main():
    """Prints a line for each variant."""
    options = parse()
    from keras_maskrcnn.cli.common import load
    from keras_maskrcnn.cli.evaluate import dataset_of
    from keras_maskrcnn.cli.export import samples

    model = load(options.model)
    dataset = dataset_of(options).decoded(model.image_type.channels, model.image_type.dtype)
    pictures = options.int8 and samples(options.int8, model.image_type)
    rows = []
    print(f"{'format':12s}{'precision':12s}{'MB':>10s}{'ms':>10s}" + "".join(f"{name:>10s}" for name in FIGURES))
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            format, precision, _ = variant
            if (precision == "int8" and not pictures) or format not in (*options.formats, "keras"):
                continue
            given = pictures if precision == "int8" else None
            found = row(model, variant, given, options, pathlib.Path(folder), dataset)
            if found:
                rows.append(found)
                figures = "".join(f"{found.get(name, float('nan')):10.4f}" for name in FIGURES)
                print(f"{format:12s}{precision:12s}{found['MB'] or 0:10.2f}{found['ms']:10.1f}{figures}", flush=True)
    reports.write(options.output, {**reports.header("deploy.py"), "rows": rows})


if __name__ == "__main__":
    main()
