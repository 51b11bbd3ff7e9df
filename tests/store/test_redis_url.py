"""The address of the store: what it accepts, and what it says about mistakes."""

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Mistake
from app.store.redis_url import Address

ONE = (("h", 6379),)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("valkey://h", Address(hosts=ONE)),
        ("VALKEY://h/2", Address(hosts=ONE, database=2)),
        ("valkeys://:p@h", Address(hosts=ONE, password="p", tls=True)),
        ("redis://h?tls=true", Address(hosts=ONE, tls=True)),
        ("valkey+sentinel://h/s", Address(kind="sentinels", hosts=(("h", 26379),), service="s")),
        (
            "rediss+sentinel://h/s/1",
            Address(kind="sentinels", hosts=(("h", 26379),), service="s", database=1, tls=True),
        ),
        ("valkeys+cluster://h,i:1/0", Address(kind="cluster", hosts=(("h", 6379), ("i", 1)), tls=True)),
        ("rediss+cluster://h?tls=true", Address(kind="cluster", hosts=ONE, tls=True)),
        ("redis+cluster://h?tls=false", Address(kind="cluster", hosts=ONE)),
        ("redis://u:p@ss:word[x]@h", Address(hosts=ONE, username="u", password="p@ss:word[x]")),
        ("redis://u:%2F%3F%23%40%25@h", Address(hosts=ONE, username="u", password="/?#@%")),
        ("redis://:p@[::1]:1/0", Address(hosts=(("::1", 1),), password="p")),
        ("unix:///run/a@b%20c", Address(path="/run/a@b c")),
        ("unix:///run/a b", Address(path="/run/a b")),
        ("unix://u:p@/run/a", Address(path="/run/a", username="u", password="p")),
    ],
)
def test_address_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address


LOGIN = "in a user or password, write / as %2F, ? as %3F and # as %23"


CONTROL = "it contains a line end or another control character, possibly at the end of the password"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        *((f"redis://u:p{each}hunter2@h/0", LOGIN) for each in "/?#"),
        ("redis+sentinel://:/hunter2@h,i/s", LOGIN),
        ("unix://u:hunter2#@/x", LOGIN),
        ("redis://hunter2@h", "the login has no colon: write user:password@, or :password@ without a user"),
        ("hunter2", "its scheme is none of these"),
        ("http://h", "its scheme is none of these"),
        ("redis+sentinels://h/s", "its scheme is none of these"),
        ("valkeyredis://h", "its scheme is none of these"),
        *((f"redis://u:hunter2{each}@h", CONTROL) for each in ("\n", "\t", "\u200b", "\udcff")),
        ("redis://u:hunter2", "a host or port is invalid, or @ is missing after the password"),
        ("redis://h:99999", "a host or port is invalid, or @ is missing after the password"),
        ("redis://[::1", "a host or port is invalid, or @ is missing after the password"),
        ("redis://u:hunter2@", "a host is missing, or its port is 0"),
        ("redis+cluster://h,", "a host is missing, or its port is 0"),
        ("redis://h,i", "several hosts need redis+sentinel:// or redis+cluster://"),
        ("redis://h/0#hunter2", "# is not allowed after the host"),
        ("redis://h/oms", "the path must end with the number of a database"),
        ("redis+sentinel://h", "the name of the service is missing after the hosts"),
        ("redis+cluster://h/5", "a cluster has only the database 0"),
        ("rediss://h?ssl_cert_reqs=none", "instead of the option ssl_cert_reqs, set REDIS_TLS_VERIFY"),
        ("redis://h?db=1", "instead of the option db, write the database as the path, such as /1"),
        ("redis://h?ssl_ca_certs=/x&tls=true", "instead of the option ssl_ca_certs, set SSL_CERT_FILE"),
        ("redis://h?hunter2=1", "the only option is tls=true or tls=false, and rediss means tls=true"),
        ("redis://h?tls=on", "the only option is tls=true or tls=false, and rediss means tls=true"),
        ("rediss://h?tls=false", "the only option is tls=true or tls=false, and rediss means tls=true"),
        ("unix://h/x", "a Unix socket has a path that begins with /, and no host or option"),
        ("unix:///x?db=1", "a Unix socket has a path that begins with /, and no host or option"),
    ],
)
def test_mistake_is_named_without_a_value(text: str, mistake: str) -> None:
    with pytest.raises(Mistake) as raised:
        Address.parse(text)
    assert str(raised.value) == mistake


@given(st.text(), st.text(min_size=1))
def test_encoded_login_is_read_as_it_was(username: str, password: str) -> None:
    address = Address.parse(f"redis://{quote(username, safe='')}:{quote(password, safe='')}@h")
    assert (address.username or "", address.password) == (username, password)
    assert address.shown == "redis://h:6379/0"


@given(st.text() | st.text("redis+sentinlcuvky:/@?#[]%,10&=").map("redis://".__add__))
def test_any_text_is_an_address_or_a_mistake(text: str) -> None:
    with contextlib.suppress(Mistake):
        assert Address.parse(text).shown
