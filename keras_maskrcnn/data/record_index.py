"""The index of TFRecord files, `NAME.index` beside `NAME-00000-of-00010` and so on: the lengths of all records.

It is a TFRecord file too, with one `tf.train.Example` for each file: `file`, its name, and `lengths`, in bytes. With it
the files are opened without walking through them. It names files without their folder, so that they can be moved.
"""

import re

import numpy as np

from keras_maskrcnn.data import tf_record_file
from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.tf_messages import example_of, features_of

SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
ENDING = ".index"


def path_of(file):
    """Returns the path of the index that a TFRecord file is in, the same one for all shards of a name."""
    return file.with_name(SHARD.sub("", file.name) + ENDING)


def write(path, lengths):
    """Writes an index: `lengths` is a dict from names of files to the lengths of their records."""
    with tf_record_file.writer(path) as append:
        for name, found in lengths.items():
            append(
                example_of(
                    {
                        "file": ("bytes_list", [name.encode("utf-8", "surrogateescape")]),
                        "lengths": ("int64_list", found),
                    }
                )
            )


def read(path):
    """Returns the content of an index: a dict from names of files to int64 [n]; empty if there is no such file.

    Raises:
        DataError: it is damaged, or no index.
    """
    try:
        records = tf_record_file.contents(path)
    except FileNotFoundError:
        return {}
    found = {}
    for record in records:
        features = features_of(record, path)
        try:
            (name,) = features["file"]
            # "safe" refuses fractions and infinity, whose cast depends on the processor.
            lengths = np.array(features.get("lengths") or np.zeros(0, np.int64)).astype(np.int64, casting="safe")
            found[name.decode("utf-8", "surrogateescape")] = lengths
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise DataError(path, "is no index of TFRecord files") from None
    return found
