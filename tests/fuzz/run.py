"""Runs the fuzzer: `python tests/fuzz/run.py [--minutes 60] [--jobs 2] [--seed N] [TARGET …]`.

Every target runs in a process of its own, see `worker`. This process ends one that gives no line for more than
`worker.SECONDS`, notes the case, and starts another one at the next case. With `--cases` each target has this number of
cases instead of a share of the time. `--output` writes the results as JSON, and `--docs` writes the table of such a
file into docs/hostile_input.md. The exit code is 1 if a case failed.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import queue
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

FOLDER = pathlib.Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]
import figures
from target import MODULES, TARGETS
from worker import MEMORY, SECONDS

PREPARE = 240  # seconds in which a process is ready
SLACK = 2  # seconds beyond those of a case, for changing its file
MOST_FAILURES = 10  # after which a target ends


@dataclasses.dataclass
class Result:
    """What happened to a target: numbers of cases by kind, failures, seconds, and bytes by which memory grew."""

    target: str
    seed: str
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    grown: int = 0
    failures: list = dataclasses.field(default_factory=list)
    next: int = 0

    @property
    def cases(self):
        """Number of cases."""
        return self.read + self.refused + len(self.failures)

    def note(self, case, kind, detail=""):
        """Notes the outcome of a case."""
        if kind in ("read", "refused"):
            setattr(self, kind, getattr(self, kind) + 1)
        else:
            again = (
                f"python tests/fuzz/worker.py --one {self.seed} /tmp/fuzz_{self.target}_{case} {self.target} {case} 1 9"
            )
            self.failures.append({"case": case, "kind": kind, "detail": detail, "again": again})
            print(f"FAILED {self.target} {case}: {kind}: {detail}\n  again: {again}", flush=True)


class Worker:
    """A process that runs targets, and its lines."""

    def __init__(self, seed, plan, root, modules):
        self.root = root
        self.log = open(root / "log", "ab")  # noqa: SIM115
        command = [
            sys.executable,
            str(FOLDER / "worker.py"),
            "--modules",
            ",".join(modules),
            "--memory",
            str(MEMORY),
            seed,
            str(root),
        ]
        command += map(str, plan)
        paths = os.pathsep.join([str(FOLDER), str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "KERAS_BACKEND": "tensorflow"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def line(self, seconds):
        """The next line, or None at the end; `queue.Empty` after some seconds in which the machine ran."""
        for _ in range(seconds - 1):
            with contextlib.suppress(queue.Empty):
                return self.lines.get(timeout=1)
        return self.lines.get(timeout=1)

    def within(self, memory):
        """Waits for the next line; returns whether the process has not used more than these bytes of memory by then."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        end = time.monotonic() + SECONDS
        while self.lines.empty() and time.monotonic() < end:
            try:
                line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
            except (OSError, StopIteration):  # the process has ended
                return True
            if int(line.split()[1]) * 1024 > memory:
                return False
            time.sleep(0.01)
        return True

    def stop(self, seconds=0):
        """Ends the process, after some seconds; returns its exit code and what it wrote to stderr last."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait()
        self.log.close()
        text = (self.root / "log").read_bytes()[-6000:].decode(errors="replace")
        return code, text


def run(results, seed, seconds, counts, first=0):
    """Runs targets one after the other, in one process as long as none fails.

    Args:
        results: dict from names of targets to `Result`, which are filled.
        seed: str.
        seconds: dict from names to seconds.
        counts: dict from names to numbers of cases.
        first: number of the first case.
    """
    left = list(results)
    for result in results.values():
        result.next = first
    while left:
        root = pathlib.Path(tempfile.mkdtemp(prefix="fuzz_"))
        spent = {name: results[name].seconds for name in left}
        plan = [(n, results[n].next, counts[n] + first - results[n].next, seconds[n] - spent[n]) for n in left]
        modules = dict.fromkeys(TARGETS[name].module for name in left)
        worker = Worker(seed, [word for part in plan for word in part], root, modules)
        try:
            left = _followed(worker, results, left)
        finally:
            worker.stop()
            shutil.rmtree(root, ignore_errors=True)


def _followed(worker, results, left):
    """Notes the lines of a process until it ends or is ended; returns the targets that are left."""
    current, start, wait = None, time.monotonic(), PREPARE
    try:
        while (line := worker.line(wait)) is not None:
            case = line["case"]
            if case == "prepare":
                current, start, wait = results[line["target"]], time.monotonic(), PREPARE
            elif case == "ready":
                wait = SECONDS + SLACK
            elif case == "again":
                if not worker.within(line["used"] + MEMORY):
                    kind = "memory"
                    break
            elif case == "end":
                current.grown = max(current.grown, line["grown"])
                current.seconds += time.monotonic() - start
                left, current = left[left.index(current.target) + 1 :], None
            else:
                current.note(case, line["kind"], line["detail"])
                current.next = case + 1 if isinstance(case, int) else current.next
                if len(current.failures) >= MOST_FAILURES:
                    print(f"{current.target} ends after {MOST_FAILURES} failures", flush=True)
                    return left[left.index(current.target) + 1 :]
        else:
            kind = "crash"
    except queue.Empty:
        kind = "hang"
    if not left:  # it is only slow to end
        return []
    code, text = worker.stop(5 if kind == "crash" else 0)
    current = current or results[left[0]]
    current.seconds += time.monotonic() - start
    if wait == PREPARE:  # not even the unchanged sample was read
        current.note("prepare", kind, f"exit code {code}: {text[-1500:]}")
        return left[left.index(current.target) + 1 :]
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    reason = {"crash": name, "hang": f"{SECONDS} s", "memory": f"more than {MEMORY >> 20} MiB are used"}[kind]
    current.note(current.next, kind, f"{reason}: {_stack(text)}")
    current.next += 1
    return left[left.index(current.target) :]


def _stack(text):
    """The innermost calls of the stack that `faulthandler` wrote."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("File ")]
    return " < ".join(lines[:4]) or text[-300:]


def grouped(names, one_process):
    """Lists of targets that share a process: those of a module, or each on its own."""
    if not one_process:
        return [[name] for name in names]
    modules = dict.fromkeys(TARGETS[name].module for name in names)
    return [[name for name in names if TARGETS[name].module == module] for module in modules]


def fuzz(names, seed, seconds=None, counts=None, jobs=1, one_process=False, first=0):
    """Runs targets; returns a dict from their names to `Result`.

    Args:
        names: list of names.
        seed: str.
        seconds: of all targets and jobs; None for no limit.
        counts: dict from names to numbers of cases; None for no limit.
        jobs: processes at a time.
        one_process: whether the targets of a module share a process.
        first: number of the first case.
    """
    total = sum(TARGETS[name].weight for name in names)
    shares = {n: 10**9 if seconds is None else seconds * jobs * TARGETS[n].weight / total for n in names}
    counts = counts or dict.fromkeys(names, 10**9)
    results = {name: Result(name, seed) for name in names}

    def part(group):
        run({name: results[name] for name in group}, seed, shares, counts, first)
        for name in group:
            print(figures.line(results[name]), flush=True)

    with concurrent.futures.ThreadPoolExecutor(jobs) as threads:
        list(threads.map(part, filter(None, grouped(names, one_process))))
    return results


def register():
    """Imports the modules of the targets, so that `TARGETS` is complete."""
    for module in MODULES:
        importlib.import_module(f"attempts_{module}")


def main(words=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="default: all")
    add("--minutes", type=float, default=60, help="of all targets together (default: %(default)s)")
    add("--cases", type=int, help="cases of each target, without a limit of time")
    add("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    add("--jobs", type=int, default=2, help="processes at a time (default: %(default)s)")
    add("--together", action="store_true", help="targets of a file share a process: faster for few cases")
    add("--seed", help="default: a random one, which is printed")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the results as JSON")
    add("--docs", type=pathlib.Path, metavar="FILE", help="write the table of these results into the page, and end")
    args = parser.parse_args(words)
    if args.docs:
        figures.write_page(json.loads(args.docs.read_text()), FOLDER.parents[1] / "docs" / "hostile_input.md")
        return 0
    register()
    if unknown := [name for name in args.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; the targets are {', '.join(TARGETS)}")
    names = args.targets or list(TARGETS)
    seed = args.seed or str(random.randrange(10**6))
    print(f"seed {shlex.quote(seed)}, {len(names)} targets, {args.jobs} processes", flush=True)
    start = time.monotonic()
    counts = dict.fromkeys(names, args.cases) if args.cases else None
    results = fuzz(names, seed, None if counts else args.minutes * 60, counts, args.jobs, args.together, args.first)
    content = figures.content(results, seed, time.monotonic() - start)
    print(figures.text(content))
    if args.output:
        args.output.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if any(result.failures for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
