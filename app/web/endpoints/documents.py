"""The OpenAPI documents that the service publishes: those of its operations, and one for client generators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# libyaml, which PyYAML's wheels contain, reads a document in 1 ms instead of 25.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Document:
    """An OpenAPI document at `path`, with the title by which people select it."""

    path: str
    title: str
    content: bytes


def published_documents(files: Sequence[Path], overlay: Path) -> list[Document]:
    """Return `files` byte for byte, and after the first one, the contract, `/client.yaml`.

    `/client.yaml` is the contract with the additions of `overlay`, an OpenAPI Overlay document with one action, which
    updates the whole contract. It is selected by the overlay's title, because its own title is the contract's. Raises
    TypeError if the overlay would replace a part of the contract.
    """
    additions = _parsed(overlay)
    (action,) = additions["actions"]
    extended = _extended(_parsed(files[0]), action["update"], place=action["target"])
    content = yaml.dump(extended, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, sort_keys=False)
    client = Document("/client.yaml", additions["info"]["title"], content)
    contract, *others = (Document(f"/{file.name}", _parsed(file)["info"]["title"], file.read_bytes()) for file in files)
    return [contract, client, *others]


def _parsed(file: Path) -> Any:
    return yaml.load(file.read_bytes(), _Loader)  # noqa: S506 - both loaders are safe


def _extended(base: Any, update: Any, place: str) -> Any:
    """Return `base` with the members of `update` that it lacks, at any depth. A `$ref` would replace all members."""
    if not isinstance(base, Mapping) or not isinstance(update, Mapping) or "$ref" in update:
        raise TypeError(f"the overlay would replace {place} of the contract")
    shared = {name: _extended(base[name], update[name], f"{place}.{name}") for name in base.keys() & update.keys()}
    return {**base, **update, **shared}
