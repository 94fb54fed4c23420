"""The error for a file or a sample that cannot be used, and texts from files in messages of one line."""

import re
import reprlib

MAX_SOURCE, MAX_REASON = 1000, 2000  # characters in messages; the middle of longer texts is left out
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # line ends, control codes, lone surrogates
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


def shown(value):
    """Returns the `repr` of a value from a file, of which the middle is left out if it is long."""
    return _REPR.repr(value)


def one_line(text, limit=MAX_REASON):
    """Returns a text as one line of printable characters; of a text longer than `limit` the middle is left out."""
    return _printable(" ".join(str(text).split()), limit)


def _printable(text, limit):
    return _shortened(_UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], _shortened(text, limit)), limit)


def _shortened(text, limit):
    half = limit // 2 - 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"


class DataError(ValueError):
    """A file or a sample that cannot be used; the message is one line, "source: reason".

    Args:
        source: Path or description of the file or sample.
        reason: Why it cannot be used.
    """

    def __init__(self, source, reason=""):
        self.source, self.reason = _printable(str(source), MAX_SOURCE), one_line(reason)
        super().__init__(f"{self.source}: {self.reason}" if self.reason else self.source)

    def __reduce__(self):
        return type(self), (self.source, self.reason)
