"""An exported SavedModel used from Python as if it were the model: the same `detect`, by TensorFlow alone."""

import concurrent.futures
import pathlib

import numpy as np

from keras_maskrcnn.data.ahead import ahead
from keras_maskrcnn.data.sample import DataError
from keras_maskrcnn.ops.masks import paste


class SavedModel:
    """Loads what `MaskRCNN.export` wrote.

    Args:
        folder: the SavedModel's folder. Class names are read from its `assets/class_names.txt`, one a line, if present.

    Raises:
        DataError: the folder holds no SavedModel, or one without this library's signature.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self.folder = pathlib.Path(folder)
        if not (self.folder / "saved_model.pb").is_file():
            raise DataError(self.folder, "is not a SavedModel (there is no saved_model.pb)")
        self._model = tf.saved_model.load(str(self.folder))  # kept: its variables live as long as it does
        self._detect = self._model.signatures.get("serving_default")
        if self._detect is None or "detection_boxes" not in self._detect.structured_outputs:
            raise DataError(self.folder, "the SavedModel has no detection signature 'serving_default'")
        names = self.folder / "assets" / "class_names.txt"
        self.class_names = names.read_text(encoding="utf-8").splitlines() if names.is_file() else None
        how = self.folder / "assets" / "paste.txt"
        self._paste = how.read_text(encoding="utf-8").strip() if how.is_file() else "continuous"

    def detect(self, images, score_threshold=0.5, max_detections=None):
        """Detections in the pixels of each image, as `MaskRCNN.detect` returns them.

        The export fixed what the network keeps; thresholds can only leave out more of it.

        Args:
            images: one uint8 [H, W, 3] array, or a list of arrays of any sizes.
            score_threshold: least score.
            max_detections: most detections an image; None for all that the export keeps.

        Returns:
            dict of `boxes` float32 [n, 4] xyxy pixels, `labels` int32 [n], `scores` float32 [n] and `masks` bool
            [n, H, W]; for a list, a list of them.
        """
        if isinstance(images, (list, tuple)):
            return list(self.detect_each(images, score_threshold, max_detections))
        return self._detect_one(images, score_threshold, max_detections)

    def detect_each(self, images, score_threshold=0.5, max_detections=None, batch_size=1):
        """As `detect` for any iterable of images, one result at a time; a thread reads the next image meanwhile.

        Args:
            images: iterable of uint8 [H, W, 3] arrays, such as a generator that reads files.
            score_threshold: least score.
            max_detections: most detections an image; None for all that the export keeps.
            batch_size: not used: images go through the network one by one.

        Yields:
            dict as `detect` returns, in the order of `images`.
        """
        del batch_size
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            for image in ahead(images, threads):
                yield self._detect_one(image, score_threshold, max_detections)

    def _detect_one(self, image, score_threshold, max_detections):
        import tensorflow as tf

        answer = self._detect(images=tf.constant(image[None]))
        found = {name: value.numpy()[0] for name, value in answer.items()}
        height, width = image.shape[:2]
        count = min(int(found["num_detections"]), max_detections or len(found["detection_scores"]))
        kept = np.flatnonzero(found["detection_scores"][:count] >= score_threshold)
        boxes = found["detection_boxes"][kept][:, [1, 0, 3, 2]] * np.array([width, height, width, height], "float32")
        return {
            "boxes": boxes.astype("float32"),
            "labels": found["detection_classes"][kept].astype("int32"),
            "scores": found["detection_scores"][kept].astype("float32"),
            "masks": paste(found["detection_masks"][kept], boxes, (height, width), how=self._paste),
        }
