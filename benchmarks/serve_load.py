"""Load on the service: many clients at twice its capacity, on this machine.

    python benchmarks/serve_load.py --output benchmarks/results/serve_load.json --docs docs

Starts `python -m keras_maskrcnn serve` on a free port of the loopback interface. As many clients as fill four batches,
each sending its next image when it has an answer, first warm it up and then measure its capacity. Then `--clients`
clients send images at even distances, together `MARGIN` more than `--times` the capacity. The exit code is 1 if

- a request has another answer than 200 or 429,
- fewer images were sent than `--times` those that were served,
- the 99th percentile of the served is above its bound,
- resident memory grows by more than `GROWTH` from the middle of the load to its end, or
- the service does not stop with exit code 0.

The bound: a request that is accepted has at most `queue` - 1 images before it. Since all requests of this script fit
together, these are in one batch that runs and at most ceil(queue / batch) that wait. So it takes at most
ceil(queue / batch) + 1 batches, its own included, and the time of decoding, encoding and transfer; both as 99th
percentiles of the phase that measures the capacity.
"""

import argparse
import asyncio
import collections
import contextlib
import io
import itertools
import math
import pathlib
import re
import subprocess
import sys
import time

import machine
import numpy as np
import pairs
import reports
import scenes
from PIL import Image

START_SECONDS = 600
STOP_SECONDS = 60
MARGIN = 0.1  # since the service may be faster under load than when its capacity was measured
GROWTH = 0.05


@contextlib.contextmanager
def service(options):
    """The running service: (process, URL)."""
    command = [sys.executable, "-m", "keras_maskrcnn", "serve", "--model", options.model, "--port", "0"]
    command += ["--queue", options.queue, "--batch", options.batch, "--log-level", "error"]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+/", line)
            if not found:
                raise SystemExit(f"the service does not start: {line.strip() or 'see above'}")
            yield process, found.group()
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def resident(process):
    """Resident memory of a process in MB of 10⁶ bytes."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024 / 1e6)


def pictures(options):
    """Bytes of JPEG files."""
    files = []
    for seed in range(8):
        stream = io.BytesIO()
        Image.fromarray(scenes.scene(*options.size, 5, seed=seed)[0]).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


class Load:
    """Answers of the service.

    Args:
        clients: list of `httpx.AsyncClient`, each with one connection.
        files: bytes of images, sent in turn.
    """

    def __init__(self, clients, files):
        self._clients, self._files = clients, itertools.cycle(files)
        self.statuses, self.seconds, self.batches, self.rest = collections.Counter(), [], [], []

    async def send(self, client):
        """Sends one image and notes the answer."""
        begin = time.perf_counter()
        try:
            headers = {"content-type": "image/jpeg"}
            answer = await client.post("/v1/predict", content=next(self._files), headers=headers)
        except Exception as error:  # counted as an error of its own kind
            self.statuses[type(error).__name__] += 1
            return
        seconds = time.perf_counter() - begin
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            own = answer.json()["seconds"]
            self.seconds.append(seconds)
            self.batches.append(own["network"])
            self.rest.append(seconds - own["queue"] - own["network"])

    async def closed(self, count, seconds):
        """So many clients send their next image when they have an answer; returns the images per second."""
        end = time.perf_counter() + seconds

        async def one(client):
            while time.perf_counter() < end:
                await self.send(client)

        begin = time.perf_counter()
        await asyncio.gather(*map(one, self._clients[:count]))
        return len(self.seconds) / (time.perf_counter() - begin)

    async def open(self, rate, seconds):
        """The clients send at even distances, together `rate` images per second, whatever the answers are."""
        begin, distance = time.perf_counter(), len(self._clients) / rate

        async def one(number, client):
            for turn in range(math.ceil(seconds / distance)):
                moment = begin + (turn + number / len(self._clients)) * distance
                await asyncio.sleep(max(0, moment - time.perf_counter()))
                await self.send(client)

        await asyncio.gather(*(one(*each) for each in enumerate(self._clients)))


async def measured(process, url, options):
    """Capacity, answers under load, and memory of the service: the figures of the report."""
    import httpx

    async with contextlib.AsyncExitStack() as opened:
        # A pool of 100 connections takes longer than the service; verify=False saves reading certificates.
        made = [httpx.AsyncClient(base_url=url, timeout=120, verify=False) for _ in range(options.clients)]
        clients, files = [await opened.enter_async_context(client) for client in made], pictures(options)
        await Load(clients, files).closed(4 * options.batch, options.warm_up)
        calm, load = Load(clients, files), Load(clients, files)
        capacity = await calm.closed(4 * options.batch, options.calm)
        if not capacity:
            raise SystemExit("the service answers no request")
        memory = {"start": resident(process)}

        async def middle():
            await asyncio.sleep(options.seconds / 2)
            memory["middle"] = resident(process)

        begin = time.perf_counter()
        await asyncio.gather(load.open((1 + MARGIN) * options.times * capacity, options.seconds), middle())
        memory["end"] = resident(process)
        found = figures(calm, load, time.perf_counter() - begin, options)
        return found | {"capacity": round(capacity, 3), "mb": memory}


def figures(calm, load, seconds, options):
    """Counts and percentiles of the answers under load, with a bound from those of the calm before it."""
    if not load.seconds:
        raise SystemExit(f"no request was served: {dict(load.statuses)}")
    batch, rest = np.percentile(calm.batches, 99), np.percentile(calm.rest, 99)
    batches = math.ceil(options.queue / options.batch) + 1
    return {
        "seconds": round(seconds, 1),
        "answers": dict(load.statuses),
        "errors": sum(count for status, count in load.statuses.items() if status not in ("200", "429")),
        "sent_per_served": round(sum(load.statuses.values()) / len(load.seconds), 3),
        "served_per_second": round(len(load.seconds) / seconds, 3),
        "p50": round(float(np.median(load.seconds)), 4),
        "p99": round(float(np.percentile(load.seconds, 99)), 4),
        "bound": round(float(batches * batch + rest), 4),
        "batches_in_bound": batches,
        "p99_of_a_batch": round(float(batch), 4),
        "p99_of_the_rest": round(float(rest), 4),
    }


def table(report):
    """The report in Markdown."""
    answers, memory = report["answers"], report["mb"]
    parts = (
        f"{report['batches_in_bound']} batches of {report['p99_of_a_batch']:.2f} s + {report['p99_of_the_rest']:.2f} s"
    )
    rows = {
        "capacity": f"{report['capacity']:.2f} images/s",
        "answers 200": f"{answers.get('200', 0)}, {report['served_per_second']:.2f} per second",
        "sent / served": f"{report['sent_per_served']:.2f}",
        "answers 429": answers.get("429", 0),
        "other errors": report["errors"],
        "seconds of the served": f"p50 {report['p50']:.2f}, p99 {report['p99']:.2f}",
        "bound of p99": f"{report['bound']:.2f} s: {parts}",
        "resident memory": f"start {memory['start']}, middle {memory['middle']}, end {memory['end']} MB",
        "exit code after SIGTERM": report["exit_code"],
    }
    title = f"{report['model']}, {report['clients']} clients, {report['seconds']:.0f} s"
    return "\n".join((f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())))


def main():
    """Runs the load, prints and writes the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="nuclei", help="as for `serve` (default: %(default)s)")
    add("--clients", type=pairs.positive, default=100, help="under load (default: %(default)s)")
    add("--times", type=float, default=2.0, help="load as a multiple of the capacity (default: %(default)s)")
    add("--seconds", type=float, default=300.0, help="of the load (default: %(default)s)")
    add("--warm-up", type=float, default=30.0, help="seconds before the capacity is measured (default: %(default)s)")
    add("--calm", type=float, default=60.0, help="seconds in which the capacity is measured (default: %(default)s)")
    add("--queue", type=pairs.positive, default=16, help="option of `serve` (default: %(default)s)")
    add("--batch", type=pairs.positive, default=1, help="option of `serve` (default: %(default)s)")
    add("--size", type=pairs.positive, nargs=2, default=(128, 128), metavar=("H", "W"), help="of the images")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    add("--docs", type=pathlib.Path, metavar="FOLDER", help="write the table into serve.md of this folder")
    options = parser.parse_args()
    with service(options) as (process, url):
        report = asyncio.run(measured(process, url, options))
    settings = {name: getattr(options, name) for name in ("model", "clients", "times", "queue", "batch", "size")}
    report = {**reports.header("serve_load.py"), **settings, **report, "exit_code": process.returncode}
    report["versions"] = machine.versions(["tensorflow", "keras", "fastapi", "uvicorn", "starlette"])
    print(table(report))
    reports.write(options.output, report)
    if options.docs:
        reports.fill(options.docs / "serve.md", "serve_load", f"{table(report)}\n\n{report['machine']}.")
    failed = failures(report)
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return int(bool(failed))


def failures(report):
    """What the service or the load did not hold: a list of reasons."""
    middle, end = (report["mb"][name] for name in ("middle", "end"))
    held = {
        f"{report['errors']} answers are neither 200 nor 429": report["errors"] == 0,
        f"the load was {report['sent_per_served']} times the served": report["sent_per_served"] >= report["times"],
        f"p99 is {report['p99']} s, above the bound of {report['bound']} s": report["p99"] <= report["bound"],
        f"memory grows from {middle} to {end} MB": end <= (1 + GROWTH) * middle,
        f"the service stops with exit code {report['exit_code']}": report["exit_code"] == 0,
    }
    return [reason for reason, is_held in held.items() if not is_held]


if __name__ == "__main__":
    sys.exit(main())
