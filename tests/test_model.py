import re
import string
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.model import MAX_VERSION, Author, Change, EventId, Setting, is_tenant_name
from tests.contract import EXTENSIONS, PATH


@given(st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True))
def test_name_of_the_allowed_form_is_a_tenant_name(name: str) -> None:
    assert is_tenant_name(name)


@given(st.text(max_size=80))
def test_tenant_name_has_no_special_character_of_a_key(text: str) -> None:
    assert not is_tenant_name(text) or set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def make_change(version: int, change_id: str) -> Change:
    return Change(Setting(enabled=True, version=version), datetime.now(UTC), Author(None, "request-1"), change_id)


@given(st.integers(1, MAX_VERSION), st.text(string.printable[:95], min_size=1, max_size=64))
def test_every_event_id_is_accepted_and_matches_only_its_event(version: int, change_id: str) -> None:
    """A change ID that an operator wrote may be any printable ASCII text."""
    own, other = make_change(version, change_id), make_change(version, f"another {change_id}")
    parameters = EXTENSIONS["paths"][f"{PATH.removeprefix('/v0')}/events"]["get"]["parameters"]
    text = str(EventId.of(own))
    assert [bool(re.search(each["schema"]["pattern"], text)) for each in parameters] == [True, True]
    assert EventId.parse(text) == EventId.of(own)
    assert EventId.of(own).matches(own)
    assert not EventId.of(own).matches(other)
    assert not EventId.of(own).matches(make_change(version + 1, change_id))
    assert EventId.parse(str(version)).matches(own)
    assert EventId.parse(str(version)).matches(other)


def test_event_id_of_a_setting_that_was_never_set_is_0() -> None:
    assert str(EventId.of(None)) == "0"
    assert EventId.parse("0").matches(None)
    assert not EventId.parse("0").matches(make_change(1, "x"))
    assert not EventId.parse("1").matches(None)
