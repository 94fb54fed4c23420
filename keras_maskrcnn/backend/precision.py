"""The dtype policy that is fastest on this machine without loss of accuracy."""

import pathlib

from keras_maskrcnn import backend


def fastest_policy():
    """Name of a dtype policy: mixed_bfloat16 if the GPU or CPU has bfloat16 matrix instructions, else float32."""
    return "mixed_bfloat16" if backend.has_gpu() or _processor_has_bfloat16() else "float32"


def _processor_has_bfloat16():
    information = pathlib.Path("/proc/cpuinfo")
    if not information.is_file():
        return False
    flags = information.read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags
