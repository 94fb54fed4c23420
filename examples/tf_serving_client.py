r"""Detections in photos from TensorFlow Serving, over REST; needs Python alone.

    python examples/tf_serving_client.py --model nuclei --classes models/nuclei/1/assets/class_names.txt photo.jpg

prints a line for each object, with its box as left, top, right, bottom, relative to the sides of the image:

    photo.jpg: nucleus 0.97 at 0.112 0.250 0.187 0.341

The files are sent as they are: the server decodes JPEG, PNG, BMP and GIF, without the EXIF orientation, and resizes.
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request


def request_body(contents):
    """The request for a list of encoded images (bytes), as JSON in bytes."""
    instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
    return json.dumps({"signature_name": "serve_bytes", "instances": instances}).encode()


def predict(address, contents, timeout=60):
    """The server's answer.

    Args:
        address: URL that ends with `/v1/models/NAME` or `/v1/models/NAME/versions/N`.
        contents: list of bytes, encoded images.
        timeout: seconds.

    Returns:
        list of dicts, one per image: the outputs of the SavedModel by name, as nested lists.

    Raises:
        ValueError: if the server refuses the request, with its reason.
        OSError: if no server answers.
    """
    request = urllib.request.Request(f"{address}:predict", request_body(contents), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            text = text or error.reason
        raise ValueError(f"{address}: {' '.join(text.split())}") from error


def detections(row, score, class_names=()):
    """The objects of an image.

    Args:
        row: dict of an image, from `predict`.
        score: minimum score.
        class_names: names of the classes 1…K; a class beyond them is "class N".

    Returns:
        list of dicts with `class`, `score` and `box`: left, top, right, bottom, relative to the sides of the image.

    Raises:
        ValueError: if the model finds no objects, such as one for semantic segmentation.
    """
    if "num_detections" not in row:
        raise ValueError(f"the model finds no objects; its outputs are {', '.join(sorted(row))}")
    found = []
    for number in range(int(row["num_detections"])):
        label, (top, left, bottom, right) = row["detection_classes"][number], row["detection_boxes"][number]
        if row["detection_scores"][number] >= score:
            name = class_names[label - 1] if label <= len(class_names) else f"class {label}"
            box = [left, top, right, bottom]
            found.append({"class": name, "score": row["detection_scores"][number], "box": box})
    return found


def parse(argv=None):
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("photos", nargs="+", type=pathlib.Path, metavar="PHOTO", help="image files; each is a request of its own")
    add("--server", default="http://127.0.0.1:8501", help="address of the REST API (default: %(default)s)")
    add("--model", required=True, help="name of the model on the server")
    add("--version", type=int, help="of the model (default: the highest)")
    add("--classes", type=pathlib.Path, metavar="FILE", help="names of the classes, one per line")
    add("--score", type=float, default=0.5, help="minimum score (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    """Prints the objects of each photo. Returns the exit code: 2 if a photo has no answer."""
    options, code = parse(argv), 0
    address = f"{options.server.rstrip('/')}/v1/models/{options.model}"
    address += f"/versions/{options.version}" if options.version is not None else ""
    try:
        names = options.classes.read_text(encoding="utf-8").splitlines() if options.classes else ()
    except OSError as error:
        print(f"error: {options.classes}: {error.strerror}", file=sys.stderr)
        return 2
    for photo in options.photos:
        try:
            (row,) = predict(address, [photo.read_bytes()])
            found = detections(row, options.score, names)
        except (OSError, ValueError) as error:
            print(f"error: {photo}: {error}", file=sys.stderr)
            code = 2
            continue
        for one in found:
            box = " ".join(f"{side:.3f}" for side in one["box"])
            print(f"{photo}: {one['class']} {one['score']:.2f} at {box}")
        print(f"{photo}: {len(found)} objects")
    return code


if __name__ == "__main__":
    sys.exit(main())
