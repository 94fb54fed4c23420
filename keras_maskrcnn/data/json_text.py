"""JSON files of users: read whole, or in parts: the place of each element of a long list, elements at known places."""

import collections.abc
import json
import pathlib
import re

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.kept import state
from keras_maskrcnn.data.paths import regular

_SPACE = re.compile(r"[ \t\n\r]*")
_BOM = b"\xef\xbb\xbf"


def loads(text):
    """Returns the content of a JSON text, str or bytes; raises a ValueError also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path):
    """Returns the content of a JSON file; raises a DataError of one line."""
    path = pathlib.Path(regular(path))
    try:
        return loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(path, "no such annotation file") from None
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read as JSON ({error})") from error


def content_with(path, keys):
    """Returns the content of a JSON file if it is a dict with some keys; otherwise None."""
    try:
        content = read_json(path)
    except DataError:
        return None
    return content if isinstance(content, dict) and all(key in content for key in keys) else None


def is_json(path, keys):
    """Whether a file is JSON, a dict with some keys."""
    return content_with(path, keys) is not None


class Scanner:
    """Walks through the object in a JSON text, so that lists in it need not be in memory.

    Args:
        text: bytes, UTF-8.

    Raises:
        ValueError: here or later, the text is not JSON.
    """

    def __init__(self, text):
        self._bytes = None if text.isascii() else text
        if self._bytes:
            text.decode("utf-8", "surrogatepass")  # an error here is one of the whole text
        # With one character for each byte, places in the text are places in the file.
        self._text, self._at = text.decode("latin-1"), len(_BOM) if text.startswith(_BOM) else 0
        self._decode = json.JSONDecoder().raw_decode

    def members(self, lists):
        """Yields (key, value) for each member of the object; texts outside the lists must be ASCII to be right.

        Args:
            lists: keys whose value, if it is a list, is an iterator over (element, start, end), the places in bytes.
                It must be used up before the next member is taken.
        """
        self._expect("{")
        more = not self._take("}")
        while more:
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("a key is not a text")
            self._expect(":")
            yield key, self._elements() if key in lists and self._next() == "[" else self._value()
            more = self._take(",") or self._expect("}")
        if self._next():
            raise ValueError("there is text after the object")

    def _elements(self):
        self._expect("[")
        more = not self._take("]")
        while more:
            self._next()
            start, value = self._at, self._value()
            if self._bytes and not (element := self._bytes[start : self._at]).isascii():
                value = loads(element)
            yield value, start, self._at
            more = self._take(",") or self._expect("]")

    def _next(self):
        """The next character that is not space, "" at the end."""
        self._at = _SPACE.match(self._text, self._at).end()
        return self._text[self._at : self._at + 1]

    def _take(self, character):
        found = self._next() == character
        self._at += found
        return found

    def _expect(self, character):
        if not self._take(character):
            raise ValueError(f"there is no {character} at byte {self._at}")

    def _value(self):
        self._next()
        value, self._at = self._decode(self._text, self._at)
        return value


class Elements(collections.abc.Sequence):
    """Elements of a list in a JSON file, read when they are asked for.

    Args:
        path: Path of the file.
        places: int64 [n, 2], start and length of each element in bytes.
        version: `kept.state` of the file that the places belong to.
        convert: function of an element that returns what stands for it; None changes nothing.
    """

    def __init__(self, path, places, version, convert=None):
        self.path, self.places, self.version, self.convert = pathlib.Path(path), places, version, convert

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        """Returns an element, or a list of elements for a slice.

        Raises:
            DataError: The file has been changed or deleted.
        """
        if not isinstance(index, slice):
            return self._read(self.places[index][None])[0]
        return self._read(self.places[index])

    def __iter__(self):
        return iter(self[:])

    def _read(self, places):
        try:
            if state(self.path) != self.version:
                raise DataError(self.path, "has been changed since it was opened")
            with self.path.open("rb") as file:
                found = [loads(_at(file, *place)) for place in places.tolist()]
        except OSError as error:
            raise DataError(self.path, f"cannot be read ({error.strerror})") from error
        return found if self.convert is None else [self.convert(element) for element in found]


def _at(file, start, length):
    file.seek(start)
    return file.read(length)
