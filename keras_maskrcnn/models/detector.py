"""Finding objects in pictures of any size: placed on a canvas, run through the network, put back."""

import concurrent.futures
import dataclasses
import itertools
import math

import numpy as np
from keras import ops

from keras_maskrcnn import backend
from keras_maskrcnn.data.ahead import ahead
from keras_maskrcnn.data.geometry import fitted_size
from keras_maskrcnn.ops import images as image_ops
from keras_maskrcnn.ops.masks import paste

# Pictures whose masks are pasted, or wait, while the caller works on one more.
PASTED_AHEAD = 3


class Detector:
    """What a model with `detection`, `resize`, `image_size` and `predict_on_batch` does with single pictures."""

    def detect(self, image, score_threshold=0.5, nms_iou=None, max_detections=None, batch_size=8):
        """Find the objects of pictures of any size.

        Args:
            image: uint8 `[H, W, 3]`, or a list of such arrays of unequal sizes.
            score_threshold: lowest score of what is returned.
            nms_iou: overlap from which the lower-scored one of two boxes of a class goes; None takes the model's.
            max_detections: highest number of objects a picture; None takes the model's.
            batch_size: pictures that go through the network together, if the model has a canvas (`image_size`).
                Without one each picture has its own, and they go one by one.

        Returns:
            dict in pixels of the picture given: `boxes` float32 `[n, 4]` x1, y1, x2, y2; `labels` int32 `[n]` of
            1…K; `scores` float32 `[n]`, descending; `masks` bool `[n, H, W]`; `proposals` float32 `[n, 4]`, the boxes
            before they were refined. For a list, a list of dicts.

        Raises:
            ValueError: if a picture is not uint8 `[H, W, 3]`.
        """
        options = (score_threshold, nms_iou, max_detections, batch_size)
        if isinstance(image, list | tuple):
            return list(self.detect_each(image, *options))
        return next(self.detect_each([image], *options))

    def detect_each(self, images, score_threshold=0.5, nms_iou=None, max_detections=None, batch_size=8):
        """As `detect` for a list, but one result at a time: pasted masks of large pictures fill the memory.

        While the network runs, one thread reads and fits the next pictures, and one pastes the masks of the last; at
        most four pictures have their masks pasted at a time. What was found before an error arrives before the error.

        Args:
            images: iterable of uint8 `[H, W, 3]`, such as a generator that reads files. A thread reads it, up to two
                batches ahead: it must not wait for an answer.
            score_threshold: as for `detect`.
            nms_iou: as for `detect`.
            max_detections: as for `detect`.
            batch_size: as for `detect`.

        Yields:
            dict as `detect` returns, in the order of `images`.

        Raises:
            ValueError: if a picture is not uint8 `[H, W, 3]`.
        """
        wanted = dataclasses.replace(
            self.detection,
            score_threshold=min(score_threshold, self.detection.score_threshold),
            nms_iou=self.detection.nms_iou if nms_iou is None else nms_iou,
            max_detections=max_detections or self.detection.max_detections,
        )
        rows = batch_size if self.image_size else 1
        reading, pasting = (concurrent.futures.ThreadPoolExecutor(1) for _ in range(2))
        found = iter(())
        try:
            for chunk, inputs in ahead(self._canvas_batches(images, rows), reading):
                batch = self._predict_with(wanted, inputs)
                yield from found
                found = ahead(self._in_pictures(chunk, batch, score_threshold), pasting, PASTED_AHEAD)
            yield from found
        except Exception:
            yield from found
            raise
        finally:
            for threads in (reading, pasting):
                threads.shutdown(cancel_futures=True)

    def place(self, size):
        """Where a picture goes: the canvas, and the size that the picture takes at its top left.

        Args:
            size: (height, width) of the picture.

        Returns:
            (canvas, fitted): two (height, width) tuples of int.
        """
        if self.image_size:
            return self.image_size, tuple(fitted_size(size, self.image_size).tolist())
        rule = self.resize
        factor = min(rule.shorter / min(size), rule.longer / max(size))
        half = 0.0 if rule.rounding == "down" else 0.5
        fitted = np.maximum(np.floor(np.asarray(size) * factor + half), 1).astype(int)
        multiple = self.canvas_multiple()
        return tuple((-(-fitted // multiple) * multiple).tolist()), tuple(fitted.tolist())

    def canvas_multiple(self):
        """Pixels of which the sides of a canvas are multiples, for a model without one canvas for all pictures."""
        return math.lcm(self.resize.multiple or 1, self.canvas_stride())

    def _canvas_batches(self, images, rows):
        """Pictures by `rows`, and what the network takes for them."""
        images = iter(images)
        while chunk := [image_ops.check(picture) for picture in itertools.islice(images, rows)]:
            # Where shapes are compiled in, a short batch is filled up: two batch sizes serve lists of any length.
            fill = not self._any_size() and len(chunk) > 1
            yield chunk, self._canvas_batch(chunk, rows if fill else len(chunk))

    def _canvas_batch(self, pictures, rows):
        """Pictures on one canvas, with empty ones up to `rows`."""
        canvas, _ = self.place(pictures[0].shape[:2])
        images = np.zeros((rows, *canvas, 3), "float32")
        sizes = np.ones((rows, 2), "float32")
        for i, picture in enumerate(pictures):
            _, (height, width) = self.place(picture.shape[:2])
            fitted = image_ops.fit(picture, (height, width), self.resize.antialias)
            images[i, :height, :width] = ops.convert_to_numpy(fitted)
            sizes[i] = height, width
        return {"images": images, "sizes": sizes}

    def _predict_with(self, detection, inputs):
        """Run the network under other detection options.

        TensorFlow traces one graph for all canvases. XLA and JAX compile one for each, for their shapes are fixed.
        The graphs are kept until `compile`, and see weights change, but no other options of the model.
        """
        usual, function = self.detection, self.predict_function
        key = (detection, inputs["images"].shape[1:3])
        self.detection, self.predict_function = detection, self._predict_functions.get(key)
        try:
            if self._any_size():
                return self._predict_any_size(detection, inputs)
            batch = self.predict_on_batch(inputs)
            self._predict_functions[key] = self.predict_function
        finally:
            self.detection, self.predict_function = usual, function
        return batch

    def _any_size(self):
        """Whether one graph takes canvases and batches of all sizes: on TensorFlow, unless compiled for XLA."""
        return backend.is_tensorflow() and not (self.compiled and (self.jit_compile or self.run_eagerly))

    def _predict_any_size(self, detection, inputs):
        from keras_maskrcnn.backend.tensorflow.network import predict_function

        if detection not in self._predict_functions:
            self._predict_functions[detection] = predict_function(self)
        found = self._predict_functions[detection](inputs)
        return {name: ops.convert_to_numpy(values) for name, values in found.items()}

    def _in_pictures(self, chunk, batch, score_threshold):
        return (self._in_picture(batch, i, picture, score_threshold) for i, picture in enumerate(chunk))

    def _in_picture(self, batch, i, picture, score_threshold):
        """Detections of image `i` of a batch in the picture's own pixels, masks pasted."""
        height, width = picture.shape[:2]
        keep, scale = self._kept(batch, i, picture, score_threshold)
        boxes = batch["boxes"][i][keep] * scale
        return {
            "boxes": boxes,
            "labels": batch["labels"][i][keep].astype("int32"),
            "scores": batch["scores"][i][keep],
            "proposals": batch["proposals"][i][keep] * scale,
            "masks": paste(batch["masks"][i][keep], boxes, (height, width), how=self.detection.paste),
        }

    def _kept(self, batch, i, picture, score_threshold):
        """Which rows of image `i` count, bool `[D]`, and the factors from canvas to picture pixels, float32 `[4]`."""
        height, width = picture.shape[:2]
        _, fitted = self.place((height, width))
        keep = batch["valid"][i] & (batch["scores"][i] >= score_threshold)
        return keep, np.array([width / fitted[1], height / fitted[0]] * 2, "float32")
