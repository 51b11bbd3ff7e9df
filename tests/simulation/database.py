"""The keys of one simulated server, and the commands on them."""

from collections.abc import Callable, Sequence
from typing import Any, Final

Command = Sequence[Any]  # bytes; a value of any type in RESTORE
Reply = Any  # bytes, int, None, a list of replies, or an exception for an error reply
Value = bytes | dict[bytes, bytes]

WRITES: Final = frozenset({b"SET", b"HSET", b"HDEL", b"RESTORE", b"DEL"})


class Database:
    """Strings and hashes. `modifications` counts for each key how often it was modified, for WATCH."""

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self.modifications: dict[bytes, int] = {}
        self._commands: dict[bytes, Callable[..., Reply]] = {
            b"GET": self.values.get,
            b"EXISTS": lambda *keys: sum(key in self.values for key in keys),
            b"HLEN": lambda key: len(self._hash(key)),
            b"HGET": lambda key, field: self._hash(key).get(field),
            b"HMGET": lambda key, *fields: [self._hash(key).get(field) for field in fields],
            b"SET": self._set,
            b"HSET": self._hset,
            b"HDEL": self._hdel,
            b"RESTORE": self.restore,
            b"DEL": self._delete,
        }

    def has_command(self, name: bytes) -> bool:
        """Return True if `run` knows the command."""
        return name in self._commands

    def run(self, command: Command) -> Reply:
        """Run one command and return its reply."""
        return self._commands[command[0]](*command[1:])

    def restore(self, key: bytes, value: Value) -> bytes:
        """Store a copy of `value`, from another server."""
        self._modify(key)
        self.values[key] = dict(value) if isinstance(value, dict) else value
        return b"OK"

    def replace(self, other: "Database") -> None:
        """Take over all keys of `other`."""
        for key in self.values.keys() | other.values.keys():
            self._modify(key)
        self.values.clear()
        self.values.update({key: dict(each) if isinstance(each, dict) else each for key, each in other.values.items()})

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        value = self.values.get(key, {})
        assert isinstance(value, dict)
        return value

    def _modify(self, key: bytes) -> None:
        self.modifications[key] = self.modifications.get(key, 0) + 1

    def _set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        self._modify(key)
        if options:
            # The product only sets keys to expire that it never reads, so they expire at once.
            assert options[0] == b"PX", options
            self.values.pop(key, None)
        else:
            self.values[key] = value
        return b"OK"

    def _hset(self, key: bytes, field: bytes, value: bytes) -> int:
        self._modify(key)
        fields = self.values.setdefault(key, {})
        assert isinstance(fields, dict)
        fields[field] = value
        return 1

    def _hdel(self, key: bytes, *fields: bytes) -> int:
        self._modify(key)
        existing = self._hash(key)
        removed = sum(existing.pop(field, None) is not None for field in fields)
        if not existing:
            self.values.pop(key, None)  # Redis has no empty hashes
        return removed

    def _delete(self, key: bytes) -> int:
        self._modify(key)
        return int(self.values.pop(key, None) is not None)


def keys_of(command: Command) -> Sequence[bytes]:
    """Return the keys that a command names."""
    if command[0] in {b"EXISTS", b"WATCH"}:
        return command[1:]
    return command[1:2] if command[0] in {b"GET", b"HLEN", b"HGET", b"HMGET", *WRITES} else ()
