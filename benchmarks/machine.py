"""The environment of a benchmark: machine, memory of a process, versions of libraries."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys

# Modules whose versions are reported if they are imported, and their distributions.
DISTRIBUTIONS = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "jax": "jax",
    "official": "tf-models-official",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
}


def description():
    """Processor, cores, memory, GPU and instructions for matrix products, in one line."""
    information = _cpuinfo()
    return ", ".join([_processor(information), _cores(), *_memory(), _gpu(), *_instructions(information)])


def _processor(information):
    names = [line.split(":", 1)[1].strip() for line in information.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores():
    installed = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else installed
    return f"{usable} cores" if usable == installed else f"{usable} of {installed} cores"


def _memory():
    path = pathlib.Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return [f"{round(int(line.split()[1]) / 2**20)} GiB" for line in lines if line.startswith("MemTotal")]


def _gpu():
    """Names of the GPUs from NVIDIA's driver."""
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True)
    return " + ".join(found.stdout.split("\n")).strip(" +") or "no GPU" if found.returncode == 0 else "no GPU"


def _instructions(information):
    """Instructions of the processor for matrix products; an empty list if /proc does not list them."""
    if "flags" not in information:
        return []
    vectors = [name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in information][:1]
    return [*vectors, *(_bfloat16_units(information) or ["no bfloat16 units"])]


def _bfloat16_units(information):
    return [name for name in ("avx512_bf16", "amx_bf16") if name in information]


def has_bfloat16():
    """Whether the processor has bfloat16 instructions, by the rule of `keras_maskrcnn.backend.precision`."""
    return bool(_bfloat16_units(_cpuinfo()))


def _cpuinfo():
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def peak_memory():
    """Peak resident memory of this process so far, in MB of 10⁶ bytes."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    # Without /proc. On Linux this number would be that of the parent process, if that is larger.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def imported():
    """Versions of the libraries of `DISTRIBUTIONS` that this process has imported, by name."""
    return versions([distribution for module, distribution in DISTRIBUTIONS.items() if module in sys.modules])


def versions(names):
    """Versions of the installed ones of the named distributions, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
