"""The stack machine: plain data equals pickle's result, everything else is rejected."""

import collections
import io
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_maskrcnn.pickles import safe_pickle

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(min_size=1)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(value=PLAIN, protocol=st.integers(3, 5))
def test_plain_data_equals_pickle(value, protocol):
    assert safe_pickle.load(io.BytesIO(pickle.dumps(value, protocol)), {}) == value


def test_the_stream_ends_after_the_pickle():
    stream = io.BytesIO(pickle.dumps([1]) + b"rest")
    assert safe_pickle.load(stream, {}) == [1] and stream.read() == b"rest"


def test_names_are_replaced_by_functions():
    stream = io.BytesIO(pickle.dumps(collections.Counter("aab")))
    assert safe_pickle.load(stream, {"collections.Counter": safe_pickle.as_dict}) == {"a": 2, "b": 1}


def test_other_names_and_instructions_are_rejected():
    with pytest.raises(safe_pickle.UnreadableError, match=r"refers to 'collections.Counter'"):
        safe_pickle.load(io.BytesIO(pickle.dumps(collections.Counter("aab"))), {})
    with pytest.raises(safe_pickle.UnreadableError, match="EMPTY_SET"):
        safe_pickle.load(io.BytesIO(pickle.dumps({1}, 4)), {})
