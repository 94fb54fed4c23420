"""`predict --shard I/N`: one of N parts of the inputs, in a file of results that continues after any interruption."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import re

import numpy as np

from keras_maskrcnn.cli.common import fingerprint
from keras_maskrcnn.cli.inputs import Listing
from keras_maskrcnn.cli.line_file import LineFile, read_lines
from keras_maskrcnn.cli.progress import Tally
from keras_maskrcnn.cli.records import records
from keras_maskrcnn.data.errors import one_line
from keras_maskrcnn.data.paths import regular

DIGEST_BYTES = 16
RECENT = 2**14  # digests in a set before they are sorted into the array
FILE = re.compile(r"shard-(\d+)-of-(\d+)\.jsonl")
STARTS = 3  # without a record
LONGEST = 500  # characters of the inputs that are stored as they are


def arguments(parser):
    """Adds the arguments of `predict` about shards."""
    title = "one of several parts, without coordination: --shard 3/16 for the third of 16"
    add = parser.add_argument_group(title).add_argument
    part = "only the I-th of N parts (from 1): results in DIR/shard-I-of-N.jsonl, which a restart continues and which"
    add("--shard", metavar="I/N", help=f"{part} `join DIR` joins; draws nothing")
    add("--retry-failed", action="store_true", help="with --shard: try inputs again that failed before")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1, of any files.

    The path of a file as it is given decides by its hash, so that the parts are disjoint and complete without a list of
    all files, and a file that is added or removed moves no other. Of n files a shard has n / count, with a standard
    deviation of less than the root of this number.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text):
        """The shard of a text such as "3/16"; a ValueError for any other text."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard {text}: must be one of 1/N to N/N, such as 3/16 for the third of 16")
        return cls(int(match[1]), int(match[2]))

    def holds(self, source):
        """Whether a file belongs to this part; a video belongs to one as a whole."""
        return int.from_bytes(digest(source), "big") % self.count == self.number - 1

    @property
    def file(self):
        """Name of the file of results."""
        return f"shard-{self.number:0{len(str(self.count))}}-of-{self.count}.jsonl"

    def __str__(self):
        return f"{self.number}/{self.count}"


def digest(name, frame=None):
    """Hash of a path, or of a frame of a video: 16 bytes that are equal on all machines."""
    text = str(name).replace("\\", "/") + ("" if frame is None else f"\0{frame}")
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).digest()


class Digests:
    """A set of digests that takes 16 bytes for each: a sorted array, and a small set of those that were added last."""

    def __init__(self):
        self._sorted, self._recent = np.zeros(0, f"S{DIGEST_BYTES}"), set()

    def add(self, one):
        """Adds a digest; returns whether it is new."""
        place = np.searchsorted(self._sorted, np.array(one, self._sorted.dtype))
        known = one in self._recent or self._sorted[place : place + 1].tobytes() == one
        if not known:
            self._recent.add(one)
        if len(self._recent) == RECENT:
            self._sorted = np.sort(np.append(self._sorted, np.array([*self._recent], self._sorted.dtype)))
            self._recent.clear()
        return not known


class Results:
    """The file of results of a shard, and what it already holds. Frames of videos have records of their own.

    Args:
        folder: Path of the folder that all shards write to, or those on this machine.
        shard: `Shard`.
        settings: dict of what all shards must have in common, see `settings_of`.
        retry_failed: whether inputs that failed are tried again.

    Attributes:
        path: of the file.
        done: number of records that the file held.
        failed: number of those that are failures.

    Raises:
        ValueError: in one line, if the folder holds other results, or another process is writing the file.
    """

    def __init__(self, folder, shard, settings, retry_failed=False):
        self.path, self.done, self.failed = folder / shard.file, 0, 0
        self._known, self._is_finished, self._starts = Digests(), False, 0
        check_folder(folder, shard.count, settings)
        self._file = LineFile(self.path)
        try:
            lines = self._file.read()
            if next(lines, None) is None:
                self._file.append({"shard": str(shard), "settings": settings})
            for content in lines:
                self._note(content, retry_failed)
        except BaseException:
            self.close()
            raise

    def _note(self, content, retry_failed):
        content = content or {}  # the input of a damaged line is tried again
        self._is_finished, starts = "finished" in content, content.get("starts", 0)
        self._starts = starts if isinstance(starts, int) else 0
        if not isinstance(content.get("file_name"), str):
            return
        failed = "error" in content
        self.done, self.failed = self.done + 1, self.failed + failed
        if not (failed and retry_failed):
            self._known.add(digest(content["file_name"], content.get("frame")))

    def is_new(self, source, frame=None):
        """Whether there is no record of a source or a frame; from then on there is."""
        return self._known.add(digest(source, frame))

    def remaining(self, sources):
        """Yields the sources without a record.

        Where the process has ended `STARTS` times in a row before any record, the first source is at fault, if not one
        of the few that are read ahead: it gets a record, and the others go on.
        """
        remaining = filter(self.is_new, sources)
        if self._starts >= STARTS:
            for source in itertools.islice(remaining, 1):
                self.append({"file_name": str(source), "error": f"the process ended {STARTS} times at this file"})
        for number, source in enumerate(remaining):
            if number == 0:
                self._file.append({"starts": self._starts + 1})
            yield source

    def append(self, record):
        """Appends a record of `records`."""
        self._file.append(record)
        self._is_finished, self._starts = False, 0

    def finish(self):
        """Notes that all inputs have a record."""
        if not self._is_finished:
            self._file.append({"finished": True})

    def close(self):
        """Closes the file."""
        self._file.close()


def run(args, finder, options):
    """Detects objects in the inputs of a shard that have no record yet; returns the exit code."""
    shard = Shard.of(args.shard)
    settings = settings_of(args, options)
    with contextlib.closing(Results(args.output, shard, settings, args.retry_failed)) as results:
        if results.done:
            print(f"{results.path} continues after {results.done} results, {results.failed} of them failures")
        tally = Tally(args.debug)
        listing = Listing(args.recursive, tally, shard)
        sources = results.remaining(listing.sources(args.inputs))

        def is_wanted(item):
            return item.frame is None or results.is_new(item.source, item.frame)

        for item, record, error in records(finder, sources, is_wanted):
            results.append(record)
            if error is not None:
                tally.failed(error, item.source, item.frame)
            elif "results" in record:
                tally.done(item, len(record["results"]), None)
        if not listing.failures:
            results.finish()
    print(f"shard {shard}: {results.path}")
    return tally.finish()


def settings_of(args, options):
    """What all shards of a run have in common: model, inputs, and options; a dict for JSON."""
    words = " ".join(args.inputs)
    inputs = words if len(words) <= LONGEST else f"{len(args.inputs)} words with {_short(words.encode())}"
    annotations = args.annotations and _short(regular(args.annotations).read_bytes())
    named = {"model": fingerprint(args.model), "INPUT": inputs, "recursive": args.recursive, "annotations": annotations}
    return json.loads(json.dumps({**named, **dataclasses.asdict(options)}))


def _short(content):
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def check_folder(folder, count, settings=None):
    """The files of shards in a folder, by their numbers; a ValueError if they are not of one run.

    Args:
        folder: Path.
        count: number of shards; None for that of the files.
        settings: of the run; None for those of the first file.
    """
    found = {}
    for path in sorted(folder.glob("shard-*-of-*.jsonl")):
        match = FILE.fullmatch(path.name)
        if not match:
            continue
        count = int(match[2]) if count is None else count
        if int(match[2]) != count:
            raise ValueError(f"{folder} holds results of {match[2]} shards, not {count}: use another --output")
        for _, header in itertools.islice(read_lines(path), 1):  # a process that is killed at its start leaves none
            settings = _check_header(path, header, settings)
        found[int(match[1])] = path
    return found


def _check_header(path, header, settings):
    """The settings of a file, which must be those given unless these are None."""
    held = header.get("settings") if header else None
    if not isinstance(held, dict):
        raise ValueError(f"{path}: is no file of results of predict --shard")
    settings = held if settings is None else settings
    differences = [
        f"{name if name.isupper() else '--' + name.replace('_', '-')} {held.get(name)} (not {value})"
        for name, value in settings.items()
        if held.get(name) != value
    ]
    if differences:
        raise ValueError(f"{path} holds results with {one_line(', '.join(differences))}: use another --output")
    return settings
