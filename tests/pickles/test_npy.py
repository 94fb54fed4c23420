"""Arrays of arrays in `.npy` files: results equal NumPy's; other content is rejected with a message of one line."""

import functools
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_maskrcnn.pickles import npy

RAGGED = [np.array([1, 2, 3]), np.array([], np.int64), np.array([3])]
BOXES = [np.arange(4 * count, dtype=np.float32).reshape(count, 4) / 8 for count in (2, 0, 1)]


def objects(items):
    """A one-dimensional array of objects."""
    result = np.empty(len(items), object)
    result[:] = items
    return result


def header(text, version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def write(path, content, protocol=3, shape=None, core=None):
    """An array of objects as written by `numpy.save`, with a given protocol and the names of NumPy 1 or 2."""
    shape = getattr(content, "shape", None) if shape is None else shape
    body = pickle.dumps(content, protocol)
    if core is not None and protocol < 4:  # in these the name is a line of text
        other = {b"core": b"_core", b"_core": b"core"}[core]
        body = body.replace(b"cnumpy." + other + b".", b"cnumpy." + core + b".")
        assert b"cnumpy." + core + b"." in body
    path.write_bytes(header(repr({"descr": "|O", "fortran_order": False, "shape": shape}) + "\n") + body)
    return path


def rejection(path):
    """The reason in the error for a file, after a check that the message is one line with the file's name."""
    with pytest.raises(npy.UnreadableFileError) as caught:
        npy.read_objects(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}" and "\n" not in str(caught.value)
    return caught.value.reason


def assert_arrays(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("items", [RAGGED, BOXES, [box.astype(np.float64) for box in BOXES]])
def test_what_numpy_saves(tmp_path, items):
    np.save(tmp_path / "a.npy", objects(items))
    assert_arrays(npy.read_objects(str(tmp_path / "a.npy")), items)
    assert_arrays(np.load(tmp_path / "a.npy", allow_pickle=True), items)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("items", [RAGGED, BOXES])
def test_protocols(tmp_path, items, protocol):
    assert_arrays(npy.read_objects(write(tmp_path / "a.npy", objects(items), protocol)), items)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_names_of_numpy_1_and_2(tmp_path, core, protocol):
    path = write(tmp_path / "a.npy", objects(RAGGED), protocol, core=core)
    assert b"numpy." + core in path.read_bytes()
    assert_arrays(npy.read_objects(path), RAGGED)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    items=st.lists(
        arrays.arrays(st.sampled_from(["<i8", ">i4", "u1", "<f4", ">f8", "?"]), arrays.array_shapes(min_side=0)),
        min_size=1,
        max_size=5,
    ),
    protocol=st.integers(2, 5),
)
def test_round_trip_of_any_arrays(tmp_path_factory, items, protocol):
    found = npy.read_objects(write(tmp_path_factory.getbasetemp() / "any.npy", objects(items), protocol))
    assert_arrays(found, [item.astype(item.dtype.newbyteorder("=")) for item in items])


@pytest.mark.parametrize("items", [[np.array([[1.5, 2, 3, 4]]), np.array([[5, 6, 7, 8.0]])], [[1, 2, 3], [4, 5, 6]]])
def test_arrays_of_equal_shape_which_numpy_merges(tmp_path, items):
    for kind in (object, None):
        np.save(tmp_path / "a.npy", np.array(items, kind))
        assert_arrays(npy.read_objects(tmp_path / "a.npy"), [np.array(item) for item in items])


def test_numpy_scalars_among_objects(tmp_path):
    content = np.array([[np.float32(1.5), 2], [3, np.int64(4)]], object)
    assert_arrays(npy.read_objects(write(tmp_path / "a.npy", content)), [np.array([1.5, 2]), np.array([3, 4])])


@pytest.mark.parametrize("content", [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3, 4)), np.arange(3.0)])
def test_arrays_of_numbers(tmp_path, content):
    np.save(tmp_path / "a.npy", content)
    assert_arrays(npy.read_objects(tmp_path / "a.npy"), list(content))


def test_version_2_of_the_format(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, objects(RAGGED), version=(2, 0))
    assert_arrays(npy.read_objects(tmp_path / "a.npy"), RAGGED)


class Attack:
    """An object that pickles to a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("attack", range(3))
@pytest.mark.parametrize("inside", [True, False])
def test_nothing_is_executed(tmp_path, attack, protocol, inside):
    canary = tmp_path / "canary"
    hostile = [
        Attack(os.system, f"touch {canary}"),
        Attack(eval, f"open({str(canary)!r}, 'w')"),
        Attack(functools.partial(open, str(canary), "w")),
    ][attack]
    content = objects([np.arange(3), hostile]) if inside else hostile
    path = write(tmp_path / "a.npy", content, protocol, shape=(2,))
    assert "its pickle refers to '" in rejection(path) and not canary.exists()
    if inside:  # check that the attack works with NumPy
        np.load(path, allow_pickle=True)
        assert canary.exists()


def test_truncated_files(tmp_path):
    for content in (objects(RAGGED), np.arange(6).reshape(2, 3)):
        np.save(tmp_path / "a.npy", content)
        whole = (tmp_path / "a.npy").read_bytes()
        for size in range(len(whole)):
            (tmp_path / "cut.npy").write_bytes(whole[:size])
            assert rejection(tmp_path / "cut.npy")


PLAIN = "{'descr': '<f8', 'fortran_order': False, 'shape': %s}\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a .npy file"),
        (b"PK\x03\x04", "is not a .npy file"),
        (b"\x93NUMPY\x03\x00", "version 3.0"),
        (header("__import__('os')\n"), "is damaged or incomplete"),
        (header(PLAIN % "()") + bytes(8), "a single value"),
        (header(PLAIN % "(2,)") + bytes(8), "has 8 bytes"),
        (header(PLAIN % "(9999999999, 0)"), "no elements"),
        (header((PLAIN % "(1,)").replace("<f8", "<U2")) + bytes(8), "not a numeric dtype"),
    ],
)
def test_contents_other_than_arrays(tmp_path, content, reason):
    (tmp_path / "a.npy").write_bytes(content)
    assert reason in rejection(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("content", "shape", "reason"),
    [
        (objects([np.arange(2), "text"]), (2,), "neither numeric arrays nor numbers"),
        (objects([np.arange(2), None]), (2,), "neither numeric arrays nor numbers"),
        (objects([np.arange(2), [1, 2]]), (2,), "neither numeric arrays nor numbers"),
        (objects([objects([np.arange(2)])]), (1,), "neither numeric arrays nor numbers"),
        (objects([2**70]), (1,), "neither numeric arrays nor numbers"),
        (objects([np.array(["text"])]), (1,), "not a numeric dtype"),
        (objects(RAGGED), (4,), "declares objects of shape [4]"),
        (np.arange(3), (3,), "contains another object"),
        ([1, 2], (2,), "contains another object"),
        (np.empty((10**9, 0), object), (10**9, 0), "no elements"),
    ],
)
def test_objects_other_than_arrays(tmp_path, content, shape, reason):
    assert reason in rejection(write(tmp_path / "a.npy", content, shape=shape))


def test_repeated_references_to_an_array_are_not_copied(tmp_path):
    content = np.empty((2, 500), object)
    one = np.zeros(10**4)
    for index in np.ndindex(content.shape):
        content[index] = one
    path = write(tmp_path / "a.npy", content)
    assert path.stat().st_size < 10**5
    assert "more than one axis" in rejection(path)


def test_paths_without_a_file(tmp_path):
    assert rejection(tmp_path / "a.npy") == "no such file"
    assert "cannot be read" in rejection(tmp_path)


def test_the_error_can_be_pickled(tmp_path):
    error = npy.UnreadableFileError(tmp_path, "a reason")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == f"{tmp_path}: a reason"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3))
def test_arbitrary_changes_raise_at_most_this_error(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "changed.npy"
    content = bytearray(write(path, objects(RAGGED)).read_bytes())
    for place, change in changes:
        place %= len(content)
        content[place : place + len(change)] = change
    path.write_bytes(content)
    try:
        found = npy.read_objects(path)
    except npy.UnreadableFileError as error:
        assert "\n" not in str(error)
    else:
        assert sum(item.nbytes for item in found) <= 8 * len(content)


def test_the_sample_of_the_course(kmr_data):
    for kind in ("labels", "bboxes"):
        path = kmr_data / "cis680_hw3_sample" / f"hw3_mycocodata_{kind}_comp_zlib.npy"
        assert_arrays(npy.read_objects(path), np.load(path, allow_pickle=True))
