"""Sends photos to the service and writes what it finds: PHOTO.json and, with --overlay, PHOTO_overlay.png.

    python -m keras_maskrcnn serve --model nuclei
    python examples/client.py photo.jpg other.png --output found --overlay

Only Python's standard library is needed. While the queue of the service is full, the client waits as long as the answer
says, and asks again. A photo that fails, or has the file name of an earlier one, is one line on stderr; the others are
processed, and the exit code is 2.
"""

import argparse
import json
import mimetypes
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TRIES = 10  # of a request while the queue is full


def post(url, content, kind, timeout=60):
    """The body of the answer to an image.

    Args:
        url: of a predict route, with its query.
        content: bytes of the image file.
        kind: its media type.
        timeout: seconds without data from the service after which the request fails.

    Raises:
        OSError: with one line: the service cannot be reached, or its reason for an error.
    """
    request = urllib.request.Request(url, content, {"Content-Type": kind})
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 429 or attempt == TRIES - 1:
                raise OSError(f"{error.code}: {_reason(error)}") from None
            time.sleep(float(error.headers.get("Retry-After", 1)))
        except urllib.error.URLError as error:
            raise OSError(f"cannot reach {urllib.parse.urlsplit(url).netloc} ({error.reason})") from None
    raise AssertionError("the last attempt returns or raises")


def _reason(error):
    try:
        return json.load(error)["error"]
    except (ValueError, KeyError, TypeError):  # an answer that is not from the service, such as a proxy's
        return error.reason


def route(options, **query):
    """The URL of a prediction with the options of the command line."""
    path = f"models/{urllib.parse.quote(options.model, safe='')}/predict" if options.model else "predict"
    asked = {"score": options.score, "max_detections": options.max, **query}
    query = urllib.parse.urlencode({name: value for name, value in asked.items() if value is not None})
    return f"{options.url.rstrip('/')}/v1/{path}?{query}"


def process(photo, options):
    """Writes the results of one photo."""
    kind = mimetypes.guess_type(photo.name)[0] or "application/octet-stream"
    content = photo.read_bytes()
    found = json.loads(post(route(options, masks=options.masks), content, kind))
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"{photo.name}.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.overlay:
        (options.output / f"{photo.name}_overlay.png").write_bytes(post(route(options, format="png"), content, kind))
    names = [thing["class"] for thing in found["objects"]]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    print(f"{photo}: {counts or 'no object'} -> {target}")


def main():
    """Processes the photos of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("photos", nargs="+", type=pathlib.Path, metavar="PHOTO", help="an image file")
    add("--url", default="http://127.0.0.1:8000", help="of the service (default: %(default)s)")
    add("--output", type=pathlib.Path, default=pathlib.Path("found"), help="folder (default: %(default)s)")
    add("--model", metavar="NAME", help="one of /v1/models (default: the service's)")
    add("--score", type=float, metavar="S", help="minimum score (default: the model's)")
    add("--max", type=int, metavar="N", help="maximum number of objects per photo (default: the model's)")
    add("--masks", choices=("polygons", "rle", "none"), default="polygons", help="in the JSON (default: %(default)s)")
    add("--overlay", action="store_true", help="also write the photo with the objects drawn on it")
    options = parser.parse_args()
    code, names = 0, set()
    for photo in options.photos:
        try:
            if photo.name in names:
                raise ValueError("an earlier photo has this file name, and its results would be overwritten")
            names.add(photo.name)
            process(photo, options)
        except (OSError, ValueError) as error:
            print(f"error: {photo}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            code = 2
    return code


if __name__ == "__main__":
    sys.exit(main())
