"""Random changes of files: of any bytes, and of JSON, text, zip, pickle, protobuf and PNG with the structure kept.

Every function takes the valid content and a `random.Random`, and returns the changed content.
"""

import copy
import functools
import io
import itertools
import json
import pickletools
import struct
import zipfile
import zlib

CANARY = "kmr_fuzz_canary"  # name of the file that hostile payloads would create
SECRET = [f"{'../' * depth}outside/secret.png" for depth in (1, 2, 3, 4)]  # may not be read, see `worker`
NUMBERS = (-1, 0, 1, 2, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63, 10**400, 0.5, -0.0, 1e300, -1e8, 5e-324)
NUMBERS += (float("nan"), float("inf"), -float("inf"))
TEXTS = (
    "",
    "0",
    " ",
    "../a",
    *SECRET,
    "/dev/zero",
    ".",
    "..",
    "a/b",
    "\0",
    "\ud800",
    "a\nb",
    "\r",
    "{}",
    "a" * 5000,
    "1e999",
)
LISTS = ([], [None], [[]], [[1] * 6], [[1e9] * 8], [0, 0, 1e7, 1e7], [[0, 0]] * 3, [2**40] * 4, [""], [{}], [[[[[1]]]]])
VALUES = (None, True, False, *NUMBERS, *TEXTS, {}, {"size": [8, 10], "counts": "9"}, {"size": [2**30] * 2}, *LISTS)
WORDS = (-1, 0, 1, 2, 4, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


def bytes_changed(content, rng):
    """Bytes with a few of them replaced, cut out, repeated, inserted, or cut off."""
    content = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 5])):
        place, kind = rng.randrange(len(content)), rng.randrange(9)
        if kind <= 2:
            content[place] = rng.choice([0, 1, 127, 128, 255, content[place] ^ 1 << rng.randrange(8)])
        elif kind == 3:
            content[place : place + rng.choice([1, 4, 8])] = rng.randbytes(4)
        elif kind == 4:
            del content[place : place + rng.choice([1, 8, 1000])]
        elif kind == 5:
            content[place:place] = content[place : place + 16]
        elif kind == 6:  # a number as formats store sizes and offsets
            size, order = rng.choice([2, 4, 8]), rng.choice(["little", "big"])
            content[place : place + size] = (rng.choice(WORDS) % 256**size).to_bytes(size, order)
        elif kind == 7:
            del content[place:]
        else:
            other = rng.randrange(len(content))
            content[place : place + 32] = content[other : other + 32]
        content = content or bytearray(b"\0")
    return bytes(content)


def tree_changed(tree, rng, values=VALUES, most=3):
    """A JSON structure with a few of its values replaced, removed, wrapped or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, most)):
        node = tree
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
                node = node[key]
                continue
            _replace(node, key, rng, values)
            break
    return tree


def _replace(node, key, rng, values):
    kind = rng.random()
    if kind < 0.1:
        del node[key]
    elif kind < 0.15:
        node[key] = [node[key]] * rng.choice([1, 2, 100])
    elif kind < 0.2 and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[rng.randrange(len(node))]))
    elif kind < 0.25 and isinstance(node, dict):
        node[rng.choice([*node, *TEXTS])] = node[key]
    elif kind < 0.3:
        node[key] = functools.reduce(lambda inner, _: [inner], range(rng.choice([5, 200])), node[key])
    else:
        node[key] = copy.deepcopy(rng.choice(values))


def json_changed(content, rng, values=VALUES):
    """A JSON file with a changed tree, changed bytes, or brackets nested too deep."""
    kind = rng.random()
    if kind < 0.02:
        depth = rng.choice([900, 100_000])
        return b"[" * depth + b"]" * rng.choice([0, depth])
    if kind < 0.2:
        return bytes_changed(content, rng)
    return json.dumps(tree_changed(json.loads(content), rng, values)).encode()


def text_changed(content, rng):
    """Lines of text with lines or words replaced, removed or repeated; or changed bytes."""
    if rng.random() < 0.2:
        return bytes_changed(content, rng)
    text = content.decode("utf-8", "surrogateescape")
    separator = rng.choice(["\n", "\n", ",", " "])
    parts = text.split(separator)
    for _ in range(rng.choice([1, 1, 2])):
        place, kind = rng.randrange(len(parts)), rng.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[place]
        elif kind == 1:
            parts[place:place] = [rng.choice(parts)] * rng.choice([1, 3, 1000])
        else:
            parts[place] = str(rng.choice(VALUES[:60]) if kind < 5 else parts[place] * 3)
    return separator.join(parts).encode("utf-8", "surrogatepass")


def zip_changed(content, rng, change=None):
    """A zip archive with an entry changed (checksums fit), renamed, removed, repeated or compressed; or changed bytes.

    `change` is a function of an entry's name, content and `rng` to its new content.
    """
    if rng.random() < 0.25:
        return bytes_changed(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [[entry.filename, archive.read(entry)] for entry in archive.infolist()]
    place, kind, method = rng.randrange(len(entries)), rng.randrange(12), zipfile.ZIP_STORED
    name, inner = entries[place]
    if kind == 0:
        del entries[place]
    elif kind == 1:
        entries.append([name, b""])
    elif kind == 2:
        entries[place][0] = rng.choice(["../" + name, "/" + name, name.upper(), name + "/", "a" * 300, SECRET[0]])
    elif kind == 3:
        method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    elif kind == 4:  # small on disk, large in memory
        method, entries[place][1] = zipfile.ZIP_DEFLATED, inner + bytes(rng.choice([10**6, 10**8]))
    else:
        entries[place][1] = (change or _entry_changed)(name, inner, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, inner in entries:
            archive.writestr(name, inner)
    return stream.getvalue()


def _entry_changed(name, content, rng):
    return by_name(name)(content, rng)


EXECUTING = (  # pickles that would create the canary
    f"cos\nsystem\n(S'touch {CANARY}'\ntR".encode(),
    f'c__builtin__\neval\n(S\'open("{CANARY}", "w")\'\ntR'.encode(),
    f"(S'touch {CANARY}'\nios\nsystem\n".encode(),
    f'cbuiltins\nexec\n(S\'open("{CANARY}", "w")\'\ntR'.encode(),
    b"cnumpy\nload\n(S'a'\ntR",
    b"ctorch\nload\n(S'a'\ntR",
    b"cbuiltins\ngetattr\n(cnumpy.core.multiarray\n_reconstruct\nS'__globals__'\ntR",
)


def pickle_changed(content, rng):
    """A pickle with instructions removed, repeated, exchanged, or ones inserted that would create the canary."""
    try:
        places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    except ValueError:
        return bytes_changed(content, rng)
    parts = [content[start:end] for start, end in itertools.pairwise(places)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        place, kind = rng.randrange(len(parts)), rng.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[place]
        elif kind == 1:
            parts[place:place] = [parts[place]] * rng.choice([1, 3, 1000])
        elif kind == 2:
            parts[place] = rng.choice(parts)
        elif kind == 3:
            parts.insert(place, rng.choice(EXECUTING))
        elif kind == 4:
            parts[place] = rng.choice(
                [b"N", b"K\1", b"J\xff\xff\xff\xff", b"]", b"}", b")", b"(", b"2", b"0", b"t", b"\x85"]
            )
        else:
            parts[place] = bytes_changed(parts[place], rng)
    return b"".join(parts)


def protobuf_changed(content, rng, depth=0):
    """A message with a field at any depth removed, repeated or given another value, whose lengths fit; or bytes."""
    fields = _fields(content)
    if not fields or rng.random() < 0.1:
        return bytes_changed(content, rng)
    place, kind = rng.randrange(len(fields)), rng.random()
    key, value = fields[place]
    if key & 7 == 2 and kind < 0.75 and depth < 20:
        fields[place] = key, protobuf_changed(value, rng, depth + 1)
    elif kind < 0.8:
        del fields[place]
    elif kind < 0.9:
        fields[place:place] = [(key, value)] * rng.choice([1, 100])
    else:
        fields[place] = (key, rng.choice(WORDS) % 2**64) if key & 7 == 0 else (key ^ rng.choice([8, 16, 32]), value)
    return b"".join(_field(*field) for field in fields)


def _fields(content):
    """(key, value) of the fields of a message; None if it is none."""
    fields, place = [], 0
    while place < len(content):
        key, place = _varint(content, place)
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            value, place = _varint(content, place)
        elif key & 7 == 2 or size:
            if not size:
                size, place = _varint(content, place)
            value, place = content[place : place + size], place + size
        else:
            return None
        fields.append((key, value))
    return fields if place == len(content) and all(key >> 3 for key, _ in fields) else None


def _varint(content, place):
    value = shift = 0
    while place < len(content) and shift < 70:
        value |= (content[place] & 127) << shift
        place, shift = place + 1, shift + 7
        if content[place - 1] < 128:
            return value, place
    return 4, len(content) + 1  # no message


def _field(key, value):
    if key & 7 == 0:
        return _as_varint(key) + _as_varint(value)
    return _as_varint(key) + (_as_varint(len(value)) if key & 7 == 2 else b"") + value


def _as_varint(value):
    parts = [value >> shift & 127 | 128 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*parts[:-1], parts[-1] & 127])


def png_changed(content, rng):
    """A PNG file with a chunk removed, repeated, moved, inserted or changed, whose checksums fit; or changed bytes."""
    if rng.random() < 0.3:
        return bytes_changed(content, rng)
    chunks, place = [], 8
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        chunks.append([content[place + 4 : place + 8], content[place + 8 : place + 8 + size]])
        place += size + 12
    place, kind = rng.randrange(len(chunks)), rng.randrange(7)
    if kind == 0:
        del chunks[place]
    elif kind == 1:
        chunks[place:place] = [chunks[place]] * rng.choice([1, 50])
    elif kind == 2:
        rng.shuffle(chunks)
    elif kind == 3:
        bomb = zlib.compress(bytes(10**7))
        chunks.insert(1, [rng.choice([b"zTXt", b"iCCP"]), b"a\0\0" + bomb])
    elif kind == 4:
        chunks.insert(1, [rng.choice([b"PLTE", b"tRNS", b"acTL", b"eXIf", b"IDAT", b"IHDR"]), rng.randbytes(12)])
    else:
        place = 0 if rng.random() < 0.5 else place  # the header
        chunks[place][1] = bytes_changed(chunks[place][1] or b"\0", rng)
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return content[:8] + b"".join(parts)


ENDINGS = {
    **dict.fromkeys((".json",), json_changed),
    **dict.fromkeys((".txt", ".csv", ".yaml", ".yml", ".pbtxt", ".xml"), text_changed),
    **dict.fromkeys((".zip", ".keras"), zip_changed),
    ".pkl": pickle_changed,
    ".png": png_changed,
}


def by_name(name):
    """The function that changes a file, by the ending of its name."""
    return ENDINGS.get("." + str(name).rpartition(".")[2], bytes_changed)
