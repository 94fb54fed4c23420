"""Generated images of circles, squares and triangles: training without files."""

import numpy as np
from PIL import Image

from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import Dataset

CORNERS = {"square": 4, "triangle": 3}


class Shapes(Dataset):
    """Filled shapes that overlap on a noisy, textured background.

    An image depends only on the seed and its index. Colours of the shapes and of the background are random, so their
    contrast may be low; squares and triangles have random rotation; the frame may cut off up to a fifth of a shape on
    each side. Masks are those of the visible parts; a shape below `min_visible` is drawn but not annotated.

    Args:
        count: Number of images.
        image_size: (height, width) in pixels.
        seed: Non-negative int; use different ones for training and validation.
        objects: Minimum and maximum number of shapes per image.
        object_size: Minimum and maximum length of the longer side of a shape, in pixels.
        scale_objects: Scale `object_size` with the shorter side of the image, relative to 128 pixels.
        min_visible: Minimum visible share of the area of an annotated shape.
    """

    def __init__(
        self,
        count,
        image_size=(128, 128),
        seed=0,
        objects=(1, 5),
        object_size=(12, 60),
        scale_objects=False,
        min_visible=0.25,
    ):
        self.count, self.image_size, self.seed = count, tuple(image_size), seed
        self.objects, self.object_size, self.scale_objects = tuple(objects), tuple(object_size), scale_objects
        self.min_visible = min_visible
        self.class_names = ["circle", "square", "triangle"]

    def __len__(self):
        return self.count

    def read(self, position):
        """Draws one image."""
        rng = np.random.default_rng([self.seed, position])
        canvas, regions = self._ground(rng)
        labels, masks, areas = [], [], []
        for _ in range(rng.integers(self.objects[0], self.objects[1] + 1)):
            label = int(rng.integers(1, 4))
            mask, area = self._draw(canvas, self.class_names[label - 1], rng)
            for below in masks:
                below &= ~mask
            labels, masks, areas = [*labels, label], [*masks, mask], [*areas, area]
        canvas += rng.uniform(6, 26) * rng.standard_normal(canvas.shape, np.float32)
        fields = self._fields(regions, masks)
        kept = [i for i, mask in enumerate(masks) if mask.sum() >= max(1, self.min_visible * areas[i])]
        masks = np.array([masks[i] for i in kept], bool).reshape(-1, *self.image_size)
        return {
            "image": self.image_type.convert(np.clip(canvas, 0, 255).astype(np.uint8)),
            "labels": np.array([labels[i] for i in kept], np.int32),
            "masks": masks,
            "image_id": position,
            "source": f"{type(self).__name__}(seed={self.seed})[{position}]",
            **fields,
        }

    def _ground(self, rng):
        """Returns the background, float32 [H, W, 3], and what a subclass knows of its regions."""
        return _texture(rng, self.image_size, amplitude=rng.uniform(10, 45)), None

    def _fields(self, regions, masks):
        """Returns the further arrays of a subclass's samples, from its regions and the list of all drawn masks."""
        return {}

    def _draw(self, canvas, kind, rng):
        """Draws one shape; returns its mask [H, W] and its area in pixels including parts outside the frame."""
        height, width = self.image_size
        scale = min(height, width) / 128 if self.scale_objects else 1
        low, high = (min(scale * side, height, width) for side in self.object_size)
        shape = _outline(kind, rng.uniform(low, high), rng)
        rows, columns = shape.shape
        top = int(rng.integers(-(rows // 5), height - rows + rows // 5 + 1))
        left = int(rng.integers(-(columns // 5), width - columns + columns // 5 + 1))
        target = np.s_[max(0, top) : top + rows, max(0, left) : left + columns]
        mask = np.zeros(self.image_size, bool)
        inside = shape[max(0, -top) : height - top, max(0, -left) : width - left]
        mask[target] = inside
        colours = _texture(rng, inside.shape, amplitude=rng.uniform(0, 30))
        np.copyto(canvas[target], colours, where=inside[..., None])
        return mask, int(shape.sum())


def _outline(kind, side, rng):
    """Rasterises a shape whose box has a longer side of `side` pixels: bool, cropped to that box."""
    angle = rng.uniform(0, 2 * np.pi)
    pixels = np.arange(max(1, round(side))) + 0.5
    if kind == "circle":
        square = (pixels - len(pixels) / 2) ** 2
        return square[:, None] + square <= (len(pixels) / 2) ** 2
    angles = angle + 2 * np.pi * np.arange(CORNERS[kind]) / CORNERS[kind]
    corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    corners -= corners.min(0)
    corners *= len(pixels) / corners.max()
    inside = np.ones((len(pixels), len(pixels)), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        inside &= (x2 - x1) * (pixels[:, None] - y1) - (y2 - y1) * (pixels - x1) >= 0
    if not inside.any():
        inside[len(pixels) // 2, len(pixels) // 2] = True
    x1, y1, x2, y2 = mask_boxes(inside[None])[0].astype(int)
    return inside[y1:y2, x1:x2]


def _texture(rng, size, amplitude):
    """Returns float32 [height, width, 3]: a random colour with smooth variations of random grain size."""
    grain = int(rng.integers(2, 17))
    cells = rng.normal(rng.uniform(0, 255, 3), amplitude, (grain, grain, 3))
    cells = Image.fromarray(np.clip(cells, 0, 255).astype(np.uint8))
    return np.asarray(cells.resize(size[::-1], Image.Resampling.BILINEAR), np.float32).copy()
