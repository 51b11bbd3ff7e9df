from hypothesis import given
from hypothesis import strategies as st

from app.model import is_tenant_name


@given(st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True))
def test_name_of_the_allowed_form_is_a_tenant_name(name: str) -> None:
    assert is_tenant_name(name)


@given(st.text(max_size=80))
def test_tenant_name_has_no_special_character_of_a_key(text: str) -> None:
    assert not is_tenant_name(text) or set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
