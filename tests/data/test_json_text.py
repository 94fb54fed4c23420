"""Places of elements in JSON text: what is at them is what Python's own reader finds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_maskrcnn.data import DataError
from keras_maskrcnn.data.json_text import Elements, Scanner
from keras_maskrcnn.data.kept import state

TEXTS = st.text(st.sampled_from('aü"\\[]{},: \n\u20ac'), max_size=4)
VALUES = st.recursive(
    st.sampled_from([None, True, -1.5e300, 7]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["images", "a", "b"]), VALUES),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
)
def test_elements_and_members_are_those_of_json(content, indent, ascii_only, bom):
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    text = b"\xef\xbb\xbf" * bom + text
    wanted, found = json.loads(text), {}
    for key, value in Scanner(text).members(["images"]):
        if hasattr(value, "__next__"):
            value = list(value)
            assert [json.loads(text[start:end]) for _, start, end in value] == wanted[key]
            value = [element for element, *_ in value]
        found[key] = value
    assert list(found) == list(wanted)
    assert not isinstance(wanted.get("images"), list) or found["images"] == wanted["images"]


@pytest.mark.parametrize(
    "text",
    ["", "[", "{", "{1: 2}", '{"a" 1}', '{"a": 1', '{"a": 1} x', '{"images": [1 2]}', '{"images": [1,', '{"a": 1,}'],
)
def test_what_is_no_object_is_an_error(text):
    with pytest.raises(ValueError):
        for _, value in Scanner(text.encode()).members(["images"]):
            _ = list(value) if hasattr(value, "__next__") else None


def test_a_file_that_is_gone_is_one_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 22]")
    elements = Elements(path, np.array([[1, 1], [4, 2]]), state(path))
    assert list(elements) == [1, 22] and elements[-1] == 22 and elements[:1] == [1] and len(elements) == 2
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        elements[0]
