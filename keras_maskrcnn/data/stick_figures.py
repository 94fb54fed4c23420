"""Generated images of stick figures with COCO's 17 keypoints: training of human pose without files."""

import itertools

import numpy as np
from PIL import Image, ImageDraw

from keras_maskrcnn.data.coco_keypoints import NAME, PERSON, mirrored
from keras_maskrcnn.data.fields import Points
from keras_maskrcnn.data.sample import Dataset
from keras_maskrcnn.data.texture import texture

# Lengths of the parts as shares of the height of an upright figure.
TORSO, SHOULDERS, HIPS, NECK, HEAD = 0.28, 0.11, 0.075, 0.13, 0.085
ARMS, LEGS = (0.16, 0.15), (0.23, 0.22)
LIMB, FACE = 0.055, 0.022  # thickness of limbs, radius of eyes and ears
FINE = 3  # samples per pixel and axis of a drawing, whose edges are smooth in the image


class StickFigures(Dataset):
    """People made of lines who face the viewer, in front of and behind each other and of blocks.

    An image depends only on the seed and its index. Each figure has a random size, pose, lean and turn, and its own
    colours; left limbs and right limbs have two different ones. They say nothing about the side: as the figures face
    the viewer, their left side is on the right of the image, also in a mirrored image whose keypoints changed places.

    Samples have the field `keypoints` (`data.Points`), in COCO's order. Visibility is 2 for a point whose pixel, or one
    next to it, shows its figure; 1 for one behind another figure or a block; and 0 for one outside the image. Masks are
    those of the visible parts: a pixel belongs to the object in front that covers half of it. A figure below
    `min_visible` is drawn but not annotated.

    Args:
        count: Number of images.
        image_size: (height, width) in pixels.
        seed: Non-negative int; use different ones for training and validation.
        figures: Minimum and maximum number of figures per image.
        figure_size: Minimum and maximum height of an upright figure, as shares of the shorter side of the image.
        blocks: Maximum number of rectangles and ellipses per image, which hide parts of the figures.
        min_visible: Minimum visible share of the area of an annotated figure.
    """

    def __init__(
        self,
        count,
        image_size=(160, 160),
        seed=0,
        figures=(1, 3),
        figure_size=(0.4, 0.9),
        blocks=2,
        min_visible=0.3,
    ):
        self._count, self.image_size, self.seed = count, tuple(image_size), seed
        self.figures, self.figure_size, self.blocks = tuple(figures), tuple(figure_size), blocks
        self.min_visible = min_visible
        self.class_names = ["person"]
        self.fields = (Points(NAME, (len(PERSON), 3), mirrored=mirrored(PERSON), names=PERSON),)

    def __len__(self):
        return self._count

    def read(self, position):
        """Draws one image."""
        rng = np.random.default_rng([self.seed, position])
        canvas = texture(rng, self.image_size, amplitude=rng.uniform(10, 45))
        figures = [self._figure(rng) for _ in range(rng.integers(self.figures[0], self.figures[1] + 1))]
        objects = [*figures, *[None] * int(rng.integers(0, self.blocks + 1))]
        points, masks, areas = [], [], []
        for index in rng.permutation(len(objects)):
            figure = objects[index]
            paint = _block(self.image_size, rng) if figure is None else _drawn(*figure, rng)
            mask = paint.over(canvas)
            for below in masks:
                below &= ~mask
            if figure is not None:
                points, masks, areas = [*points, figure[0]], [*masks, mask], [*areas, paint.area()]
        canvas += rng.uniform(4, 16) * rng.standard_normal(canvas.shape, np.float32)
        kept = [i for i, mask in enumerate(masks) if mask.sum() >= max(1, self.min_visible * areas[i])]
        keypoints = [_with_visibility(points[i], masks[i]) for i in kept]
        return {
            "image": self.image_type.convert(np.clip(canvas, 0, 255).astype(np.uint8)),
            "labels": np.ones(len(kept), np.int32),
            "masks": np.array([masks[i] for i in kept], bool).reshape(-1, *self.image_size),
            NAME: np.array(keypoints, np.float32).reshape(-1, len(PERSON), 3),
            "image_id": position,
            "source": f"StickFigures(seed={self.seed})[{position}]",
        }

    def _figure(self, rng):
        """Keypoints float64 [17, 2] of a figure, in pixels of the image, and its height in pixels."""
        size = np.array(self.image_size[::-1], float)
        height = rng.uniform(*self.figure_size) * size.min()
        points = _pose(rng) * height
        low, high = points.min(0), points.max(0)
        # Up to a sixth of the figure may be outside.
        first, last = -(high - low) / 6, size - (high - low) * 5 / 6
        return points - low + rng.uniform(np.minimum(first, last), np.maximum(first, last)), height


def _pose(rng):
    """Keypoints float64 [17, 2] of a figure of height 1, x to the right and y down."""
    turn = np.cos(rng.uniform(-0.9, 0.9))  # how wide shoulders and hips look from the front
    places = {"head": np.array([0.0, -TORSO - NECK])}
    sway = rng.uniform(-0.12, 0.12)
    face = places["head"] + rng.uniform((-0.02, -0.01), (0.02, 0.015))
    places["nose"] = face
    for side, sign in (("left", 1), ("right", -1)):
        places[f"{side}_eye"] = face + np.array([sign * 0.032, -0.025])
        places[f"{side}_ear"] = places["head"] + np.array([sign * HEAD, -0.005])
        shoulder = np.array([sign * SHOULDERS * turn, -TORSO])
        elbow = shoulder + ARMS[0] * _direction(sign * rng.uniform(-0.3, 2.7))
        wrist = elbow + ARMS[1] * _direction(sign * rng.uniform(-0.9, 3.1))
        hip = np.array([sign * HIPS * turn + sway, 0.0])
        thigh = rng.uniform(-0.15, 0.9)
        knee = hip + LEGS[0] * _direction(sign * thigh)
        ankle = knee + LEGS[1] * _direction(sign * (thigh - rng.uniform(-0.2, 1.0)))
        for part, place in (("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist)):
            places[f"{side}_{part}"] = place
        for part, place in (("hip", hip), ("knee", knee), ("ankle", ankle)):
            places[f"{side}_{part}"] = place
    lean = rng.normal(0, 0.2)
    rotation = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    return np.array([places[name] for name in PERSON]) @ rotation.T


def _direction(angle):
    """Unit vector at an angle in radians from straight down towards the right of the image."""
    return np.array([np.sin(angle), np.cos(angle)])


class Paint:
    """Strokes of plain colours at FINE samples per pixel, in the order in which they cover each other.

    Args:
        points: float [n, 2], x and y in pixels of the image, whose extent the strokes have.
        margin: distance in pixels by which the strokes extend beyond the points.
    """

    def __init__(self, points, margin):
        self.origin = np.floor(np.min(points, axis=0) - margin).astype(int)
        self.end = np.ceil(np.max(points, axis=0) + margin).astype(int)
        self.sheet = Image.new("L", tuple(int(side) * FINE for side in self.end - self.origin))
        self.pen = ImageDraw.Draw(self.sheet)
        self.colours = [(0, 0, 0)]  # by the numbers on the sheet; 0 is empty

    def line(self, start, end, width, colour):
        """A line with round ends between two points."""
        self.pen.line([*self._place(start), *self._place(end)], self._ink(colour), max(1, round(width * FINE)))
        for point in (start, end):
            self.ellipse(point, width / 2, colour)

    def ellipse(self, centre, half, colour):
        """A filled ellipse; `half` is its radius, or (x, y)."""
        self.pen.ellipse(self._around(centre, half), self._ink(colour))

    def rectangle(self, centre, half, colour):
        """A filled rectangle; `half` is half its sides (x, y)."""
        self.pen.rectangle(self._around(centre, half), self._ink(colour))

    def polygon(self, corners, colour):
        """A filled polygon."""
        self.pen.polygon([self._place(corner) for corner in corners], self._ink(colour))

    def area(self):
        """Covered area in pixels, including what is outside of the image."""
        return np.count_nonzero(np.asarray(self.sheet)) / FINE**2

    def over(self, canvas):
        """Blends the strokes into `canvas`, float32 [H, W, 3].

        Returns:
            bool [H, W], the pixels of which at least half is covered.
        """
        mask = np.zeros(canvas.shape[:2], bool)
        (x1, y1), (x2, y2) = (np.clip(corner, 0, canvas.shape[1::-1]) for corner in (self.origin, self.end))
        if x1 >= x2 or y1 >= y2:
            return mask
        sheet = self.sheet.crop([int(edge) * FINE for edge in (*(x1, y1) - self.origin, *(x2, y2) - self.origin)])
        share = np.asarray(sheet.point([0] + [255] * 255).reduce(FINE), np.float32)[..., None] / 255
        sheet.putpalette([channel for colour in self.colours for channel in colour])
        part = canvas[y1:y2, x1:x2]
        part *= 1 - share
        part += np.asarray(sheet.convert("RGB").reduce(FINE))  # black, which adds nothing, where the sheet is empty
        mask[y1:y2, x1:x2] = share[..., 0] >= 0.5
        return mask

    def _ink(self, colour):
        if colour not in self.colours:
            self.colours.append(colour)
        return self.colours.index(colour)

    def _around(self, centre, half):
        (x, y), (across, down) = self._place(centre), np.broadcast_to(np.asarray(half, float) * FINE, 2)
        return [x - across, y - down, x + across, y + down]

    def _place(self, point):
        # Pillow's whole numbers are centres of samples.
        return tuple((float(value) - start) * FINE - 0.5 for value, start in zip(point, self.origin, strict=True))


def _drawn(points, height, rng):
    """`Paint` with a figure of a height in pixels, given its keypoints."""
    at = dict(zip(PERSON, points, strict=True))
    head = (at["left_ear"] + at["right_ear"]) / 2
    width = height * LIMB * rng.uniform(0.85, 1.3)
    paint = Paint(np.array([*points, head - height * HEAD, head + height * HEAD]), width)
    body, skin, *limbs = (_colour(rng) for _ in range(4))
    limbs = dict(zip(("left", "right"), limbs, strict=True))
    sides = rng.permutation(["left", "right"])

    def draw_limbs(*parts):
        for side in sides:
            for one, other in itertools.pairwise(parts):
                paint.line(at[f"{side}_{one}"], at[f"{side}_{other}"], width, limbs[side])

    draw_limbs("hip", "knee", "ankle")
    corners = [at[name] for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    paint.polygon(corners, body)
    for one, other in itertools.pairwise([*corners, corners[0]]):
        paint.line(one, other, width, body)
    paint.line((at["left_shoulder"] + at["right_shoulder"]) / 2, head, width, skin)
    for side in sides:
        paint.ellipse(at[f"{side}_ear"], height * FACE, limbs[side])
    paint.ellipse(head, height * HEAD, skin)
    for name in ("left_eye", "right_eye"):
        paint.ellipse(at[name], height * FACE * 0.6, (255, 255, 255) if sum(skin) < 384 else (0, 0, 0))
    paint.ellipse(at["nose"], height * FACE * 0.7, body)
    draw_limbs("shoulder", "elbow", "wrist")
    return paint


def _block(image_size, rng):
    """`Paint` with a rectangle or an ellipse at a random place."""
    size = np.array(image_size[::-1], float)
    half, centre = rng.uniform(0.04, 0.16, 2) * size.min(), rng.uniform(0, size)
    paint = Paint(centre[None], half.max())
    shape = paint.rectangle if rng.random() < 0.5 else paint.ellipse
    shape(centre, half, _colour(rng))
    return paint


def _colour(rng):
    return tuple(int(channel) for channel in rng.integers(1, 256, 3))


def _with_visibility(points, mask):
    """Keypoints float64 [17, 3] with visibility: 0 (and place 0, 0) outside the image, 1 hidden, 2 visible."""
    height, width = mask.shape
    inside = ((points >= 0) & (points < (width, height))).all(1)
    x, y = np.where(inside[:, None], points, 0).T
    # A point on the edge of a line may lie in a pixel of which less than half is covered.
    near = [mask[_pixel(y + dy, height), _pixel(x + dx, width)] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    return np.stack([x, y, np.where(inside, 1 + np.any(near, axis=0), 0)], axis=1)


def _pixel(places, count):
    return np.clip(places, 0, count - 1).astype(int)
