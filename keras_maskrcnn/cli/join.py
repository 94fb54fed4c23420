"""`join`: the results of all shards of `predict --shard` in one COCO file."""

import contextlib
import os
import pathlib

from keras_maskrcnn.cli.common import check_outputs, counted
from keras_maskrcnn.cli.line_file import read_lines
from keras_maskrcnn.cli.results import JsonList
from keras_maskrcnn.cli.shards import FILE, Digests, check_folder, digest

EXAMPLE = "predictions --output found.json"
KERAS = False


def arguments(parser):
    """Adds the verb's arguments."""
    add = parser.add_argument
    add("folder", type=pathlib.Path, metavar="DIR", help="folder with the files of all shards")
    add(
        "--output", required=True, type=pathlib.Path, metavar="FILE", help="COCO results, as predict --json writes them"
    )
    add("--partial", action="store_true", help="join what there is, although shards are missing or not finished")


def run(args):
    """Joins the results of predict --shard in one file of COCO results."""
    check_outputs(args, folder=False)
    files = check_folder(args.folder, None)
    if not files:
        raise ValueError(f"{args.folder}: no file shard-*-of-*.jsonl in it")
    count = int(FILE.fullmatch(next(iter(files.values())).name)[2])
    missing = [number for number in range(1, count + 1) if number not in files]
    if missing and not args.partial:
        raise ValueError(f"{args.folder} lacks shard {missing[0]}/{count}: run it, or give --partial")
    contents = (content for _, path in sorted(files.items()) for content in _contents(path, args.partial))
    found = write_coco(contents, args.output)
    counts = f"{counted(found['results'], 'object')} in {counted(found['pictures'], 'picture')}"
    print(f"COCO results: {args.output}: {counts}, {found['failed']} failed")
    return 0


def _contents(path, partial):
    """Yields the lines of a file; a ValueError after the last one if the file is not finished."""
    content = None
    for _, content in read_lines(path):
        if content is None:
            continue
        if not isinstance(content.get("results", []), list):
            raise ValueError(f"{path}: the results of {str(content.get('file_name'))[:200]!r} are no list")
        yield content
    if not partial and "finished" not in (content or {}):
        raise ValueError(f"{path} is not finished: run its shard again, or give --partial")


def write_coco(records, path):
    """Writes records as one file of COCO results, which is complete or not there. One record is in memory at a time.

    Args:
        records: iterable of dicts as `records.records` has them; those without results are left out, and so is a second
            one of a picture.
        path: str or Path of the file.

    Returns:
        dict of counts: `pictures`, `results`, and `failed`, inputs that failed and did not succeed later.
    """
    path, done, failed = pathlib.Path(path), Digests(), set()
    counts = {"pictures": 0, "results": 0}
    temporary = path.with_name(path.name + ".part")
    try:
        with contextlib.closing(JsonList(temporary)) as file:
            for record in records:
                if "file_name" not in record:
                    continue
                key = digest(record["file_name"], record.get("frame"))
                if "error" in record:
                    failed.add(key)
                elif "results" in record and done.add(key):
                    failed.discard(key)
                    file.extend(record["results"])
                    counts["pictures"] += 1
                    counts["results"] += len(record["results"])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return {**counts, "failed": len(failed)}
