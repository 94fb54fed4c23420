"""A model as a function of canvases and thresholds that threads can share, compiled as the backend does it best."""

import threading

import keras
from keras import ops

from keras_maskrcnn import backend


class Network:
    """Inference with a model: `network(inputs, limits)`.

    - TensorFlow without XLA: one graph for all canvases, batch sizes and thresholds.
    - XLA and JAX: one compiled function per canvas, batch size and capacity. The capacity is the number of detections
      that the function computes: the model's `max_detections`, doubled until it reaches the number asked for.
    - `run_eagerly`, and other backends: the model itself, one thread at a time.

    Weights may change between calls. Make a new `Network` after `compile`.

    Args:
        model: Keras model whose `call` takes a dict of `images` float32 `[B, H, W, 3]` and `sizes` float32 `[B, 2]`,
            and the fields of `heads.detection.Limits` under their names.
        capacity: number of detections of a compiled function, at least.
    """

    def __init__(self, model, capacity):
        self._model, self._capacity = model, capacity
        self._lock, self._functions, self._traced = threading.Lock(), {}, set()
        xla = bool(model.compiled and model.jit_compile)
        eager = bool(model.compiled and model.run_eagerly)
        name = keras.backend.backend()
        self._kind = "eager" if eager or name not in ("tensorflow", "jax") else "compiled"
        if self._kind == "compiled" and name == "tensorflow" and not xla:
            self._kind = "dynamic"

    @property
    def dynamic(self):
        """Whether one function serves batches of all sizes, so that short batches need no filling up."""
        return self._kind == "dynamic"

    def __call__(self, inputs, limits):
        """Run the network.

        Args:
            inputs: dict of arrays `images` and `sizes`.
            limits: `heads.detection.Limits` of Python numbers.

        Returns:
            dict of NumPy arrays.
        """
        run = {"eager": self._run_eagerly, "compiled": self._run_compiled, "dynamic": self._run_dynamic}[self._kind]
        return {name: ops.convert_to_numpy(values) for name, values in run(inputs, limits).items()}

    def _run_eagerly(self, inputs, limits):
        inputs = {name: ops.convert_to_tensor(values) for name, values in inputs.items()}
        with self._lock:
            return self._model.call({**inputs, **limits._asdict()})

    def _run_dynamic(self, inputs, limits):
        with self._lock:
            if not self._functions:
                from keras_maskrcnn.backend.tensorflow import network

                self._functions["all"] = network.dynamic(lambda inputs: self._model(inputs, training=False))
        return self._functions["all"]({**inputs, **limits._asdict()})

    def _run_compiled(self, inputs, limits):
        capacity = self._capacity
        while capacity < limits.max_detections:
            capacity *= 2
        thresholds = {"score_threshold": limits.score_threshold, "nms_iou": limits.nms_iou}
        inputs = {**inputs, **{name: ops.convert_to_tensor(v, "float32") for name, v in thresholds.items()}}
        key = (capacity, inputs["images"].shape)
        with self._lock:
            function = self._functions.get(capacity)
            if function is None:
                function = self._functions[capacity] = self._compile(capacity)
            if key not in self._traced:
                found = function(inputs)
                self._traced.add(key)
                return found
        return function(inputs)

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
            trainable, other = model.trainable_variables, model.non_trainable_variables
            return stateless([v.value for v in trainable], [v.value for v in other], inputs)

        return run
