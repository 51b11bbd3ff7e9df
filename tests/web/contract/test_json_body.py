import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.web.contract.json_body import MAX_DEPTH, parse

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | WHOLE_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WHOLE_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_json_parses_as_in_the_standard_library(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


BYTE_ORDER_MARK = "body: expected UTF-8 without a byte order mark (BOM) at the start."


@given(st.binary())
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except BadRequest:
        return


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "body: expected JSON, found an empty body."),
        (b" ", "body: expected JSON, found a syntax error at line 1 column 2."),
        (b"{", "body: expected JSON, found a syntax error at line 1 column 2."),
        (b'{"a":1} x', "body: expected JSON, found a syntax error at line 1 column 9."),
        (b'{"a":1}{"a":1}', "body: expected JSON, found a syntax error at line 1 column 8."),
        (b"{'a':1}", "body: expected JSON, found a syntax error at line 1 column 2."),
        (b"[1 2]", "body: expected JSON, found a syntax error at line 1 column 4."),
        *((mark + b"{}", BYTE_ORDER_MARK) for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0")),
        (b'"\x00"', "body: expected JSON, found a syntax error at line 1 column 2."),
        (b'"\xff"', "body: expected valid UTF-8 without lone surrogates."),
        (b'"\xed\xa0\x80"', "body: expected valid UTF-8 without lone surrogates."),
        ('{"a":1}'.encode("utf-16"), BYTE_ORDER_MARK),
        (rb'"\ud800"', "body: expected valid UTF-8 without lone surrogates."),
        (rb'{"\udfff":1}', "body: expected valid UTF-8 without lone surrogates."),
        (rb'[{"a":["\ud83d"]}]', "body: expected valid UTF-8 without lone surrogates."),
        (b'{"a":1,"a":1}', "body: expected unique keys in each object."),
        (b'[{"x":{"a":1,"b":2,"a":3}}]', "body: expected unique keys in each object."),
        (b"NaN", "body: expected JSON, which does not allow NaN."),
        (b"[Infinity]", "body: expected JSON, which does not allow Infinity."),
        (b'{"a":-Infinity}', "body: expected JSON, which does not allow -Infinity."),
        (b"1e400", "body: expected numbers within the range of a 64-bit float."),
        (b"9" * 5000, "body: expected integers of at most 4300 digits."),
        (b"[" * 100_000, "body: expected at most 32 levels of nesting."),
        (b'{"a":' * 100_000, "body: expected at most 32 levels of nesting."),
        (b"[" * 33 + b"]" * 33, "body: expected at most 32 levels of nesting."),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "body: expected at most 32 levels of nesting."),
    ],
)
def test_non_strict_json_is_refused_with_place_and_expectation(content: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse(content)
    assert str(raised.value) == reason


def test_nesting_is_allowed_up_to_the_limit() -> None:
    content = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.dumps(parse(content)).encode() == content


def test_surrogate_pair_is_one_character() -> None:
    assert parse(rb'"\ud83d\ude00"') == "😀"
