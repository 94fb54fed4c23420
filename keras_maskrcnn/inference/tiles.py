"""Detection in large images by overlapping tiles, merged to one detection per object.

Each tile is an image of its own to the network, so that objects have the same scale in images of all sizes. A detection
is *cut* if it reaches a border of its tile that lies inside the image. Then:

1. A cut detection is dropped if it lies in another tile without being cut there: that tile sees the object whole.
2. Two detections of one class from two tiles are the same object if, in the part that the tiles share, the IoU of their
   masks (of their boxes, in a model without masks) exceeds `SAME`. Of the same objects that are not cut, the one with
   the highest score stays, and cut ones that are the same are dropped.
3. The remaining cut detections that are the same, of an object larger than the overlap, are joined: the union of the
   masks, the box around all boxes, and everything else from the one with the highest score.

Maps of whole tiles are put together: neighbours end in the middle of the part that they share.

An object that a tile sees whole is thus reported once, as that tile sees it. With an overlap of at least the size of
the objects plus `2 * EDGE`, these are all objects.
"""

import collections
import contextlib
import itertools
import math
import numbers
import typing

import numpy as np

from keras_maskrcnn.data.cropped_masks import Crop, CroppedMasks, crops_of
from keras_maskrcnn.heads.outputs import Detections, maps, of_objects

EDGE = 2.0  # pixels of the image within which a box reaches a border: predicted boxes end a little before the object
SAME = 0.5

# Tiles ------------------------------------------------------------------------------------------------------------


def check_tiles(tiles, overlap):
    """Raises a ValueError unless `tiles` is None or (height, width), and `overlap` is smaller than both."""
    if tiles is None:
        return
    sides = tiles if isinstance(tiles, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, numbers.Integral) and side > 0 for side in sides):
        raise ValueError(f"tiles={tiles!r} must be (height, width) in whole pixels, or None")
    if not isinstance(overlap, numbers.Integral) or not 0 <= overlap < min(sides):
        raise ValueError(f"overlap={overlap!r} must be a whole number of pixels, less than the sides of tiles={tiles}")


def grid(size, tiles, overlap):
    """Tiles that cover an image.

    Args:
        size: (height, width) of the image.
        tiles: (height, width) of a tile; an axis on which the image is shorter has one tile, of its length.
        overlap: minimum number of pixels that neighbours share.

    Returns:
        int `[T, 4]`: x1, y1, x2, y2 of tiles of one size at even distances, row by row.
    """

    def spans(length, side):
        side = min(length, side)
        last = math.ceil((length - overlap) / (side - overlap)) - 1 if length > side else 0
        return [(i * (length - side) // max(last, 1), side) for i in range(last + 1)]

    rows, columns = (spans(*axis) for axis in zip(size, tiles, strict=True))
    return np.array([(x, y, x + width, y + height) for (y, height), (x, width) in itertools.product(rows, columns)])


def detect_each(detect, images, tiles, overlap, max_detections, cropped=False):
    """Yields the `Detections` in each image, merged from those in its tiles.

    Args:
        detect: function of an iterable of images to an iterator of their `Detections` in this order.
        images: iterable of `[H, W, C]`. An image that is not larger than a tile goes to `detect` as it is.
        tiles: (height, width) of a tile.
        overlap: minimum number of pixels that neighbours share.
        max_detections: maximum number of detections per image.
        cropped: whether masks are `CroppedMasks` instead of arrays bool `[n, H, W]`.
    """
    as_asked = (lambda found: found) if cropped else Detections.full
    plans = collections.deque()  # of the images that `detect` has taken tiles of

    def parts():
        for image in images:
            windows = grid(image.shape[:2], tiles, overlap)
            plans.append((image.shape[:2], windows))
            for x1, y1, x2, y2 in windows:
                yield image[y1:y2, x1:x2]

    with contextlib.closing(detect(parts())) as results:
        for first in results:
            size, windows = plans.popleft()
            if len(windows) == 1:
                yield as_asked(first)
                continue
            found = itertools.chain([first], itertools.islice(results, len(windows) - 1))
            seen = [_Seen.of(part, window) for part, window in zip(found, windows, strict=True)]
            yield as_asked(merged(seen, windows, size, max_detections))


# Detections of the tiles ------------------------------------------------------------------------------------------


def _iou(one, other, window):
    """IoU of two regions inside a window; 0 if both are empty there."""
    one, other = one.inside(window), other.inside(window)
    common = np.count_nonzero(one.inside(other.box).mask & other.inside(one.box).mask)
    either = np.count_nonzero(one.mask) + np.count_nonzero(other.mask) - common
    return common / max(either, 1)


class _Seen(typing.NamedTuple):
    """Detections of one tile in pixels of the image, without the masks of the whole tile, which take much memory.

    Attributes:
        rows: `Detections`, without the masks.
        regions: dict of lists of `Packed` by the names of these; the whole boxes under "boxes" if there are none but
            objects.
        maps: dict of arrays `[h, w]` by the names of the outputs of the kind "map".
    """

    rows: Detections
    regions: dict
    maps: dict

    @classmethod
    def of(cls, found, window):
        """Moves the detections of a tile by the position of its window."""
        corner = np.asarray(window[:2], "float32")
        move = {
            "values": lambda values: values,
            "boxes": lambda values: values + np.tile(corner, 2),
            "points": lambda values: np.concatenate([values[..., :2] + corner, values[..., 2:]], axis=-1),
        }
        masks = [output.name for output in found.schema if output.is_mask]
        rows = {o.name: move[o.kind](found[o.name]) for o in of_objects(found.schema) if o.name not in masks}
        crops = {name: crops_of(found[name]) for name in masks}
        regions = {name: [crop.moved(*window[:2]).packed() for crop in crops[name]] for name in masks}
        whole = {output.name: found[output.name] for output in maps(found.schema)}
        if rows and not regions:
            regions = {"boxes": _filled(rows["boxes"])}
        return cls(Detections(rows, found.schema), regions, whole)


def _filled(boxes):
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(int)
    return [Crop(x1, y1, np.ones((y2 - y1, x2 - x1), bool)).packed() for x1, y1, x2, y2 in corners]


# Merging ----------------------------------------------------------------------------------------------------------


def merged(seen, windows, size, limit):
    """One `Detections` of the whole image, highest score first, from the `_Seen` of its tiles, see the module.

    Args:
        seen: list of `_Seen`, one per tile.
        windows: int `[T, 4]`, the tiles.
        size: (height, width) of the image.
        limit: maximum number of detections.

    Returns:
        `Detections` with `CroppedMasks`.
    """
    schema = seen[0].rows.schema
    whole = {name: _map_of([part.maps[name] for part in seen], windows, size) for name in seen[0].maps}
    if not of_objects(schema):
        return Detections(whole, schema)
    rows = {name: np.concatenate([part.rows[name] for part in seen]) for name in seen[0].rows}
    regions = {name: list(itertools.chain(*(part.regions[name] for part in seen))) for name in seen[0].regions}
    tile = np.repeat(np.arange(len(seen)), [len(part.rows["scores"]) for part in seen])
    cut = _reaches(rows["boxes"], windows, size)  # [N, T]; boxes that leave a tile reach its border too
    cut_by_own = cut[np.arange(len(tile)), tile]
    alive = ~cut_by_own | cut.all(axis=1)
    same = _same_objects(rows, next(iter(regions.values())), tile, windows, alive)
    groups = _groups(rows["scores"], cut_by_own, alive, same)
    return _assembled(schema, rows, regions, groups[:limit], size, whole)


def _reaches(boxes, windows, size):
    """Whether each box reaches an inner border of each window, or lies beyond one: bool `[N, T]`."""
    low, high = (windows[None, :, axes].astype("float32") for axes in ([0, 1], [2, 3]))
    low, high = np.where(low > 0, low + EDGE, -np.inf), np.where(high < size[::-1], high - EDGE, np.inf)
    return (boxes[:, None, :2] < low).any(axis=-1) | (boxes[:, None, 2:] > high).any(axis=-1)


def _same_objects(rows, regions, tile, windows, alive):
    """Pairs of detections of two tiles that are the same object, see the module: dict of sets, in both directions."""
    boxes, labels, same = rows["boxes"], rows["labels"], collections.defaultdict(set)
    for a, b, shared in _neighbours(windows):
        touching = alive & (boxes[:, :2] < shared[2:]).all(axis=1) & (boxes[:, 2:] > shared[:2]).all(axis=1)
        others = np.flatnonzero(touching & (tile == b))
        for i in np.flatnonzero(touching & (tile == a)):
            near = (boxes[others, :2] < boxes[i, 2:]).all(axis=1) & (boxes[others, 2:] > boxes[i, :2]).all(axis=1)
            for j in others[near & (labels[others] == labels[i])]:
                if _iou(regions[i].crop(), regions[j].crop(), shared) > SAME:
                    same[i].add(j)
                    same[j].add(i)
    return same


def _neighbours(windows):
    """Yields (a, b, x1, y1, x2, y2 of the part that they share) for each pair of windows that overlap."""
    low = np.maximum(windows[:, None, :2], windows[None, :, :2])
    high = np.minimum(windows[:, None, 2:], windows[None, :, 2:])
    for a, b in np.argwhere(np.triu((low < high).all(axis=-1), k=1)):
        yield a, b, np.concatenate([low[a, b], high[a, b]])


def _groups(scores, cut, alive, same):
    """Lists of the detections that form one result each, the one with the highest score first."""
    order = np.argsort(-scores, kind="stable")
    whole = {}  # in the order of the scores
    for i in order[~cut[order]]:
        if same[i].isdisjoint(whole):
            whole[i] = None
    groups, left = [[i] for i in whole], [i for i in order[(cut & alive)[order]] if same[i].isdisjoint(whole)]
    while left:
        group = [left[0]]
        for i in group:  # grows while it is read
            group += [j for j in left if j in same[i] and j not in group]
        left = [i for i in left if i not in group]
        groups.append(group)
    return sorted(groups, key=lambda group: -scores[group[0]])


def _map_of(parts, windows, size):
    """The map of the image from those of its tiles, row by row: later ones replace the end of earlier ones."""
    whole = np.zeros(size, parts[0].dtype)
    for part, window in zip(parts, windows, strict=True):
        cut = []
        for axis in (1, 0):
            before = windows[windows[:, axis] < window[axis], axis + 2]
            cut.append(max(int(before.max(initial=0)) - int(window[axis]), 0) // 2)
        whole[window[1] + cut[0] : window[3], window[0] + cut[1] : window[2]] = part[cut[0] :, cut[1] :]
    return whole


def _assembled(schema, rows, regions, groups, size, whole):
    first = [group[0] for group in groups]
    arrays = {**{name: values[first] for name, values in rows.items()}, **whole}
    for box, group in zip(arrays["boxes"], groups, strict=True):
        joined = rows["boxes"][group]
        box[:] = np.concatenate([joined[:, :2].min(axis=0), joined[:, 2:].max(axis=0)])
    for name in regions.keys() - rows.keys():
        arrays[name] = CroppedMasks([_joined([regions[name][i] for i in group]) for group in groups], size)
    return Detections({output.name: arrays[output.name] for output in schema}, schema)


def _joined(parts):
    return parts[0] if len(parts) == 1 else Crop.joined([part.crop() for part in parts]).packed()
