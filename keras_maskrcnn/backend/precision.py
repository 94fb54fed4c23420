"""The dtype policy that is fastest on this machine without loss of accuracy."""

from keras_maskrcnn import backend

# NVIDIA's Ampere, the first with bfloat16 matrix instructions; older ones emulate them.
AMPERE = (8, 0)


def fastest_policy():
    """Name of a dtype policy: mixed_bfloat16 if the device has bfloat16 matrix instructions, else float32.

    The device is the GPU, where there is one: all GPUs must have NVIDIA's compute capability 8.0 or more. A GPU that
    reports no such number computes in float32.
    """
    if backend.has_gpu():
        fast = all((capability or (0, 0)) >= AMPERE for capability in backend.compute_capabilities())
    else:
        fast = _processor_has_bfloat16()
    return "mixed_bfloat16" if fast else "float32"


def _processor_has_bfloat16():
    return not backend.processor_flags().isdisjoint(("avx512_bf16", "amx_bf16"))
