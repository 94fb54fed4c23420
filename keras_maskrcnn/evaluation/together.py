"""Evaluation by several processes: each runs the model on its part of the images, and all get the figures of all."""

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.sample import Subset
from keras_maskrcnn.evaluation.predictions import NothingReadError


def shared_out(group, dataset, limit, part):
    """Runs `part` on this process's images, which are every `group.count`-th one.

    All processes call this together. They fail together: what stops one of them stops all.

    Args:
        group: `backend.processes.Group`; None or one process for the whole data set.
        dataset: any reader of samples.
        limit: only the first `limit` images; None for all.
        part: function from a data set and the positions in `dataset` of its first samples, which are its part, to a
            value for JSON.

    Returns:
        list of the values of the processes that could read an image.

    Raises:
        ValueError: in all processes, with the reason of the one that failed; or no image could be read.
    """
    total = len(dataset) if limit is None else min(limit, len(dataset))
    if group is None or group.count == 1:
        return [part(dataset, range(total))]
    positions, value, nothing, failure = range(group.index, total, group.count), None, None, None
    try:
        value = part(Subset(dataset, positions), positions)
    except NothingReadError as error:
        nothing = str(error)
    except (DataError, ValueError, OSError) as error:
        failure = str(error)
    values, reasons, failures = zip(*group.gathered([value, nothing, failure]), strict=True)
    if reason := next(filter(None, failures), None) or (all(reasons) and reasons[0]):
        raise ValueError(reason)
    return [value for value, reason in zip(values, reasons, strict=True) if not reason]
