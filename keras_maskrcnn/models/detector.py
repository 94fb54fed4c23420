"""Finding objects in pictures of any size: placed on a canvas, run through the network, put back."""

import dataclasses

import numpy as np
from keras import ops

from keras_maskrcnn.data.geometry import fitted_size
from keras_maskrcnn.ops import images as image_ops
from keras_maskrcnn.ops.masks import paste


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

        Yields:
            dict as `detect` returns, in the order of `images`.
        """
        wanted = dataclasses.replace(
            self.detection,
            score_threshold=min(score_threshold, self.detection.score_threshold),
            nms_iou=self.detection.nms_iou if nms_iou is None else nms_iou,
            max_detections=max_detections or self.detection.max_detections,
        )
        # At most two batch sizes a canvas, so that two traces serve lists of any length.
        rows = batch_size if self.image_size and len(images) > 1 else 1
        for start in range(0, len(images), rows):
            chunk = [image_ops.check(picture) for picture in images[start : start + rows]]
            batch = self._predict_with(wanted, self._canvas_batch(chunk, rows))
            for i, picture in enumerate(chunk):
                yield self._in_picture(batch, i, picture, score_threshold)

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
        stride = self.canvas_stride()
        return tuple((-(-fitted // stride) * stride).tolist()), tuple(fitted.tolist())

    def _canvas_batch(self, pictures, rows):
        """Pictures on one canvas; a short batch is filled up with empty ones, so that one trace serves all."""
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

        Compiled functions are kept by options and canvas: one function for all canvases would be traced anew with
        heights and widths left open, which the network's fixed shapes do not allow.
        """
        usual, function = self.detection, self.predict_function
        key = (detection, inputs["images"].shape[1:3])
        self.detection, self.predict_function = detection, self._predict_functions.get(key)
        try:
            batch = self.predict_on_batch(inputs)
            self._predict_functions[key] = self.predict_function
        finally:
            self.detection, self.predict_function = usual, function
        return batch

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
