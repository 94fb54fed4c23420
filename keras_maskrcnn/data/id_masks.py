"""Lists of image names, and mask files with one id per instance: shared by the readers of mask files."""

import numpy as np

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.image_file import opened
from keras_maskrcnn.data.paths import inside, regular
from keras_maskrcnn.data.sample import check_mask_memory


def split_names(folder, split, part, names):
    """Returns the names of the images of a split.

    Args:
        folder: Path of the folder that holds `part` and the lists.
        split: Name of a list in the folder (`train` for `train.txt`), one name per line; or "all" for every image.
        part: Name of the folder of the images.
        names: Function from the path of that folder to the names of all its images.

    Returns:
        List of str, not empty.

    Raises:
        DataError: The folder or the list is missing, or the list is empty.
    """
    images, path = folder / part, folder / f"{split}.txt"
    if not images.is_dir():
        raise DataError(folder, f"has no folder {part}" if folder.is_dir() else "no such folder")
    if split == "all":
        path, found = images, sorted(names(images))
    elif regular(path).is_file():
        try:
            found = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(path, f"cannot be read ({error})") from error
    else:
        raise DataError(path, "no such list of images (one name per line; split='all' takes every image)")
    if not found:
        raise DataError(path, "names no image")
    for name in found:
        inside(images, name, path)
    return found


def read_ids(path, sizes, binary=False, content=None):
    """Reads a mask file: int [H, W].

    Args:
        path: Path of the file.
        sizes: List of the (H, W) that its image can have, see `image_file.Stored`.
        binary: Whether the mask is only zero or not zero; colours are then converted to grey.
        content: bytes of the file; None reads them from `path`.

    Raises:
        DataError: The file is missing, is no image, has colours (where they are not allowed) or has another size.
    """
    with opened(path, "a mask", content) as image:
        if image.size[::-1] not in sizes:  # before anything of another size is decoded
            shape = [image.height, image.width]
            raise DataError(path, f"the mask has shape {shape}, its image {list(sizes[0])}")
        if not binary and len(image.getbands()) > 1:
            channels = np.asarray(image.convert("RGB"))
            if (channels != channels[..., :1]).any():
                raise ValueError("it has colours, not one id per pixel")
        values = np.array(image if len(image.getbands()) == 1 else image.convert("L"))
    return values


def read_id_masks(path, sizes, void=None):
    """Returns one mask per id in a mask file, in ascending order without 0, the background, and `void`: bool [n, H, W].

    Raises:
        DataError: As `read_ids`, or there are more ids than `sample.MAX_MASK_BYTES` allows.
    """
    ids = read_ids(path, sizes)
    numbers = np.unique(ids)
    return masks_of(ids, numbers[(numbers > 0) & (numbers != void)], path)


def masks_of(ids, numbers, path):
    """Returns one mask per number in an id mask: bool [n, H, W].

    Args:
        ids: int [H, W].
        numbers: int [n].
        path: Path of the file, for messages.

    Raises:
        DataError: There are more numbers than `sample.MAX_MASK_BYTES` allows.
    """
    check_mask_memory(len(numbers), ids.shape, path)
    return ids == np.reshape(numbers, (-1, 1, 1))
