"""The process that runs cases: `python worker.py SEED FOLDER TARGET FIRST COUNT SECONDS …` (several targets in a row).

Each case is a line on stdout, "case OUTCOME detail" as JSON; the parent ends the process where none comes for too long.
`--one` shows the traceback of a single case. Memory is limited to `MEMORY` beyond that of the process when it starts to
read. An audit hook notes programs that are started, connections, pickles that look up names, code that holds the name
of the canary, and files that are written outside the folder or read in the forbidden one.
"""

import argparse
import contextlib
import faulthandler
import importlib
import json
import logging
import os
import pathlib
import random
import resource
import shutil
import sys
import time
import traceback
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
import changes
import target as target_module
from target import MODULES, TARGETS

from keras_maskrcnn.weights.keras_file import WALK

MEMORY = 4 * 2**30  # bytes
SECONDS = 10  # of a case
FILE_BYTES = 2**30  # of a file that is written
LOG_BYTES = 2**20

STARTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
)
CONNECTS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hook:
    """The audit hook: `seen` lists what happened while it is `armed`."""

    def __init__(self, root, forbidden):
        self.root, self.forbidden, self.armed, self.seen = (
            os.path.realpath(root),
            os.path.realpath(forbidden),
            False,
            [],
        )
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        """Notes an event, and prevents programs and connections."""
        if not self.armed:
            return
        if event == "subprocess.Popen" and list(arguments[1][:-1]) == [sys.executable, "-P", "-c", WALK]:
            return  # the process in which a file is opened first
        if event in STARTS + CONNECTS or event == "pickle.find_class":
            self.seen.append(f"{event} {arguments!r}"[:200])
            raise PermissionError(f"not allowed here: {event}")
        if event in CHANGES and not self._is_inside(arguments[0]):
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open":
            self._opened(*arguments)
        elif event in ("exec", "compile", "marshal.loads") and _holds_canary(arguments[0]):
            self.seen.append(f"{event} of code from the file")

    def _opened(self, path, mode, flags):
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        if path == "/dev/null":
            return
        if os.path.realpath(path).startswith(self.forbidden):
            self.seen.append(f"opened a file outside of the folder: {path[-100:]}")
        elif (flags or 0) & WRITING and not self._is_inside(path):
            self.seen.append(f"opened for writing: {path[-100:]} ({mode})")

    def _is_inside(self, path):
        return isinstance(path, int) or os.path.realpath(os.fsdecode(path)).startswith(self.root)


def _holds_canary(code):
    if hasattr(code, "co_consts"):
        return any(changes.CANARY in str(constant) for constant in code.co_consts)
    text = code.encode("utf-8", "replace") if isinstance(code, str) else code
    return isinstance(text, bytes | bytearray) and changes.CANARY.encode() in text


def status(name):
    """A figure of this process in bytes, such as VmSize, VmRSS or VmHWM."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def limit_memory(memory):
    """Limits the address space to so many bytes more than now, and the size of files."""
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + memory, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def unlimited():
    """Context without a limit of the address space."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def chain(error):
    """An exception and those that it was raised from or during."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def outcome(read, allowed, hook, canaries):
    """Runs a case: (kind, detail).

    The kind is "read", "refused", that of a failure, or "short": a clean error, because memory was refused.
    """
    hook.seen.clear()
    hook.armed = True
    try:
        read()
        result = "read", ""
    except BaseException as error:
        result = _judged(error, allowed)
    hook.armed = False
    if hook.seen or any(map(os.path.exists, canaries)):
        return "execution", "; ".join(hook.seen[:3]) or "the canary was created"
    return result


def _judged(error, allowed):
    if isinstance(error, target_module.NotOneLineError):
        return "message", str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    if not isinstance(error, allowed):
        kind = "memory" if isinstance(error, MemoryError) else "exception"
        return kind, f"{error!r:.300} ({pathlib.Path(where.filename).name}:{where.lineno})"
    try:
        target_module.check_message(error)
    except target_module.NotOneLineError as message:
        return "message", str(message)
    return ("short" if any(isinstance(each, MemoryError) for each in chain(error)) else "refused"), ""


def run(name, seed, first, count, seconds, folder, hook, write):
    """Runs the cases of a target from `first` on, after the unchanged sample, which must be read."""
    chosen, start = TARGETS[name], time.monotonic()
    write({"target": name, "case": "prepare"})
    work = folder / name
    work.mkdir(parents=True)
    case = chosen.prepare(work)
    canaries = [place / changes.CANARY for place in (work, folder, pathlib.Path.cwd())]
    kind, detail = outcome(case(None), chosen.allowed, hook, canaries)
    if kind != "read":
        write({"case": "valid", "kind": "unread", "detail": detail or "the unchanged sample is refused"})
    write({"case": "ready"})
    before = status("VmHWM:")
    for number in range(first, first + count):
        if time.monotonic() - start > seconds:
            break
        read = case(random.Random(f"{name} {seed} {number}"))
        faulthandler.dump_traceback_later(SECONDS - 0.5)
        kind, detail = outcome(read, chosen.allowed, hook, canaries)
        if kind == "short":  # it may only have been reserved, not used, which the parent watches
            write({"case": "again", "used": status("VmRSS:")})
            with unlimited():
                kind, detail = outcome(read, chosen.allowed, hook, canaries)
            kind = "refused" if kind == "short" else kind
        faulthandler.cancel_dump_traceback_later()
        write({"case": number, "kind": kind, "detail": detail})
        if os.fstat(2).st_size > LOG_BYTES:
            os.ftruncate(2, 0)
    case(None)  # undoes the last change
    write({"case": "end", "grown": max(0, status("VmHWM:") - before)})


def prepare(root):
    """Folders `work` and `outside` in `root`, with a secret that no case may open; returns (work, hook)."""
    root = pathlib.Path(root)
    work, outside = root / "work", root / "outside"
    for folder in (work, outside):
        folder.mkdir(parents=True, exist_ok=True)
    target_module.drawn(outside / "secret.png")
    os.environ["TMPDIR"] = str(work)
    os.chdir(work)
    sys.dont_write_bytecode = True
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return work, Hook(work, outside)


def main(words=None):
    """Runs the targets on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", action="store_true", help="show the traceback of one case")
    parser.add_argument(
        "--modules", default=",".join(MODULES), help="names of files attempts_*.py that have the targets"
    )
    parser.add_argument("--memory", type=int, default=MEMORY, help="bytes beyond those of the idle process")
    parser.add_argument("seed")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("plan", nargs="+")
    args = parser.parse_args(words)
    plans = [args.plan[start : start + 4] for start in range(0, len(args.plan), 4)]
    work, hook = prepare(args.folder)
    faulthandler.enable()
    for module in args.modules.split(","):
        importlib.import_module(f"attempts_{module}")
    if args.one:
        return one(args.seed, plans[0], work)
    stream = os.dup(1)
    os.dup2(2, 1)
    for number, (name, first, count, seconds) in enumerate(plans):
        if number == 0:
            importlib.import_module(f"attempts_{TARGETS[name].module}").load()
            limit_memory(args.memory)
        write = lambda line: os.write(stream, json.dumps(line).encode() + b"\n")  # noqa: E731
        run(name, args.seed, int(first), int(count), float(seconds), work, hook, write)
    return 0


def one(seed, plan, work):
    """Shows what a single case does."""
    name, number = plan[0], int(plan[1])
    importlib.import_module(f"attempts_{TARGETS[name].module}").load()
    limit_memory(MEMORY)
    shutil.rmtree(work / name, ignore_errors=True)
    (work / name).mkdir()
    read = TARGETS[name].prepare(work / name)(random.Random(f"{name} {seed} {number}"))
    print(f"the files are in {work / name}", file=sys.stderr)
    faulthandler.dump_traceback_later(SECONDS)
    print("read:", read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
