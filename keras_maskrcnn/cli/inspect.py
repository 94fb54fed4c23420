"""`inspect`: what is wrong with annotated images, before a model is trained on them."""

import json
import pathlib

from keras_maskrcnn.cli.common import check_outputs, counted, image_type_arguments
from keras_maskrcnn.data.urls import as_path
from keras_maskrcnn.progress import bar

EXAMPLE = "balloon --html balloon.html --fix balloon_fixed.json"
KERAS = False  # neither Keras nor its backend is imported, unless for drawing


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("data", type=as_path, nargs="+", metavar="PATH", help="what data.open takes; the training set first")
    add("--html", type=pathlib.Path, metavar="FILE", help="write a page with plots and drawn images")
    add("--json", type=pathlib.Path, metavar="FILE", help="write the numbers and findings as JSON")
    add(
        "--fix",
        type=pathlib.Path,
        metavar="FILE",
        help="write a repaired COCO JSON file, and a list of the changes next to it",
    )
    add(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="canvas of the network, for the anchors (default: shorter side 800, longer at most 1333)",
    )
    add("--examples", type=int, default=3, metavar="N", help="findings of a kind to print (default: %(default)s)")
    add("--drawn", type=int, default=12, metavar="N", help="worst and random images in the page (default: %(default)s)")
    add("--images", type=pathlib.Path, metavar="FOLDER", help="images of PATH, a COCO JSON file that lies elsewhere")
    image_type_arguments(parser)


def run(args):
    """Finds what is wrong with data sets; exit code 0: fine, 1: errors or warnings, 2: something cannot be read."""
    from keras_maskrcnn import data
    from keras_maskrcnn.cli.inspect_anchors import fit

    check_outputs(args)
    if args.fix and args.fix.suffix != ".json":
        raise ValueError(f"--fix {args.fix}: is not a .json file")
    options = {"images": args.images, "channels": args.channels, "image_dtype": args.image_dtype}
    report = data.inspect(*args.data, step=bar("images"), **options)
    anchors = fit(report.parts, args.image_size)
    _print(report, anchors, args.examples)
    for part in report.parts if args.images is None else ():
        if isinstance(part.dataset, data.Coco) and not part.rows:
            print(f"no image of {part.name} is in {part.dataset.folder}: name their folder by --images FOLDER")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(_content(report, anchors), indent=1) + "\n", encoding="utf-8")
    if args.html:
        from keras_maskrcnn.cli.inspect_page import write_page

        write_page(args.html, report, anchors, args.drawn)
        print(f"page: {args.html}")
    if args.fix:
        _fix(report, args.fix)
    return report.exit_code


def _print(report, anchors, examples):
    for name, numbers in report.statistics.items():
        print(f"{name}: {_line(numbers)}")
    for line in anchors.lines:
        print(line)
    for kind in report.findings.kinds():
        count = report.findings.count(kind.code)
        print(f"\n{kind.level}: {kind.title} ({count}) [{kind.code}]")
        for finding in report.findings.of(kind.code)[:examples]:
            print(f"  {finding.part}: {finding.source}: {finding.detail}")
        if count > examples:
            print(f"  … and {count - examples} more")
    print(f"\nverdict: {report.verdict}")


def _line(numbers):
    """Counts and sizes of a set on one line."""
    parts = [counted(numbers["images"], "image"), counted(numbers["objects"], "object")]
    parts.append(f"{len(numbers['classes'])} classes" if len(numbers["classes"]) > 1 else "1 class")
    parts += [
        f"{numbers[key]} {name}" for key, name in (("crowds", "crowds"), ("unreadable", "unreadable")) if numbers[key]
    ]
    if numbers["objects"]:
        per_image, side, ratio = (numbers[key] for key in ("objects_per_image", "object_side", "aspect_ratio"))
        parts.append(f"{per_image['min']:.0f} to {per_image['max']:.0f} objects per image")
        parts.append(f"side {side['min']:.0f} to {side['max']:.0f} pixels (median {side['median']:.0f})")
        parts.append(f"height / width {ratio['min']:.2g} to {ratio['max']:.2g}")
        parts.append(f"{numbers['under_16_pixels']} objects under 16 pixels")
    return ", ".join(parts)


def _content(report, anchors):
    findings = [
        {
            **kind._asdict(),
            "counts": {part.name: report.findings.count(kind.code, part.name) for part in report.parts},
            "examples": [finding._asdict() for finding in report.findings.of(kind.code)],
        }
        for kind in report.findings.kinds()
    ]
    return {
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "sets": report.statistics,
        "anchors": anchors.content,
        "findings": findings,
    }


def _fix(report, path):
    from keras_maskrcnn.data.doctor import repair

    for output, changes, folder, count in repair(report, path, bar("images written")):
        print(f"{output}: images are relative to {folder}; {counted(count, 'change')} in {changes}")
