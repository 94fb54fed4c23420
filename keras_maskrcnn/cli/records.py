"""Records: what `predict --shard` writes, and `bulk.Detector` returns, of each input."""

from keras_maskrcnn.cli.common import reason_of
from keras_maskrcnn.cli.results import coco_rows
from keras_maskrcnn.data.errors import DataError


def records(finder, sources, is_wanted=None):
    """Yields (item, record, exception or None) of each picture, failure and end of a video, in their order.

    A record is a dict for JSON with `file_name`, and `frame` of a frame of a video. Besides, it has
        width, height, results: pixels of the picture, and its COCO results, see `results.coco_rows`; `image_id` is the
            path, with the number of the frame, or the id in the COCO file of annotations;
        error: of an input that fails, the reason;
        end: at the end of a video, True.

    Args:
        finder: `finder.Finder`.
        sources: iterable of `inputs.Source`.
        is_wanted: as for `Finder.found_in`.
    """
    for item, found in finder.found_in(sources, str, is_wanted):
        record = {"file_name": str(item.source)}
        if item.frame is not None:
            record["frame"] = item.frame
        error = found if isinstance(found, Exception) else getattr(item, "error", None)
        if error is None and found is None:
            record["end"] = True
        elif error is None:
            try:
                height, width = item.image.shape[:2]
                rows = coco_rows(item, found, finder.class_names, finder.ids)
                record |= {"width": width, "height": height, "results": rows}
            except Exception as failure:  # such as scores that are not finite
                error = failure
        if error is not None:
            record["error"] = error.reason if isinstance(error, DataError) else reason_of(error)
        yield item, record, error
