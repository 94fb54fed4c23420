"""The numbers of each epoch of a training, in a file of `keras.callbacks.CSVLogger`."""

import csv

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular


def read(path):
    """The columns of the file.

    Args:
        path: path of the file.

    Returns:
        dict from names to lists of floats, one for each epoch, NaN where a cell is empty.

    Raises:
        DataError: in one line, if the file cannot be read, or is no table of numbers.
    """
    regular(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = zip(header, *rows, strict=True)
        return {name: [float(cell or "nan") for cell in cells] for name, *cells in columns}
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise DataError(path, f"is no table of numbers ({error})") from error
