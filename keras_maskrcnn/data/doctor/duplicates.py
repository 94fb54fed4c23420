"""Images with the same pixels, and images that look the same by a difference hash.

The hash holds for each pair of horizontal neighbours in a reduced grey image whether the right one is brighter (dHash,
N. Krawetz, hackerfactor.com, 2013), here with 16 x 16 bits. It does not change with size, aspect, brightness and
compression, or only in a few bits. Images of little structure have similar hashes by chance, so pairs must also have
reduced images that correlate.
"""

import collections

import numpy as np
from PIL import Image

SIDE = 16
MOST_BITS = 40  # of 256 that differ; unrelated photos differ in 128 on average
LEAST_CORRELATION = 0.9  # of the grey values of the reduced images
LEAST_CONTRAST = 2.0  # standard deviation of these grey values; below, there is nothing to compare
ROWS = 1024  # images that are compared with all others at once


def thumbnail(image):
    """Reduces an image, uint8 or uint16 [H, W, C], to grey values, uint8 [16, 17]."""
    if image.shape[2] == 3 and image.dtype == np.uint8:
        grey = Image.fromarray(image).convert("L")
    else:
        levels = image.mean(axis=2) * (255 / np.iinfo(image.dtype).max)
        grey = Image.fromarray(np.rint(levels).astype(np.uint8))
    return np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX))


def difference_hash(small):
    """The hash of a thumbnail: uint8 [32], a bit for each pair of neighbours."""
    return np.packbits(small[:, 1:] > small[:, :-1])


def near_pairs(thumbnails):
    """Yields pairs (i, j), i < j, of images that look the same.

    All pairs are compared, by products of matrices: seconds for ten thousand images.

    Args:
        thumbnails: list of uint8 [16, 17].
    """
    usable = np.array([i for i, small in enumerate(thumbnails) if small.std() >= LEAST_CONTRAST], int)
    if len(usable) < 2:
        return
    bits = np.array([difference_hash(thumbnails[i]) for i in usable])
    values = np.array([thumbnails[i].ravel() for i in usable], np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    for start in range(0, len(values), ROWS):
        alike = values[start : start + ROWS] @ values[start:].T >= LEAST_CORRELATION
        for first, second in np.argwhere(np.triu(alike, 1)) + start:
            if np.bitwise_count(bits[first] ^ bits[second]).sum() <= MOST_BITS:
                yield int(usable[first]), int(usable[second])


def equal_groups(keys):
    """Groups of equal keys: list of lists of indices, each of two or more, in order."""
    groups = collections.defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


class Groups:
    """Groups of numbers 0..count - 1 that pairs connect (union-find)."""

    def __init__(self, count):
        self._parent = list(range(count))

    def root(self, member):
        """The member that stands for the group of a member."""
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]
            member = self._parent[member]
        return member

    def join(self, first, second):
        """Joins the groups of two members."""
        self._parent[self.root(second)] = self.root(first)

    def roots(self):
        """The root of each member: list."""
        return [self.root(member) for member in range(len(self._parent))]
