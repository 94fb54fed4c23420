"""Drawing of panoptic maps and of label maps."""

import numpy as np
from PIL import Image, ImageDraw

from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.drawing.colours import colour
from keras_maskrcnn.drawing.labels import draw_labels
from keras_maskrcnn.drawing.sheets import as_rgb, extent
from keras_maskrcnn.inference.panoptic import regions

EDGE = (255, 255, 255)


def draw_panoptic(image, merged, class_names=None, stuff_names=None, opacity=0.6, labels=True, scale=1):
    """Draws the segments of a panoptic map: filled, with white borders, and with their names.

    Objects differ in colour; each class of stuff has one colour in all images. Pixels of no segment are not changed.

    Args:
        image: as for `visualize.draw`.
        merged: `inference.panoptic.Panoptic` of the size of the image.
        class_names: K names of the things; by default the number of the label is drawn.
        stuff_names: S names of the stuff, without that of label 0; likewise.
        opacity: opacity of the fill, 0..1.
        labels: draw names, with scores of detections.
        scale: integer factor by which the result is enlarged.

    Returns:
        uint8 [H·scale, W·scale, 3].

    Raises:
        ValueError: the map has another size than the image.
    """
    pixels = as_rgb(image).copy()
    ids = merged.ids
    if ids.shape != pixels.shape[:2]:
        raise ValueError(f"the map has {ids.shape} pixels, the image {pixels.shape[:2]}")
    # Stuff takes the darker row of the colours, so that it stays behind the objects.
    things = [segment.id for segment in merged.segments if segment.thing]
    tints = [colour(things.index(s.id)) if s.thing else colour(6 + s.label) for s in merged.segments]
    for segment, tint in zip(merged.segments, tints, strict=True):
        inside = ids == segment.id
        pixels[inside] = (pixels[inside] * (1 - opacity) + np.array(tint) * opacity).astype(np.uint8)
    pixels, ids = (array.repeat(scale, axis=0).repeat(scale, axis=1) for array in (pixels, ids))
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    pixels[edge] = EDGE
    if not labels or not merged.segments:
        return pixels
    canvas = Image.fromarray(pixels)
    boxes = mask_boxes(np.array([ids == segment.id for segment in merged.segments]))
    texts = [_text(segment, class_names if segment.thing else stuff_names) for segment in merged.segments]
    draw_labels(ImageDraw.Draw(canvas), canvas.size, texts, boxes, tints, max(10, int(extent(pixels) / 32)))
    return np.asarray(canvas)


def draw_semantic(image, semantic, class_names=None, ignore=255, **options):
    """Draws a label map: each class filled in one colour, with white borders and its name; background is not changed.

    Args:
        image: as for `visualize.draw`.
        semantic: uint8 [H, W], labels; 0 is background.
        class_names: K names of the labels from 1 on.
        ignore: label of the pixels that are not changed either.
        **options: `opacity`, `labels` and `scale` of `draw_panoptic`.

    Returns:
        uint8 [H·scale, W·scale, 3].

    Raises:
        ValueError: the map has another size than the image.
    """
    return draw_panoptic(image, regions(np.where(semantic == ignore, 0, semantic)), None, class_names, **options)


def _text(segment, names):
    """Name of a segment's class, and its score."""
    name = names[segment.label - 1] if names and segment.label <= len(names) else str(segment.label)
    return name if segment.score is None else f"{name} {segment.score:.2f}"
