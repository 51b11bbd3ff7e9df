"""Hostile inputs of any size, and measurements of their cost."""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException

from app.errors import ServiceError
from external_oms_config import OmsConfigError

GROWTH: Final = 8
MOST: Final = 20  # times the cost of an eighth of the input
ATTEMPTS: Final = 10  # a loaded machine disturbs several in a row

# Errors that reject input.
REJECTED: Final = (ServiceError, OmsConfigError, HTTPException, ValueError)

# An input that is too long costs little, so its cost says nothing about the parser.
_TOO_LONG: Final = re.compile(r"longer than \d+|at most \d+ (bytes|characters|headers|keys)")

Shape = Callable[[int], bytes]


def repeated(unit: str | bytes) -> Shape:
    """The shape of one unit, over and over."""
    content = unit.encode("utf-8", "surrogatepass") if isinstance(unit, str) else unit
    return lambda size: content * (size // len(content))


def followed(unit: str, end: str) -> Shape:
    """The shape of something that matches up to its very end."""
    return lambda size: unit.encode() * (size // len(unit)) + end.encode()


def preceded(start: str, unit: str) -> Shape:
    """The shape of something that begins once and never ends."""
    return lambda size: start.encode() + unit.encode() * (size // len(unit))


def nested(opening: str, inner: str, closing: str) -> Shape:
    def shape(size: int) -> bytes:
        levels = size // len(opening + closing)
        return (opening * levels + inner + closing * levels).encode()

    return shape


def many_keys(size: int) -> bytes:
    return json.dumps({f"key-{number}": number for number in range(size // 20)}).encode()


SHAPES: Mapping[str, Shape] = {
    "one letter": repeated("a"),
    "one digit": repeated("9"),
    "fraction": preceded("0.", "9"),
    "spaces": repeated(" "),
    "spaces and an end": followed(" ", "x"),
    "words": repeated("a "),
    "quotes": repeated('"'),
    "text without end": preceded('"', "a"),
    "escapes": repeated('\\"'),
    "percent signs": repeated("%"),
    "percent signs encoded again": preceded("%", "25"),
    "encoded letters": repeated("%65"),
    "slashes": repeated("/"),
    "directories": repeated("a/"),
    "parent directories": repeated("../"),
    "dots": repeated("."),
    "headers of tokens": repeated("eyJ"),
    "headers of tokens and a dot": followed("eyJ", "."),
    "headers of tokens with white space": repeated("ewogICAgImFsZyI6"),
    "tokens without end": repeated("eyJh."),
    "tokens": repeated("eyJh.eyJh.x "),
    "hyphens": repeated("-"),
    "commas and spaces": repeated(" ,\t,"),
    "entity tags": repeated('"1", '),
    "entity tags and an end": followed('W/"1", ', "x"),
    "entity tag with codings": followed("-gzip", '"'),
    "colons": repeated(":1"),
    "parameters": repeated(";a=b"),
    "parameters without end": repeated(';a="'),
    "continued parameters": repeated(";a*0*=utf-8''%41"),
    "at signs": repeated("@"),
    "open brackets": repeated("["),
    "nested lists": nested("[", "", "]"),
    "nested objects": nested('{"a":', "1", "}"),
    "open objects": repeated('{"a":'),
    "list of numbers": lambda size: b"[" + b"1," * (size // 2) + b"1]",
    "many keys": many_keys,
    "fields": repeated("a=b&"),
    "lines": repeated("data: x\r\n"),
    "carriage returns": repeated("\r"),
    "control characters": repeated("\x1b\x00"),
    "combining marks": repeated("\u0300\u0316"),
    "not UTF-8": repeated(b"\xff\xed\xa0\x80"),
}


def assert_within_limits(rejection: str) -> None:
    """Assert that the text of a rejection does not report an input that is too long."""
    assert not _TOO_LONG.search(rejection), f"too long for this test: {rejection}"


def seconds(function: Callable[[], object]) -> float:
    """Return the CPU time of a call that accepts its input, or rejects it for a reason other than its length."""
    rejection = ""
    began = time.thread_time()
    try:
        function()
    except REJECTED as error:
        rejection = str(error)
    took = time.thread_time() - began
    assert_within_limits(rejection)
    return took


def disproportionate(
    measure: Callable[[bytes], float], size: int, least: float, shapes: Mapping[str, Shape] = SHAPES
) -> list[str]:
    """Return the shapes whose cost grows too fast from `size`, each measured up to `ATTEMPTS` times.

    A cost below `least` seconds counts as `least`.
    """
    found = []
    for name, shape in shapes.items():
        small, large = shape(size), shape(GROWTH * size)
        before = after = float("inf")
        for _ in range(ATTEMPTS):
            before, after = min(before, measure(small)), min(after, measure(large))
            if after <= MOST * max(before, least):
                break
        else:
            found.append(f"{name}: {before:.4f} s, then {after:.4f} s")
    return found
