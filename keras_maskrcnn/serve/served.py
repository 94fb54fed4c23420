"""A model as the service runs it."""

import functools

import numpy as np

from keras_maskrcnn.heads.detection import SHOWN
from keras_maskrcnn.heads.outputs import of_objects
from keras_maskrcnn.serve.errors import RequestError


class Served:
    """A model with a name.

    Args:
        name: in the path of requests.
        model: an `inference.predictor.Detector` with `class_names`, `schema` and `image_type`.
        score: minimum score of requests that state none; None takes the model's option, or 0.5.
        most: maximum number of images in a batch.
    """

    def __init__(self, name, model, score=None, most=1):
        self.name, self.model, self._most = name, model, most
        self.class_names, self.image_type = model.class_names, model.image_type
        own = model.predictor.detection.score_threshold
        self.score = next(value for value in (score, own, SHOWN) if value is not None)

    @property
    def finds_objects(self):
        """Whether it finds objects, and not only classes of pixels."""
        return bool(of_objects(self.model.schema))

    def described(self, default):
        """What `/v1/models` states of it."""
        return {
            "name": self.name,
            "classes": list(self.class_names or ()),
            "default": default,
            "outputs": [output.name for output in self.model.schema if output.exported],
            "score_threshold": self.score,
        }

    def check(self, max_detections):
        """Raises a `RequestError` of status 400 for a number of objects that the file of the model does not have."""
        most = getattr(self.model.predictor.network, "most", None)
        if None not in (max_detections, most) and max_detections > most:
            raise RequestError(400, f"max_detections: the model {self.name} finds at most {most} objects per image")

    def key(self, image, score, max_detections):
        """Images with equal keys can be in one batch: they have one canvas and one set of thresholds."""
        placement, size = self.model.predictor.placement, image.shape[:2]
        tiles = placement.resize.tiles
        in_tiles = tiles and (size[0] > tiles[0] or size[1] > tiles[1])
        return object() if in_tiles else (self.name, score, max_detections, placement.place(size)[0])

    def detector(self, score, max_detections):
        """Function of a list of images to a list of `Detections` with cropped masks, for the thread of a `Batcher`."""
        return functools.partial(self._detect, self.score if score is None else score, max_detections)

    def _detect(self, score, max_detections, images):
        if len(images) == 1:
            limits = {"score_threshold": score, "max_detections": max_detections}
            return self.model.detect(images, masks="cropped", **limits)
        predictor = self.model.predictor
        limits = predictor.detection.limits(score, max_detections=max_detections)
        return list(predictor.run(map(predictor.placement.pixels, images), limits, self._most, "cropped"))

    def warm_up(self):
        """Detects in empty images, so that a model of one canvas is traced for both batch sizes before any request.

        A model without one is traced for the canvas of a small image only: the first request of each other canvas
        waits for its own.
        """
        predictor = self.model.predictor
        size = predictor.placement.image_size or (64, 64)
        empty = np.zeros((*size, self.image_type.channels), self.image_type.dtype)
        self._detect(self.score, None, [empty])
        if self._most > 1 and not predictor.network.dynamic:
            self._detect(self.score, None, [empty, empty])
