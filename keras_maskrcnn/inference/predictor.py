"""Detections in images of any size: placed on a canvas, run through the network, decoded to image pixels."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_maskrcnn.heads.detection import SHOWN, check_count
from keras_maskrcnn.heads.outputs import Detections, of_objects, to_image
from keras_maskrcnn.inference import tiles as tiling
from keras_maskrcnn.inference.ahead import ahead, kept_thread
from keras_maskrcnn.options import check_choice

# Images that are decoded at a time, in addition to the one that the caller works on.
DECODED_AHEAD = 3


class Predictor:
    """Detection by any function of a canvas. Its options do not change, and threads can share it.

    Args:
        network: function of a dict of `images` float32 `[B, *canvas, C]` and `sizes` float32 `[B, 2]`, and of
            `heads.detection.Limits`, to a dict of arrays: of objects `[B, D, ...]` with "valid", and maps. Its
            attribute `dynamic` states whether batches of any size are equally good.
        placement: `placement.Placement`.
        schema: tuple of `heads.outputs.Output`.
        detection: `heads.detection.Detection`.
    """

    def __init__(self, network, placement, schema, detection):
        self.network, self.placement, self.schema, self.detection = network, placement, schema, detection

    def detect_each(self, images, batch_size=8, tiles=None, overlap=None, masks="full", **limits):
        """As `Detector.detect_each`."""
        check_choice("masks", masks, ("full", "cropped"))
        limits = self.detection.limits(**limits, default_score=SHOWN)
        rows = check_count("batch_size", batch_size)
        detect = functools.partial(self.run, limits=limits, rows=rows if self.placement.one_canvas else 1)
        tiles = self.placement.resize.tiles if tiles is None else tiles
        overlap = self.placement.resize.overlap if overlap is None else overlap
        tiling.check_tiles(tiles, overlap)
        images = map(self.placement.pixels, images)  # of the whole image, whose percentiles a tile does not have
        if not tiles:
            return detect(images, masks=masks)
        detect = functools.partial(detect, masks="cropped")
        return tiling.detect_each(detect, images, tiles, overlap, limits.max_detections, masks == "cropped")

    def run(self, images, limits, rows, masks):
        """Yields the `Detections` in images whose pixels are those of `Placement.pixels`, without tiles.

        Args:
            images: iterable of uint8 `[H, W, 3]`.
            limits: `heads.detection.Limits`.
            rows: maximum number of images in a batch, which have one canvas.
            masks: as for `heads.outputs.to_image`.
        """
        with kept_thread() as reading, kept_thread() as decoding:
            found = iter(())
            try:
                for chunk, inputs in ahead(self._batches(images, rows), reading):
                    batch = self.network(inputs, limits)
                    yield from found
                    found = ahead(self._decoded(chunk, batch, limits, masks), decoding, DECODED_AHEAD)
            except Exception:
                yield from found
                raise
            yield from found

    def _batches(self, images, rows):
        """Pairs of up to `rows` images and the network's inputs for them; an error comes after the images before it."""
        images, error = iter(images), None
        while error is None:
            chunk = []
            try:
                chunk.extend(itertools.islice(images, rows))
            except Exception as caught:
                error = caught
            if chunk:
                # Where shapes are compiled in, a short batch is filled up: two batch sizes serve lists of any length.
                fill = not self.network.dynamic and len(chunk) > 1
                yield chunk, self.placement.batch(chunk, rows if fill else len(chunk))
            elif error is None:
                return
        raise error

    def _decoded(self, images, batch, limits, masks):
        rows = (self._decode(batch, i, image, limits) for i, image in enumerate(images))
        return (self._placed(found, image, masks) for found, image in zip(rows, images, strict=True))

    def _decode(self, batch, i, image, limits):
        """Detections of image `i` of a batch in pixels of the network's input: dict of arrays."""
        found = {output.name: batch[output.name][i] for output in self.schema}
        if not of_objects(self.schema):
            return found
        keep = np.flatnonzero(batch["valid"][i] & (batch["scores"][i] > limits.score_threshold))
        return {**found, **{o.name: found[o.name][keep[: limits.max_detections]] for o in of_objects(self.schema)}}

    def _placed(self, rows, image, masks):
        """`Detections` in pixels of the image."""
        height, width = image.shape[:2]
        canvas, fitted = self.placement.place((height, width))
        scale = (width / fitted[1], height / fitted[0])
        return to_image(self.schema, rows, scale, (height, width), self.detection.paste, masks, canvas)


class Detector:
    """`detect` and `detect_each` for a class with an attribute or property `predictor`."""

    predictor: Any

    def detect(
        self,
        image: np.ndarray | list[np.ndarray],
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 8,
        tiles: tuple[int, int] | None = None,
        overlap: int | None = None,
        masks: str = "full",
    ):
        """Find the objects in images of any size.

        Thresholds belong to the call: they change nothing in the model, and threads may call with different ones.

        Args:
            image: uint8 `[H, W, 3]`, or of the model's `image_type`; or a list of such arrays of unequal sizes. Grey
                images may be `[H, W]`.
            score_threshold: only objects that score higher are returned; float in [0, 1]. None takes the model's
                `detection` option, and 0.5 where that is None.
            nms_iou: overlap in [0, 1] above which the lower-scored one of two boxes of a class is removed; None takes
                the model's option.
            max_detections: maximum number of objects per image, at least 1; None takes the model's option.
            batch_size: images that go through the network together, if the model has a canvas (`image_size`). Without
                one each image has its own, and they go one by one.
            tiles: (height, width) of the tiles of larger images, see `inference.tiles`; None takes the model's `resize`
                option, which by default detects in whole images.
            overlap: minimum number of pixels that neighbouring tiles share; None takes the model's option.
            masks: "full" for arrays, "cropped" for `data.CroppedMasks`, which take the bits of the objects' boxes: for
                hundreds of objects in large images.

        Returns:
            `heads.outputs.Detections`, a dict in pixels of the given image: `boxes` float32 `[n, 4]` x1, y1, x2, y2;
            `labels` int32 `[n]` of 1…K; `scores` float32 `[n]`, descending; and the other outputs of the model, such
            as `masks` bool `[n, H, W]`, or of the whole image, as `semantic` uint8 `[H, W]`. A model without objects
            has the latter only. For a list, a list of them.

        Raises:
            ValueError: if an image has another type, or a threshold is outside its range.
        """
        options = (score_threshold, nms_iou, max_detections, batch_size, tiles, overlap, masks)
        if isinstance(image, list | tuple):
            return list(self.detect_each(image, *options))
        (found,) = self.detect_each([image], *options)
        return found

    def detect_each(
        self,
        images: Iterable[np.ndarray],
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 8,
        tiles: tuple[int, int] | None = None,
        overlap: int | None = None,
        masks: str = "full",
    ) -> Iterator[Detections]:
        """As `detect` for a list, but one result at a time, because full masks of large images need much memory.

        While the network runs, one thread reads and resizes the next images, and one pastes the masks of the last; at
        most four images have their masks pasted at a time. Results before an error are yielded before it is raised.

        Args:
            images: iterable of images as for `detect`, such as a generator that reads files. A thread reads it, up to
                two batches ahead, so it must not depend on the results. Closing the generator of results waits until
                the image that is being read has been read.
            score_threshold: as for `detect`.
            nms_iou: as for `detect`.
            max_detections: as for `detect`.
            batch_size: as for `detect`.
            tiles: as for `detect`.
            overlap: as for `detect`.
            masks: as for `detect`.

        Yields:
            `Detections` as `detect` returns them, in the order of `images`.

        Raises:
            ValueError: as `detect`.
        """
        limits = {"score_threshold": score_threshold, "nms_iou": nms_iou, "max_detections": max_detections}
        return self.predictor.detect_each(images, batch_size, tiles, overlap, masks, **limits)
