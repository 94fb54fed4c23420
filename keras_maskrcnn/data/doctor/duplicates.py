"""Images with the same pixels, and images that look the same: a difference hash, compared in bands.

The hash holds for each pair of horizontal neighbours in a reduced grey image whether the right one is brighter (dHash,
N. Krawetz, hackerfactor.com, 2013), here with 16 x 16 bits. It does not change with size, aspect, brightness and
compression, or only in a few bits. Images of little structure have similar hashes by chance, so pairs must also have
reduced images that correlate.
"""

import collections

import numpy as np
from PIL import Image

SIDE = 16
MOST_BITS = 20  # of 256 that differ; unrelated photos differ in 128 on average
LEAST_CORRELATION = 0.97
LEAST_CONTRAST = 4.0  # standard deviation of the grey values of the reduced image; below, there is nothing to compare


def thumbnail(image):
    """Reduces an image uint8 [H, W, 3] to grey values, uint8 [16, 17]."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX))


def difference_hash(small):
    """The hash of a thumbnail: uint8 [32], a bit for each pair of neighbours."""
    return np.packbits(small[:, 1:] > small[:, :-1])


def near_pairs(thumbnails):
    """Yields pairs (i, j), i < j, of images that look the same; a pair may come several times.

    Two hashes that differ in at most b bits are equal in at least one of b + 1 bands, so only images that share a band
    are compared. All pairs are found.

    Args:
        thumbnails: list of uint8 [16, 17].
    """
    usable = np.array([i for i, small in enumerate(thumbnails) if small.std() >= LEAST_CONTRAST], int)
    if len(usable) < 2:
        return
    bits = np.array([np.unpackbits(difference_hash(thumbnails[i])) for i in usable])
    values = np.array([thumbnails[i].ravel() for i in usable], np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    for members in _sharing_a_band(bits):
        for place, first in enumerate(members[:-1]):
            others = members[place + 1 :]
            near = (bits[others] != bits[first]).sum(axis=1) <= MOST_BITS
            near &= values[others] @ values[first] >= LEAST_CORRELATION
            yield from ((int(usable[first]), int(usable[other])) for other in others[near])


def _sharing_a_band(bits):
    """Groups of two rows or more that are equal in a band of columns."""
    for band in np.array_split(bits, MOST_BITS + 1, axis=1):
        groups = collections.defaultdict(list)
        for row, key in enumerate(map(bytes, np.packbits(band, axis=1))):
            groups[key].append(row)
        yield from (np.array(group) for group in groups.values() if len(group) > 1)


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
