"""JSON from files: plain values come back, and anything else is a ValueError in one line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maml_rl.errors import InputError
from maml_rl.json_values import json_text, parse_json, read_json, read_text

NUMBERS = st.integers(-(10**99), 10**99) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_written_values_are_read_back(value):
    assert parse_json(json_text(value)) == value
    assert parse_json(json_text(value, indent=2)) == value


@given(st.text(max_size=20) | st.text('[]{}:,"\\0123456789eE+-.nultrfasNI', max_size=20))
def test_any_text_is_json_or_a_value_error_in_one_line(text):
    try:
        value = parse_json(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 (most texts are not JSON)
    else:
        assert parse_json(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        ("[" * 100_000, "nested deeper than 32"),
        ("9" * 5_000, "at most 100 digits, one has 5000"),
        ("NaN", "should be finite, one is NaN"),
        ("-Infinity", "should be finite, one is -Infinity"),
        ("1e999", "should be finite, one is 1e999"),
        ('["\\udc00"]', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
    ],
)
def test_an_invalid_text_is_refused_with_the_reason(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_json(text)


def test_files_are_named_with_what_to_do(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    for read in (read_text, read_json):
        with pytest.raises(InputError, match=rf"{path} is damaged \(it should be UTF-8 text.*\): remove it"):
            read(path, "remove it")
    path.write_text("{")
    with pytest.raises(InputError, match=rf"{path} is damaged \(Expecting.*\): restore it from a copy"):
        read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


def test_a_number_that_is_not_finite_is_null():
    value = {"a": [math.nan, (1.0, -math.inf)], "b": math.inf, "c": 1}
    assert json.loads(json_text(value)) == {"a": [None, [1.0, None]], "b": None, "c": 1}
