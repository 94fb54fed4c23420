"""A model as the service runs it."""

import functools

import numpy as np

from keras_maskrcnn.heads.detection import SHOWN
from keras_maskrcnn.heads.outputs import of_objects


class Served:
    """A model with a name.

    Args:
        name: in the path of requests.
        model: an `inference.predictor.Detector` with `class_names`, `schema` and `image_type`.
        score: minimum score of requests that state none; None takes the model's option, or 0.5.
    """

    def __init__(self, name, model, score=None):
        self.name, self.model = name, model
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

    def key(self, image, score, max_detections):
        """Images with equal keys can be in one batch: they have one canvas and one set of thresholds."""
        size = self.model.predictor.placement.image_size
        return self.name, score, max_detections, size or image.shape

    def detector(self, score, max_detections):
        """Function of a list of images to a list of `Detections` with cropped masks, for the thread of a `Batcher`."""
        return functools.partial(self._detect, score, max_detections)

    def _detect(self, score, max_detections, images):
        limits = {"score_threshold": self.score if score is None else score, "max_detections": max_detections}
        return self.model.detect(images, batch_size=len(images), masks="cropped", **limits)

    def warm_up(self):
        """Detects in an empty image, so that the first request does not wait for tracing."""
        size = self.model.predictor.placement.image_size or (64, 64)
        self._detect(None, None, [np.zeros((*size, self.image_type.channels), self.image_type.dtype)])
