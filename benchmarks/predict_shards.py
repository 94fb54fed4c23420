"""Peak memory and time of finding the photos of a shard among a million, and of a restart after as many results.

    python benchmarks/predict_shards.py --output benchmarks/results/predict_shards.json

The files are empty, and no model is loaded: a case lists the photos of a shard that have no result yet, as `predict
--shard` does. Each case is a process of its own. "imports": the process before it lists anything; "restart": the file
of the shard holds a record of each photo, without objects; "no shard": the list that `predict` without --shard makes.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import machine
import pairs
import reports

# Inputs and shard by the names of the cases.
CASES = {
    "imports": ((), None),
    "folder, 3/16": (("photos",), "3/16"),
    "folder, 1/1": (("photos",), "1/1"),
    "pattern, 3/16": (("photos/*.jpg",), "3/16"),
    "list on stdin, 3/16": (("-",), "3/16"),
    "restart, 1/1": (("photos",), "1/1"),
    "no shard": (("photos",), None),
}
SETTINGS = {"model": "none"}


def names(photos):
    """Paths of the photos, as a camera numbers them."""
    return (f"photos/IMG_{number:08d}.jpg" for number in range(photos))


def prepare(folder, photos):
    """Writes the photos, their list, and the file of a shard that is done."""
    from keras_maskrcnn.cli.shards import Shard

    (folder / "photos").mkdir()
    (folder / "restart").mkdir()
    header = {"shard": "1/1", "settings": SETTINGS}
    with open(folder / "list.txt", "w") as listed, open(folder / "restart" / Shard(1, 1).file, "w") as results:
        results.write(json.dumps(header) + "\n")
        for name in names(photos):
            (folder / name).touch()
            listed.write(f"{name}\n")
            results.write(json.dumps({"file_name": name, "width": 640, "height": 480, "results": []}) + "\n")


def run(case):
    """Runs a case in this process and folder; returns its peak memory in MB, its seconds, and the photos to be done."""
    from keras_maskrcnn.cli.inputs import Listing
    from keras_maskrcnn.cli.progress import Tally
    from keras_maskrcnn.cli.shards import Results, Shard

    words, text = CASES[case]
    start, shard = time.perf_counter(), text and Shard.of(text)
    sources = Listing(False, Tally(), shard).sources(words)
    if shard is None:
        found = len(list(sources))
    else:
        # A folder of results is for one number of shards.
        output = pathlib.Path("restart" if case.startswith("restart") else f"new {shard.count}")
        with contextlib.closing(Results(output, shard, SETTINGS)) as results:
            found = sum(map(results.is_new, sources))
    seconds = time.perf_counter() - start
    return {"mb": machine.peak_memory(), "seconds": round(seconds, 2), "photos": found}


def main():
    """Starts a process for each case and writes their figures; with --case runs that one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photos", type=pairs.positive, default=1_000_000, help="number of files (default: %(default)s)")
    add("--case", choices=CASES, help="run this case in the current folder, and print its figures as JSON")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(options.case)))
        return
    report = {**reports.header("predict_shards.py"), "photos": options.photos, "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        prepare(pathlib.Path(folder), options.photos)
        script = str(pathlib.Path(__file__).resolve())
        for case in CASES:
            with open(pathlib.Path(folder, "list.txt")) as listed:
                done = subprocess.run(
                    [sys.executable, script, "--case", case],
                    cwd=folder,
                    stdin=listed,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            if done.returncode:
                raise SystemExit(f"{case}: exit code {done.returncode}")
            report["cases"][case] = json.loads(done.stdout.splitlines()[-1])
            print(f"{case}: {report['cases'][case]}", flush=True)
    reports.write(options.output, report)


if __name__ == "__main__":
    main()
