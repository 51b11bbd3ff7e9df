"""The table of docs/architecture.md against `app/` and against the installed libraries."""

import ast
import contextlib
import dataclasses
import importlib
import importlib.metadata
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.test_architecture import FILES, FOLDERS, PACKAGES, ROOT, imports_of, modules

TABLE = ROOT / "docs" / "architecture.md"

OWN = tuple(f"{package.__name__}." for package in PACKAGES)
# What libraries document; all else that `app/` imports from one of `LIBRARIES` must be in the table.
LIBRARIES = {*FOLDERS, "starlette", "httpx", "swagger_ui_bundle"}
PUBLIC = re.compile(
    r"(uvicorn|httptools|connexion|flask|jwt|httpx|hiredis|structlog|prometheus_client|swagger_ui_bundle)(\.[A-Z]\w*)?"
    r"|click|httpx_sse\.(EventSource|SSEError)|jsonschema\.(\w+Validator|ValidationError|exceptions\.best_match)"
    r"|cryptography\.(exceptions|x509|hazmat\.primitives\.(serialization|asymmetric\.\w+))\.\w+"
    r"|redis\.(asyncio|exceptions(\.\w+)?|backoff\.NoBackoff|asyncio\.retry\.Retry|crc)|prometheus_client\.\w+"
    r"|opentelemetry\.trace\.Span"  # only as a type
    r"|prometheus_client\.core\.GaugeMetricFamily"  # documented for custom collectors
    r"|starlette\.(types|requests|responses|exceptions|datastructures|staticfiles)\.\w+"
    r"|starlette\.routing\.(BaseRoute|Route|Router|Mount|Match)"
    r"|werkzeug\.(datastructures|http)\.\w+"
    r"|connexion\.(operations\.AbstractOperation|spec\.Specification)"  # only as types
)
# What libraries document for subclasses.
PUBLIC_MEMBERS = {
    "_abc_impl", "aclose", "close", "default_config", "ensure_sync", "exit_code", "message",
    "null_session_class", "open_session", "session_interface", "show", "url_map",
}  # fmt: skip
# What libraries document of the errors that they raise.
PUBLIC_OF_ERRORS = {"detail", "headers", "status_code"}
# Attributes of `self` whose value comes from Python or `app/`, or has a documented interface.
PUBLIC_VALUES = {"config", "logger", "loop", "parser", "pipeline", "signal_queue", "transport", "url"}
# What libraries document for callers that set it: the attributes of click's context.
PUBLIC_SETTINGS = {"obj", "color"}


@dataclasses.dataclass(frozen=True)
class Touched:
    """One name in the table; `parameters` are those that it must have, without `self`."""

    library: str
    owner: str
    attribute: str | None
    parameters: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.owner}.{self.attribute}" if self.attribute else self.owner


def rows() -> Iterator[tuple[str, list[Touched], list[str]]]:
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 7 and cells[0] not in {"library", "---"}:
            yield cells[0], list(_touched(cells[0], cells[1])), re.findall(r"`(.+?)`", cells[2])


def _touched(library: str, cell: str) -> Iterator[Touched]:
    owner = ""
    for name, has_parameters, listed in re.findall(r"`([\w.]+)(\((.*?)\))?`", cell):
        parameters = tuple(filter(None, listed.split(", "))) if has_parameters else None
        if name.startswith("."):
            yield Touched(library, owner, name[1:], parameters)
        else:
            owner = name
            yield Touched(library, owner, None, parameters)


ALL = [touched for _, each, _ in rows() for touched in each]
NAMES = {str(each) for each in ALL}


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


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def chain(node: ast.AST) -> list[str]:
    """Return the names in `a.b.c`, or an empty list if the node is anything else."""
    is_chain = isinstance(node, ast.Attribute | ast.Name) and re.fullmatch(r"[\w.]+", ast.unparse(node))
    return ast.unparse(node).split(".") if is_chain else []


def set_on_self(code: ast.AST) -> set[str]:
    """Return the names that the code sets as `self.name`."""
    return {
        node.attr
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and chain(node)[:-1] == ["self"]
    }


@cache
def attributes(cls: type) -> set[str]:
    """Return the names that the class has, declares, or sets on an instance."""
    found = set(dir(cls))
    for parent in cls.__mro__:
        found |= set(inspect.get_annotations(parent))
        for function in filter(inspect.isfunction, vars(parent).values()):
            with contextlib.suppress(OSError):  # a function that was made from no file, as in dataclasses
                found |= set_on_self(ast.parse(textwrap.dedent(inspect.getsource(function))))
    return found


@pytest.mark.parametrize("touched", ALL, ids=str)
def test_each_touched_name_is_there_with_its_parameters(touched: Touched) -> None:
    owner = resolve(touched.owner)
    if touched.attribute is not None:
        assert touched.attribute in attributes(owner), f"{touched.library}: {touched} is missing"
    if touched.parameters is not None:
        function = owner if touched.attribute is None else getattr(owner, touched.attribute)
        skipped = int(touched.attribute is not None)
        parameters = tuple(inspect.signature(function).parameters)[skipped:]
        assert parameters == touched.parameters, f"{touched.library}: {touched} takes {parameters}"


@pytest.mark.parametrize("library", sorted({part for row, _, _ in rows() for part in row.split(", ")}))
def test_the_table_names_the_installed_version(library: str) -> None:
    name, _, version = library.rpartition(" ")
    assert importlib.metadata.version(name) == version, f"{name}: check its rows, then correct the version"


def used_names(path: Path) -> set[str]:
    """Return the names that the code uses or defines, without those in comments and strings."""
    names = set()
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.alias(name=name):
                names.add(name.rpartition(".")[2])
    return names


def test_each_row_names_files_that_use_it() -> None:
    unused = []
    for library, touched, files in rows():
        used = set[str]().union(*(used_names(ROOT / file) for file in files))
        owners = {each.owner for each in touched if each.attribute}
        for each in touched:
            if each.attribute is None and each.owner in owners:
                continue
            if str(each).rpartition(".")[2] not in used:
                unused.append(f"{library}: {each} is not used in {files}")
    assert not unused, "\n".join(unused)


def imports() -> Iterator[tuple[str, str]]:
    """Yield (file, imported name) of everything that `app/` imports from `LIBRARIES`."""
    for path in FILES:
        for name in imports_of(path):
            if name.partition(".")[0] in LIBRARIES:
                yield str(path.relative_to(ROOT)), name


def test_every_import_is_public_or_in_the_table() -> None:
    files = {
        file: {str(each) for _, touched, named in rows() if file in named for each in touched} for file, _ in imports()
    }
    missing = [
        f"{file} imports {name}"
        for file, name in imports()
        if not PUBLIC.fullmatch(name) and not any(f"{each}.".startswith(f"{name}.") for each in files[file])
    ]
    assert not missing, "\n".join(missing)


def subclasses() -> Iterator[tuple[type, type]]:
    """Yield (class of `app/`, library class above it) without the public exceptions."""
    for module in modules():
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for parent in cls.__mro__[1:]:
                    if parent.__module__.partition(".")[0] in LIBRARIES:
                        yield cls, parent


def used_of_itself(cls: type) -> set[str]:
    """Return the attributes of `self` that the class uses, and the methods that it defines."""
    return set(vars(cls)) | {names[1] for names in chains_of_self(cls)}


def chains_of_self(cls: type) -> list[list[str]]:
    """Return each `self.a` and `self.a.b` in the class as a list of its names."""
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
    return [names for names in map(chain, nodes) if len(names) > 1 and names[0] == "self"]


def test_everything_used_of_a_base_class_is_in_the_table() -> None:
    listed = {(resolve(each.owner), each.attribute) for each in ALL if each.attribute}
    missing = [
        f"{cls.__module__}.{cls.__name__} uses {parent.__module__}.{parent.__name__}.{name}"
        for cls, parent in subclasses()
        if parent is cls.__mro__[[each.__module__.startswith(OWN) for each in cls.__mro__].index(False)]
        for name in sorted(used_of_itself(cls))
        if not re.fullmatch(r"__\w+__", name)
        and name not in PUBLIC_MEMBERS
        and name in attributes(parent)
        and not any((each, name) in listed for each in cls.__mro__)
    ]
    assert not missing, "\n".join(missing)


def listed_for(path: Path) -> set[str]:
    """Return the names in the rows of the file, each without its class or module."""
    file = str(path.relative_to(ROOT))
    return {str(each).rpartition(".")[2] for _, touched, files in rows() if file in files for each in touched}


def test_attributes_of_a_library_object_in_an_attribute_are_in_the_table() -> None:
    missing = [
        f"{cls.__module__}.{cls.__name__} uses {'.'.join(names)}"
        for cls, parent in subclasses()
        for names in chains_of_self(cls)
        if len(names) > 2
        and names[1] in attributes(parent) - PUBLIC_VALUES
        and names[2] not in listed_for(Path(inspect.getfile(cls)))
    ]
    assert not missing, "\n".join(missing)


def test_attributes_of_caught_errors_are_in_the_table() -> None:
    missing = []
    for module in modules():
        path = Path(str(module.__file__))
        for handler in ast.walk(parsed(path)):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
                continue
            error = vars(module).get(ast.unparse(handler.type))
            if getattr(error, "__module__", "").partition(".")[0] not in LIBRARIES:
                continue
            chains = [names for names in map(chain, ast.walk(handler)) if len(names) > 1]
            used = {names[1] for names in chains if names[0] == handler.name}
            missing += [f"{module.__name__} uses {error}.{name}" for name in used - PUBLIC_OF_ERRORS - listed_for(path)]
    assert not missing, "\n".join(missing)


def test_attributes_that_app_sets_are_its_own_or_in_the_table() -> None:
    trees = {path: parsed(path) for path in FILES}
    own = {
        node.target.id
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }.union(*map(set_on_self, trees.values()))
    missing = [
        f"{path.relative_to(ROOT)} sets {ast.unparse(node)}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if chain(node)[:-1] not in (["self"], ["sys"], ["threading"])
        if node.attr not in own | PUBLIC_SETTINGS | listed_for(path)
    ]
    assert not missing, "\n".join(missing)


def test_private_names_of_libraries_are_in_the_table() -> None:
    missing = []
    for path in FILES:
        tree = parsed(path)
        imported = {
            (each.asname or each.name).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            or (isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in {*LIBRARIES, "logging"})
            for each in node.names
        }
        for names in map(chain, ast.walk(tree)):
            text = ".".join(names)
            is_private = len(names) > 1 and names[0] in imported and re.match("_[^_]", names[-1])
            if is_private and not any(f".{each}".endswith(f".{text}") for each in NAMES):
                missing.append(f"{path.relative_to(ROOT)} touches {text}")
    assert not missing, "\n".join(missing)
