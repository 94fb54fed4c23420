"""Objects of one image pasted over another one of the same size: Simple Copy-Paste (Ghiasi et al. 2021).

Edges are not blended, which the paper finds to make no difference (section 4.1).
"""

import numpy as np

from keras_maskrcnn.data.fields import fields_of, instances, maps_of
from keras_maskrcnn.data.mini_masks import mask_boxes


def chosen(sample, rng):
    """Returns the indices of a random number of random instances, at least one; crowd regions are never among them."""
    objects = np.flatnonzero(~sample["crowd"])
    return rng.permutation(objects)[: rng.integers(1, max(2, len(objects) + 1))]


def paste(source, kept, target, min_visible=0.0):
    """Returns a sample with instances of another one pasted over it.

    Args:
        source: A validated sample, of which the instances are taken: pixels, masks, boxes and fields.
        kept: Indices of these instances.
        target: A validated sample with an image of the same size.
        min_visible: As for `occlude`.

    Returns:
        The target, of which `image`, instances and fields are changed; the pasted instances come last. Maps have the
        labels of the source where something is pasted.
    """
    pasted = instances(source, kept)
    cover = pasted["masks"].any(axis=0)
    under = occlude(target, cover, min_visible)
    names = ("boxes", "masks", *(field.name for field in fields_of(target)))
    joined = {name: np.concatenate([under[name], pasted[name]]) for name in names}
    maps = {field.name: np.where(cover, source[field.name], target[field.name]) for field in maps_of(target)}
    return {**target, **joined, **maps, "image": np.where(cover[..., None], source["image"], target["image"])}


def occlude(sample, cover, min_visible=0.0):
    """Returns a sample of which something new hides a part; the image is not changed.

    Hidden pixels are removed from the masks. The box of an instance that lost pixels is that of the rest of its mask.
    Fields follow `Field.occlude`: visible points that are hidden now have the visibility 1, labels and other values
    stay.

    Args:
        sample: A validated sample.
        cover: bool [H, W], True where something is in front.
        min_visible: Minimum visible share of the mask's area; instances below it are dropped. An instance that is
            hidden completely always is; a crowd region, which is ignored in training, only then.
    """
    masks, boxes = sample["masks"] & ~cover, sample["boxes"].copy()
    before, after = _areas(sample["masks"]), _areas(masks)
    cut = after < before
    boxes[cut] = mask_boxes(masks[cut])
    fields = {field.name: field.occlude(sample[field.name], cover) for field in fields_of(sample)}
    least = np.where(sample["crowd"], 0, min_visible) * before
    return instances({**sample, **fields, "boxes": boxes, "masks": masks}, (after > 0) & (after >= least))


def _areas(masks):
    return np.fromiter(map(np.count_nonzero, masks), int, len(masks))  # ten times as fast as a sum over two axes
