"""A model as a function of canvases and thresholds that threads can share, compiled as the backend does it best."""

import threading

import keras
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.backend.processes import local


class Network:
    """Inference with a model: `network(inputs, limits)`.

    - TensorFlow without XLA: one graph for all canvases, batch sizes and thresholds.
    - XLA and JAX: one compiled function per canvas, batch size and capacity. The capacity is the number of detections
      that the function computes: the option `max_detections`, doubled until it reaches that of the call, at most the
      option `candidates`.
    - `run_eagerly`, and other backends: the model itself, one thread at a time.

    Weights may change between calls. Make a new `Network` after `compile`.

    Args:
        model: Keras model with an `image_type` and a `detection` (`heads.detection.Detection`) whose `call` takes a
            dict of `images` float32 `[B, H, W, C]` and `sizes` float32 `[B, 2]`, and the fields of
            `heads.detection.Limits` under their names.
    """

    def __init__(self, model):
        self._model = model
        self._lock, self._functions, self._traced = threading.Lock(), {}, set()

    @property
    def dynamic(self):
        """Whether one function serves batches of all sizes, so that short batches need no filling up."""
        return self._mode() == "dynamic"

    def _mode(self):
        model, name = self._model, keras.backend.backend()
        if name not in ("tensorflow", "jax") or (model.compiled and model.run_eagerly):
            return "eager"
        xla = name == "jax" or (model.compiled and model.jit_compile)
        return "compiled" if xla else "dynamic"

    def __call__(self, inputs, limits):
        """Run the network.

        Args:
            inputs: dict of arrays `images` and `sizes`.
            limits: `heads.detection.Limits` of Python numbers.

        Returns:
            dict of NumPy arrays.
        """
        run = {"eager": self._run_eagerly, "compiled": self._run_compiled, "dynamic": self._run_dynamic}[self._mode()]
        return {name: ops.convert_to_numpy(values) for name, values in run(inputs, limits).items()}

    def _run_eagerly(self, inputs, limits):
        inputs = {name: ops.convert_to_tensor(values) for name, values in inputs.items()}
        with self._lock:
            return self._model.call({**inputs, **limits._asdict()})

    def _run_dynamic(self, inputs, limits):
        with self._lock:
            if "dynamic" not in self._functions:
                from keras_maskrcnn.backend.tensorflow import network

                with backend.inference_scope():
                    self._functions["dynamic"] = network.dynamic(
                        lambda inputs: self._model(inputs, training=False), self._model.image_type.channels
                    )
        return self._functions["dynamic"]({**inputs, **limits._asdict()})

    def _run_compiled(self, inputs, limits):
        detection = self._model.detection
        capacity = detection.max_detections
        while capacity < limits.max_detections:
            capacity *= 2
        capacity = min(capacity, max(detection.candidates, detection.max_detections))
        thresholds = {"score_threshold": limits.score_threshold, "nms_iou": limits.nms_iou}
        inputs = {**inputs, **{name: ops.convert_to_tensor(v, "float32") for name, v in thresholds.items()}}
        key = (capacity, inputs["images"].shape)
        if key in self._traced:  # without the lock, which another canvas may hold while it compiles
            return self._functions[capacity](inputs)
        with self._lock:
            if capacity not in self._functions:
                self._functions[capacity] = self._compile(capacity)
            found = self._functions[capacity](inputs)
            self._traced.add(key)
        return found

    def _compile(self, capacity):
        def call(inputs):  # `call` itself: Keras refuses inputs of tensors and numbers together
            return self._model.call({**inputs, "max_detections": capacity})

        if backend.is_tensorflow():
            from keras_maskrcnn.backend.tensorflow import network

            return network.compiled(call)
        import jax

        model = self._model

        @jax.jit
        def stateless(trainable, other, inputs):
            inputs = {**inputs, "max_detections": capacity}
            return model.stateless_call(trainable, other, inputs, training=False)[0]

        def run(inputs):
            trainable, other = (
                [local(v.value) for v in variables]
                for variables in (model.trainable_variables, model.non_trainable_variables)
            )
            return stateless(trainable, other, inputs)

        return run
