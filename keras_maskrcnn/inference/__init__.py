"""Inference: image → canvas → network → image, for a model and for a SavedModel alike.

Reading order: `placement` (one resize rule), `predictor` (batching, running, decoding), `tiles` (of large images),
`augmented` (views of an image), `panoptic` (objects and regions in one map); then `export` (formats), `exported` (what
their readers share), `saved_model`, and for inference engines `graph`, `onnx_file`, `openvino_file`
and `litert_file`.
Nothing here imports models, training or evaluation.
"""

from keras_maskrcnn.lazy import exports

_MODULES = {"SavedModel": "saved_model", "TestTimeAugmentation": "augmented"}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
