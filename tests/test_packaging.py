"""The packaging files agree with each other and with the packages."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.version import VERSION
from tests.contract import CONTRACT_FILE
from tests.processes import ROOT, WEB, Service, make_token
from tests.test_architecture import FILES
from tests.waiting import PATIENCE

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
RANGES = [Requirement(line) for line in CONFIG["options"]["install_requires"].split("\n") if line and line[0] != "#"]
EXTRAS = [
    Requirement(line)
    for lines in CONFIG["options.extras_require"].values()
    for line in lines.split("\n")
    if line and line[0] != "#"
]


# A module's name at the start of a line, alone or before its description.
MAP_LINE = r"^ {0,4}([a-z_]+)(?:$| +(?=\S))"


# The supported versions of Python, and those of Debian 12 and 13. A marker may depend on the last number.
PYTHONS = ("3.11.0", "3.11.2", "3.11.14", "3.12.12", "3.13.5", "3.14.0")
LOCKS = ("requirements.txt", "requirements-serve.txt", "requirements-dev.txt")
# pip and setuptools are installed by venv, or not at all.
UNLOCKED = {"pip", "setuptools"}


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


@pytest.mark.parametrize("lock", LOCKS)
def test_each_locked_version_is_within_its_range(lock: str) -> None:
    pins = locked(lock)
    for requirement in RANGES:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_development_lock_has_the_extras_and_the_production_lock() -> None:
    development = locked("requirements-dev.txt")
    assert locked("requirements.txt").items() < locked("requirements-serve.txt").items() < development.items()
    for requirement in EXTRAS:
        if requirement.name != CONFIG["metadata"]["name"]:
            assert requirement.specifier.contains(development[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_has_all_dependencies_for_each_python(lock: str, python: str) -> None:
    """Every requirement of a locked package is locked as well."""
    pins = locked(lock)
    environment = {"extra": "", "python_full_version": python, "python_version": python.rpartition(".")[0]}
    for name in pins:
        for need in map(Requirement, metadata.requires(name) or ()):
            if (need.marker is None or need.marker.evaluate(environment)) and need.name not in UNLOCKED:
                assert need.specifier.contains(pins[canonicalize_name(need.name)]), f"{name} needs {need}"


@pytest.mark.parametrize("lock", LOCKS)
def test_each_locked_package_has_hashes(lock: str) -> None:
    """With one hash in the file, pip insists on all."""
    entries = re.findall(r"^\S+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", (ROOT / lock).read_text(), re.MULTILINE)
    assert len(entries) == len(locked(lock))


def test_installed_versions_are_the_locked_versions() -> None:
    assert {name: metadata.version(name) for name in locked("requirements-dev.txt")} == locked("requirements-dev.txt")


def test_packages_of_the_customer_are_required() -> None:
    names = {canonicalize_name(requirement.name) for requirement in RANGES + EXTRAS}
    assert {"connexion", "flask", "swagger-ui-bundle", "pyjwt", "redis", "pytest"} <= names


def test_redis_plan_of_the_platform_persists() -> None:
    """The plan "mini" loses everything at a restart."""
    assert json.loads((ROOT / "app.json").read_text())["addons"] == [{"plan": "heroku-redis:premium-0"}]


@pytest.mark.parametrize(
    "package", [path for path in FILES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_map_of_a_package_names_exactly_its_modules(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
    block = max(docstring.split("\n\n"), key=lambda lines: len(re.findall(MAP_LINE, lines, re.MULTILINE)))
    there = {path.stem for path in package.parent.glob("*.py")} - {"__init__", "__main__"}
    there |= {path.parent.name for path in package.parent.glob("*/__init__.py")}
    assert set(re.findall(MAP_LINE, block, re.MULTILINE)) == there


def test_imports_have_no_effect_except_asgi() -> None:
    """The import of all other modules reads no environment variable and starts no thread."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FILES
        if path.name not in {"asgi.py", "__init__.py"}
    )
    code = (
        f"import importlib, threading\nfor name in {modules!r}: importlib.import_module(name)\n"
        "assert threading.active_count() == 1"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_test_that_a_document_names_exists() -> None:
    documents = [path for path in (ROOT / "docs").rglob("*.md") if "node_modules" not in path.parts]
    named = {name for path in documents for name in re.findall(r"`(test_\w+)`", path.read_text())}
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 50
    assert named <= written


def test_image_has_a_tested_python_and_another_user_than_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    python = (ROOT / ".python-version").read_text().strip()
    tested = re.findall(r"py3(\d+)", (ROOT / "tox.ini").read_text())
    assert python in {f"3.{minor}" for minor in tested}
    assert [line for line in lines if line.startswith(("ARG", "FROM"))] == [
        f"ARG BASE=python:{python}-slim", "FROM ${BASE} AS build", "FROM ${BASE}",
    ]  # fmt: skip
    assert re.fullmatch(r"USER [1-9]\d*", [line for line in lines if line.startswith("USER")][-1])
    assert lines[-1] == 'CMD ["python", "-m", "app.server"]'


def test_newest_release_in_the_changelog_has_the_version() -> None:
    headings = re.findall("^## (.+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    heading = rf"{re.escape(VERSION)} \N{{EN DASH}} \d{{4}}-\d\d-\d\d"
    advice = (
        f"Replace '## Unreleased' in CHANGELOG.md by '## {VERSION} \N{EN DASH} YYYY-MM-DD', "
        f"or set VERSION in app/version.py to the version of '## {newest}'"
    )
    assert re.fullmatch(heading, newest), advice


def test_image_label_has_the_version() -> None:
    (label,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("LABEL")]
    assert label == f"LABEL org.opencontainers.image.version={VERSION}"


def test_documented_image_tags_have_the_version() -> None:
    for name in ("docs/how-to/releases.md", "docs/deploy/kubernetes.yaml"):
        tags = re.findall(r"external-oms-config:(\d\S*)", (ROOT / name).read_text())
        assert (name, set(tags)) == (name, {VERSION})


def test_image_copies_exactly_the_files_that_are_sent() -> None:
    copied = re.findall(r"^COPY (?!--)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sent = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(sent)
    assert all((ROOT / name).exists() for name in copied)


def test_health_check_of_the_image_reads_the_port_as_the_server(service: Service) -> None:
    """An empty PORT means 8000. Another program may use that port here, so only the parsing is tested."""
    (line,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("HEALTHCHECK")]
    _python, *arguments = json.loads(line.partition(" CMD ")[2])

    def check(port: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments], env={"PORT": port}, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip

    assert check(str(service.port)).returncode == 0
    assert "ValueError" not in check("").stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip has installed the packages."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("app", "external_oms_config"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("openapi.yaml", "pyproject.toml", "setup.cfg", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", target, source], timeout=5 * PATIENCE, check=True)
    return target


def test_installed_package_serves_the_contract_in_any_directory(
    installed: Path, tmp_path: Path, redis_url: str, tenant: str
) -> None:
    assert (installed / "app" / "openapi.yaml").read_bytes() == CONTRACT_FILE.read_bytes()
    assert (installed / f"external_oms_config-{VERSION}.dist-info").is_dir()
    command = ("env", "--chdir", str(tmp_path), *WEB)
    with Service(tmp_path / "log", redis_url, command=command, PYTHONPATH=str(installed)) as service:
        assert service.client(make_token(tenant)).get().status == 200
        assert service.client(None).request("GET", "/openapi.yaml").content == CONTRACT_FILE.read_bytes()


def test_installed_client_is_typed_and_works_next_to_another_app(installed: Path, tmp_path: Path) -> None:
    """Many programs have a module or package `app`."""
    (tmp_path / "app.py").write_text("MINE = True\n")
    program = "from app import MINE\nfrom external_oms_config import Client\n\nassert MINE\n"
    (tmp_path / "program.py").write_text(f'{program}found: bool = Client("http://a", "b").get().enabled\n')
    (tmp_path / "wrong.py").write_text(f'{program}found: str = Client("http://a", "b").get().enabled\n')

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True,
            text=True, timeout=5 * PATIENCE, check=False,
        )  # fmt: skip

    imported = run("-c", program + "import external_oms_config; print(external_oms_config.__file__)")
    assert (imported.stdout, imported.stderr) == (f"{installed}/external_oms_config/__init__.py\n", "")
    checked = run("-m", "mypy", "--strict", "--config-file=", "program.py", "wrong.py")
    assert re.fullmatch(r"wrong\.py:5: .+\[assignment\]\nFound 1 error in 1 file .+\n", checked.stdout)


def test_repository_has_one_copy_of_the_contract() -> None:
    """The package has a link to it."""
    assert (ROOT / "app" / "openapi.yaml").readlink() == Path("../openapi.yaml")
    assert not CONTRACT_FILE.is_symlink()


def test_git_ignores_a_file_of_secrets() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
