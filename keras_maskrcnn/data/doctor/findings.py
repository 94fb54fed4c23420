"""Kinds of findings, the decorators that register a check, and the findings of a data set."""

import collections
from typing import NamedTuple

LEVELS = ("error", "warning", "note")
EXAMPLES = 50  # findings of a kind that are kept in full; the others are counted


class Kind(NamedTuple):
    """What a check looks for.

    Attributes:
        code: short name, unique.
        level: "error" (something is left out or wrong), "warning" (worth a look) or "note" (worth knowing).
        title: what is found.
        advice: what it means and what to do.
    """

    code: str
    level: str
    title: str
    advice: str


class Finding(NamedTuple):
    """One case of a kind.

    Attributes:
        code: of the kind.
        part: name of the set, such as "train".
        source: file or place.
        detail: what was found there.
        instance: index of the instance in its sample, or None.
    """

    code: str
    part: str
    source: str
    detail: str
    instance: int | None = None


KINDS: dict[str, Kind] = {}
IMAGE_CHECKS: dict = {}
SET_CHECKS: dict = {}
COMPARISONS: dict = {}


def image_check(code, level, title, advice):
    """Registers a function of the `facts.Facts` of an image that yields (detail, index of an instance or None)."""
    return _register(IMAGE_CHECKS, Kind(code, level, title, advice))


def set_check(code, level, title, advice):
    """Registers a function of a `facts.Part` that yields (source, detail), after all of its images."""
    return _register(SET_CHECKS, Kind(code, level, title, advice))


def comparison(code, level, title, advice):
    """Registers a function of all parts that yields (name of a part, source, detail)."""
    return _register(COMPARISONS, Kind(code, level, title, advice))


def _register(checks, kind):
    def decorate(function):
        if kind.code in KINDS or kind.level not in LEVELS:
            raise ValueError(f"kind {kind.code!r} exists already or has the unknown level {kind.level!r}")
        KINDS[kind.code] = kind
        checks[kind.code] = function
        return function

    return decorate


class Findings:
    """Findings by kind and part: how many, and the first `EXAMPLES` of each."""

    def __init__(self):
        self.counts = collections.Counter()
        self._examples = collections.defaultdict(list)

    def add(self, finding):
        """Counts a finding, and keeps it while there are few of its kind."""
        key = finding.code, finding.part
        self.counts[key] += 1
        if len(self._examples[key]) < EXAMPLES:
            self._examples[key].append(finding)

    def of(self, code, part=None):
        """Kept findings of a kind, of one part or of all."""
        return [f for (c, p), kept in self._examples.items() if c == code and part in (None, p) for f in kept]

    def count(self, code, part=None):
        """Number of findings of a kind, of one part or of all."""
        return sum(n for (c, p), n in self.counts.items() if c == code and part in (None, p))

    def kinds(self):
        """The kinds that were found, errors first."""
        found = {code for code, _ in self.counts}
        return sorted((KINDS[code] for code in found), key=lambda kind: (LEVELS.index(kind.level), kind.code))

    @property
    def worst(self):
        """The level of the worst finding, or None."""
        return next((kind.level for kind in self.kinds()), None)
