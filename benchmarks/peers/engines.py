"""Networks that were exported to inference engines: ours, and torchvision's through ONNX, each on one canvas.

Kinds are "float32, our network", "bfloat16, torchvision's network", and "int8, our network" for OpenVINO with NNCF. A
Python without the package that a network needs has no such case.
"""

import importlib.util
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pairs

import peers

SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}
OUTPUTS = ("boxes", "labels", "scores", "masks")  # of torchvision


def inference(engine, kind, image, *, tiny=False, pasting=True):
    """One image at its own scale.

    Args:
        engine: "openvino" or "onnxruntime".
        kind: of `peers.KINDS`.
        image: uint8 `[H, W, 3]`.
        tiny: whether our network is the small one.
        pasting: whether masks are pasted into the image; otherwise they remain probabilities inside the boxes.

    Returns:
        A case for `pairs.serve`, or None.
    """
    precision, network = kind.split(", ")
    needed, make = {
        "our network": (("keras", engine, *(["nncf"] if precision == "int8" else [])), _ours),
        "torchvision's network": (("torchvision", engine), _theirs),
    }[network]
    if not all(importlib.util.find_spec(name) for name in needed):
        return None
    return make(engine, precision, image, tiny, pasting), 1


def _ours(engine, precision, image, tiny, pasting):
    """Our network. Another process writes the file, so that this process builds no Keras model."""
    from keras_maskrcnn.inference.export import opened

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"network{SUFFIX[engine]}"
        script = pathlib.Path(pairs.ROOT) / "benchmarks" / "inference.py"
        size = [str(side) for side in image.shape[:2]]
        is_int8 = precision == "int8"
        words = ["--size", *size, "--export", "int8" if is_int8 else "float32", str(path), *(["--tiny"] * tiny)]
        subprocess.run([sys.executable, str(script), *words], check=True)
        model = opened(path, **({"precision": precision} if engine == "openvino" and not is_int8 else {}))
    return peers.detecting(model, image, pasting)


def _theirs(engine, precision, image, tiny, pasting):
    """Torchvision's network, without its loop that pastes masks, which OpenVINO does not convert."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from peers import torchvision_maskrcnn

    del tiny
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1), "float32") / 255
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.onnx"
        torchvision_maskrcnn.write_onnx(path, torch.from_numpy(pixels), OUTPUTS)
        run = {"openvino": _openvino, "onnxruntime": _onnxruntime}[engine](path, precision)

    def call():
        boxes, _, _, masks = run(np.ascontiguousarray(image.transpose(2, 0, 1), "float32") / 255)
        if pasting:
            masks = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), image.shape[:2])
        return {"detections": len(masks), "mask_shape": [len(masks), *masks.shape[-2:]]}

    return call


def _openvino(path, precision):
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.compile_model(str(path), "CPU", options)
    return lambda pixels: list(compiled([pixels]).values())


def _onnxruntime(path, precision):
    import onnxruntime

    del precision  # float32; there are no kernels for bfloat16 on CPUs
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {session.get_inputs()[0].name: pixels})
