"""Generated images of filled shapes, or of shapes of thin lines: training without files."""

from collections.abc import Sequence

import numpy as np

from keras_maskrcnn.data.mini_masks import mask_boxes
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.data.texture import texture
from keras_maskrcnn.options import check_choice

CORNERS = {"square": 4, "triangle": 3}
# Ends x1, y1, x2, y2 of the lines of a shape; its scale and rotation are random.
LINES = {
    "bar": [(-1, 0, 1, 0)],
    "elbow": [(-1, -1, -1, 1), (-1, 1, 1, 1)],
    "tee": [(-1, -1, 1, -1), (0, -1, 0, 1)],
    "cross": [(-1, 0, 1, 0), (0, -1, 0, 1)],
}
FILLED = ("circle", "square", "triangle")
THIN = (*LINES, "ring")


class Shapes(Dataset):
    """Shapes that overlap on a noisy, textured background.

    An image depends only on the seed and its index. Colours of the shapes and of the background are random, so their
    contrast may be low; all shapes but circles and rings have random rotation; the frame may cut off up to a fifth of a
    shape on each side. Masks are those of the visible parts; a shape below `min_visible` is drawn but not annotated.

    Args:
        count: Number of images.
        image_size: (height, width) in pixels.
        seed: Non-negative int; use different ones for training and validation.
        objects: Minimum and maximum number of shapes per image.
        object_size: Minimum and maximum length of the longer side of a shape, in pixels.
        scale_objects: Scale `object_size` with the shorter side of the image, relative to 128 pixels.
        min_visible: Minimum visible share of the area of an annotated shape.
        kinds: The classes, any of "circle", "square", "triangle" (filled), "bar", "elbow", "tee", "cross" and "ring"
            (of thin lines with round ends, whose masks need exact positions).
        thickness: Minimum and maximum thickness of thin lines as a share of the longer side of a shape.
        texture: Minimum and maximum standard deviation of the background's smooth variations, in grey levels.
        noise: Minimum and maximum standard deviation of the noise of the pixels, in grey levels.

    Raises:
        ValueError: for no or an unknown kind, or a thickness outside 0…1.
    """

    def __init__(
        self,
        count: int,
        image_size: tuple[int, int] = (128, 128),
        seed: int = 0,
        objects: tuple[int, int] = (1, 5),
        object_size: tuple[float, float] = (12, 60),
        scale_objects: bool = False,
        min_visible: float = 0.25,
        kinds: Sequence[str] = FILLED,
        thickness: tuple[float, float] = (0.12, 0.25),
        texture: tuple[float, float] = (10, 45),
        noise: tuple[float, float] = (6, 26),
    ):
        if not kinds:
            raise ValueError("kinds=() names no shape")
        for kind in kinds:
            check_choice("kinds", kind, (*FILLED, *THIN))
        if not 0 < thickness[0] <= thickness[1] < 1:
            raise ValueError(f"thickness={thickness} must be two shares in 0…1, the smaller one first")
        self._count, self.image_size, self.seed = count, tuple(image_size), seed
        self.objects, self.object_size, self.scale_objects = tuple(objects), tuple(object_size), scale_objects
        self.min_visible = min_visible
        self.class_names = list(kinds)
        self.thickness, self.texture, self.noise = tuple(thickness), tuple(texture), tuple(noise)

    def __len__(self):
        return self._count

    def read(self, position):
        """Draws one image."""
        rng = np.random.default_rng([self.seed, position])
        canvas, regions = self._ground(rng)
        labels, masks, areas = [], [], []
        for _ in range(rng.integers(self.objects[0], self.objects[1] + 1)):
            label = int(rng.integers(1, self.num_classes + 1))
            mask, area = self._draw(canvas, self.class_names[label - 1], rng)
            for below in masks:
                below &= ~mask
            labels, masks, areas = [*labels, label], [*masks, mask], [*areas, area]
        canvas += rng.uniform(*self.noise) * rng.standard_normal(canvas.shape, np.float32)
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
        """Returns the background, float32 [H, W, 3], and its regions for `_fields`, here None."""
        return texture(rng, self.image_size, amplitude=rng.uniform(*self.texture)), None

    def _fields(self, regions, masks):
        """Returns the further arrays of a subclass's samples, from its regions and the list of all drawn masks."""
        return {}

    def _draw(self, canvas, kind, rng):
        """Draws one shape; returns its mask [H, W] and its area in pixels including parts outside the frame."""
        height, width = self.image_size
        scale = min(height, width) / 128 if self.scale_objects else 1
        low, high = (min(scale * side, height, width) for side in self.object_size)
        side = rng.uniform(low, high)
        draw = _thin if kind in THIN else _filled
        shape = _cropped(draw(kind, max(1, round(side)), rng, self.thickness))
        rows, columns = shape.shape
        top = int(rng.integers(-(rows // 5), height - rows + rows // 5 + 1))
        left = int(rng.integers(-(columns // 5), width - columns + columns // 5 + 1))
        target = np.s_[max(0, top) : top + rows, max(0, left) : left + columns]
        mask = np.zeros(self.image_size, bool)
        inside = shape[max(0, -top) : height - top, max(0, -left) : width - left]
        mask[target] = inside
        colours = texture(rng, inside.shape, amplitude=rng.uniform(0, 30))
        np.copyto(canvas[target], colours, where=inside[..., None])
        return mask, int(shape.sum())


def _filled(kind, side, rng, thickness):
    """Rasterises a filled shape whose longer side has `side` pixels: bool [side, side]."""
    angle = rng.uniform(0, 2 * np.pi)
    pixels = np.arange(side) + 0.5
    if kind == "circle":
        square = (pixels - side / 2) ** 2
        return square[:, None] + square <= (side / 2) ** 2
    angles = angle + 2 * np.pi * np.arange(CORNERS[kind]) / CORNERS[kind]
    corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    corners -= corners.min(0)
    corners *= side / corners.max()
    inside = np.ones((side, side), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        inside &= (x2 - x1) * (pixels[:, None] - y1) - (y2 - y1) * (pixels - x1) >= 0
    return inside


def _thin(kind, side, rng, thickness):
    """Rasterises a shape of thin lines whose longer side has `side` pixels: bool [side, side]."""
    angle, width = rng.uniform(0, 2 * np.pi), side * rng.uniform(*thickness)
    x, y = np.arange(side) + 0.5, np.arange(side)[:, None] + 0.5
    if kind == "ring":
        return np.abs(np.hypot(x - side / 2, y - side / 2) - (side - width) / 2) <= width / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ends = np.array(LINES[kind], float).reshape(-1, 2) @ turn
    ends -= ends.min(0)
    ends = (ends * (side - width) / ends.max() + width / 2).reshape(-1, 4)
    return np.any([_distance(x, y, *line) <= width / 2 for line in ends], axis=0)


def _distance(x, y, x1, y1, x2, y2):
    """Distance of points from the line from (x1, y1) to (x2, y2)."""
    along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
    along = np.clip(along, 0, 1)
    return np.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1))


def _cropped(inside):
    """A shape without empty rows and columns at its sides; one pixel in the middle if no pixel is inside."""
    if not inside.any():
        inside[len(inside) // 2, len(inside) // 2] = True
    x1, y1, x2, y2 = mask_boxes(inside[None])[0].astype(int)
    return inside[y1:y2, x1:x2]
