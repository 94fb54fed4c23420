"""Alternate timing of two programs: one worker process per side, each with its own Python, one running at a time.

Absolute times vary by a factor of two on a shared machine; the ratio of consecutive runs does not.

A script calls `compare` in the parent and `serve` in the workers, which run the same script with `--worker ours` or
`--worker peer`. A worker that is started by hand reads the names of cases from stdin and shows its whole traceback.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import machine

ROOT = pathlib.Path(__file__).parents[1]
SIDES = ("ours", "peer")
UNITS = {"s": 1.0, "ms": 1e3}
ANSWER = "answer "


def arguments(description, rounds, peer_python=None):
    """A parser with the common arguments; `--threads` immediately confines this process and its workers.

    Args:
        description: text for `--help`, usually the script's `__doc__`.
        rounds: default of `--rounds`.
        peer_python: `sys.executable` if the peer runs in this Python, which takes the place of the option.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    if peer_python:
        parser.set_defaults(peer_python=peer_python)
    else:
        add("--peer-python", metavar="PATH", help="Python with the peer; without it only this package is timed")
    add("--rounds", type=positive, default=rounds, help="timings of each side and case (default: %(default)s)")
    add(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write the result as JSON, such as benchmarks/results/x.json",
    )
    add("--threads", type=positive, action=_Confine, help="cores that both sides may use (default: all)")
    add("--worker", choices=SIDES, help=argparse.SUPPRESS)
    return parser


def positive(text):
    """The type of arguments that are whole numbers of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


class _Confine(argparse.Action):
    """Confines this process, and those that it starts, to its first `values` cores."""

    def __call__(self, parser, namespace, values, option_string=None):
        if not hasattr(os, "sched_setaffinity"):
            parser.error(f"{option_string} needs Linux")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:values])
        setattr(namespace, self.dest, values)


# Worker -----------------------------------------------------------------------------------------------------------


def serve(make):
    """Worker: reads names of cases from stdin; builds a case at its first occurrence, and times it at later ones.

    Args:
        make: function from the name of a case to `(call, repeats)`, or to None if this side has no such case. If
            `call()` returns a dict (of JSON values), these are facts about the work; other values are ignored. Two
            calls warm up; with `(call, repeats, warm_up)`, one call of the function `warm_up` instead.
    """
    made = {}
    for line in sys.stdin:
        name = line.strip()
        if name in made:
            answer = _timed(*made[name])
        else:
            made[name] = _warmed_up(make(name))
            answer = {"exists": made[name] is not None}
        print(
            ANSWER + json.dumps({**answer, "memory_mb": machine.peak_memory(), "versions": machine.imported()}),
            flush=True,
        )


def _warmed_up(case):
    """(call, repeats, seconds of the first call, which may trace and compile), or None."""
    if case is None:
        return None
    call, repeats, *other = case
    start = time.perf_counter()
    (other[0] if other else call)()
    first = time.perf_counter() - start
    if not other:
        call()
    return call, repeats, first


def _timed(call, repeats, first):
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    seconds = (time.perf_counter() - start) / repeats
    return {"seconds": seconds, "facts": result if isinstance(result, dict) else {}, "first_call_s": round(first, 3)}


# Parent -----------------------------------------------------------------------------------------------------------


def compare(script, options, names, *, check=None, words=(), peer_name="torchvision", unit="ms", fresh=False):
    """Runs the cases `--rounds` times, both sides alternately, and prints medians and the ratio.

    Args:
        script: file that calls `serve` for `--worker ours` and `--worker peer`.
        options: namespace of a parser from `arguments`; the result is written to `output` after each case.
        names: list of case names.
        check: function from the facts of both sides to None, or to a line about a difference of their work.
        words: command-line arguments of the workers of both sides.
        peer_name: name of the peer.
        unit: unit of the times, "ms" or "s".
        fresh: whether each case has its own processes, so that the peak memory is that of the case.

    Returns:
        list of dicts, the `rows` of the JSON file. Each side's facts include `first_call_s`.

    Raises:
        SystemExit: with one line, if a worker does not start or stops, or if `check` returns a line.
    """
    commands = {
        side: [python, str(script), "--worker", side, *map(str, words)]
        for side, python in zip(SIDES, (sys.executable, options.peer_python), strict=True)
        if python
    }
    report = {
        "script": _relative(script),
        "command": shlex.join(["python", _relative(script), *map(without_place, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "machine": machine.description(),
        "versions": {},
        "peer": peer_name if options.peer_python else None,
        "rows": [],
    }
    print(report["machine"])
    print(f"{'case':58s}{f'ours {unit}':>10s}{f'peer {unit}':>10s}{'peer / ours':>13s}   lowest … highest", flush=True)
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in names:
            if fresh:
                stack.close()
            if fresh or not workers:
                workers = {side: stack.enter_context(Worker(side, command)) for side, command in commands.items()}
            answers = _alternate(workers, name, options.rounds, check)
            report["versions"].update({side: rows[-1]["versions"] for side, rows in answers.items()})
            report["rows"].append(_row(name, answers, unit))
            print(_line(report["rows"][-1]), flush=True)
            if options.output:
                _write(options.output, report)
    if options.output:
        print(f"written: {options.output}")
    return report["rows"]


class Worker:
    """A process that builds and times cases; as a context manager it ends with the block.

    Args:
        side: "ours" or "peer".
        command: list of str, program and arguments.
    """

    def __init__(self, side, command):
        self.side = side
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(ROOT)}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment)
        try:
            self._process = subprocess.Popen(command, **pipes)
        except OSError as error:
            self._errors.close()
            raise SystemExit(f"{command[0]} does not start: {error.strerror}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Closes stdin, which ends the worker; kills it if it does not end within 10 seconds."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def ask(self, name):
        """Builds or times a case; returns the answer of `serve`, a dict.

        Raises:
            SystemExit: if the worker stops, with the last line of its stderr.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(name + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                time.sleep(0.05)  # the threads of this side become idle before the other side starts
                return json.loads(line.removeprefix(ANSWER))
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        raise SystemExit(f"{name}: {self.side} stopped with exit code {code}: {lines[-1] if lines else 'no message'}")


def _alternate(workers, name, rounds, check):
    """Answers of each side that has the case, one per round, the sides in turn."""
    have = {side: worker for side, worker in workers.items() if worker.ask(name)["exists"]}
    answers = {side: [] for side in have}
    for _ in range(rounds):
        for side, worker in have.items():
            answers[side].append(worker.ask(name))
        if check and len(have) == 2:
            fault = check(*(answers[side][-1]["facts"] for side in SIDES))
            if fault:
                raise SystemExit(f"{name}: {fault}")
    return answers


def _row(name, answers, unit):
    """The row of a case in the JSON file."""
    seconds = {side: [answer["seconds"] for answer in rows] for side, rows in answers.items()}
    ratios = [peer / ours for ours, peer in zip(*(seconds.get(side, []) for side in SIDES), strict=False)]
    last = {side: answers[side][-1] if side in answers else None for side in SIDES}
    return {
        "case": name,
        "unit": unit,
        **{side: _spread([s * UNITS[unit] for s in seconds.get(side, [])]) for side in SIDES},
        "ratio": _spread(ratios),
        "facts": {side: row and {**row["facts"], "first_call_s": row["first_call_s"]} for side, row in last.items()},
        "memory_mb": {side: row and row["memory_mb"] for side, row in last.items()},
    }


def _spread(values):
    """Median, minimum and maximum of numbers, to five digits; None for an empty list."""
    if not values:
        return None
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def _line(row):
    cells = "".join(f"{row[side]['median']:10.2f}" if row[side] else f"{'':10s}" for side in SIDES)
    line, ratio = f"{row['case']:58s}{cells}", row["ratio"]
    if ratio:
        line += f"{ratio['median']:12.2f}×   {ratio['lowest']:.2f} … {ratio['highest']:.2f}"
    return line.rstrip()


def _write(path, report):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _relative(path):
    """A path relative to the repository; the name of a file outside of it."""
    path = pathlib.Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def without_place(word):
    """A command-line argument; "PATH" for an absolute path, which depends on the machine."""
    return "PATH" if os.path.isabs(word) else word
