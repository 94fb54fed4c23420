"""Times two programs in turn: one worker process a side, each with its own Python, never both at work at once.

Absolute times drift by a factor of two on a shared machine; the ratio of runs that stand next to each other does not.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


def serve(make):
    """Worker: for every case named on stdin runs it and prints the seconds of one call.

    Args:
        make: function from a case's name to `(call, repeats)`; a case is made, and called twice to warm up, when it is
            first asked for.
    """
    made = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            made[name] = make(name)
            for _ in range(2):
                made[name][0]()
        call, repeats = made[name]
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        print(f"seconds {(time.perf_counter() - start) / repeats}", flush=True)


def compare(script, names, peer_python, rounds):
    """Runs the cases `rounds` times, ours and the peer's alternately, and prints medians and the ratio.

    Args:
        script: file that answers `--worker ours` and `--worker peer` with `serve`.
        names: list of case names.
        peer_python: Python with the peer installed, or None to time ours alone.
        rounds: int.
    """
    commands = {"ours": sys.executable, "peer": peer_python}
    workers = {side: _start(python, script, side) for side, python in commands.items() if python}
    print(f"{'case':58s}{'ours ms':>10s}{'peer ms':>10s}{'peer / ours':>13s}   lowest … highest", flush=True)
    for name in names:
        for worker in workers.values():
            _ask(worker, name)
        seconds = {side: [] for side in workers}
        for _ in range(rounds):
            for side, worker in workers.items():
                seconds[side].append(_ask(worker, name))
        line = f"{name:58s}{statistics.median(seconds['ours']) * 1e3:10.2f}"
        if "peer" in workers:
            ratios = [peer / ours for ours, peer in zip(seconds["ours"], seconds["peer"], strict=True)]
            line += f"{statistics.median(seconds['peer']) * 1e3:10.2f}{statistics.median(ratios):12.2f}×"
            line += f"   {min(ratios):.2f} … {max(ratios):.2f}"
        print(line, flush=True)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()


def _start(python, script, side):
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, str(script), "--worker", side]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    return subprocess.Popen(command, **pipes)


def _ask(worker, name):
    worker.stdin.write(name + "\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("seconds "):
            time.sleep(0.05)  # the threads of this side go to sleep before the other one starts
            return float(line.split()[1])
    raise RuntimeError(f"The worker stopped while it ran {name!r}.")
