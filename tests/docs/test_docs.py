"""The README and docs/ name only files, headings, paths of the service and commands that exist."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.commands import oms_config
from tests.processes import ROOT, Service

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "node_modules" not in path.parts),
]
BASES = {"", "/v0", "/ofrep/v1"}  # addresses that a client is configured with; no request is sent to them alone

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def without_fences(document: Path) -> str:
    """Return the text without fenced blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """Return the text without any code."""
    return re.sub(r"^ {4}.*$|`[^`\n]+`", "", without_fences(document), flags=re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", without_fences(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code(document: Path) -> Iterator[str]:
    """Yield each span and each line of indented code."""
    text = without_fences(document)
    yield from re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))


def arguments_of(command: str) -> list[list[str]]:
    """Return the arguments of each call of `command`, up to the end of the call for a shell. Variables become 1."""
    lines = [re.sub(r'"\$\w+"', "1", line) for document in DOCUMENTS for line in code(document)]
    return [rest.split() for line in lines for rest in re.findall(rf"(?:^|[\s(/]){command} ([^|;&)\"]*)", line)]


@each_document
def test_each_link_leads_to_an_existing_file_and_heading(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    assert links or "](" not in prose(document)
    for link in links:
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def test_each_named_path_of_the_service_exists(tmp_path: Path, redis_url: str) -> None:
    """No path has the method PUT: an existing path answers 405, any other one 404."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    named = set(re.findall(r"http://127\.0\.0\.1:8000(/?[\w./-]*)", text))
    named |= set(re.findall(r"`(?:GET|POST) (/[\w./-]+)`", text))
    assert len(named) > 5
    with Service(tmp_path / "log", redis_url, METRICS_TOKEN="a-token-for-metrics") as service:
        for path in {path.rstrip(".") for path in named} - BASES:
            answer = httpx.put(f"http://127.0.0.1:{service.port}{path}", trust_env=False, timeout=20)
            assert answer.status_code == 405, path


def test_each_named_command_of_the_checkout_exists() -> None:
    named = {
        name
        for document in DOCUMENTS
        for line in code(document)
        for name in re.findall(r"(?:^|[\s(=])(bin/[\w-]+)", line)
    }
    assert {"bin/serve", "bin/test", "bin/oms-config"} <= named
    for name in named:
        assert os.access(ROOT / name, os.X_OK), name


def test_each_named_module_exists() -> None:
    named = {
        name
        for document in DOCUMENTS
        for line in code(document)
        for name in re.findall(r"python -m ((?:app|tests)[\w.]*)", line)
    }
    assert {"app.server", "app.cli", "tests.proof"} <= named
    for name in named:
        assert importlib.util.find_spec(name), name


def test_each_call_of_the_command_is_valid() -> None:
    """Click parses the arguments, and runs nothing."""
    calls = [call for call in arguments_of("oms-config") if call != ["--version"]]  # has no verb
    for verb, *arguments in calls:
        command = oms_config.commands[verb]
        if arguments or not any(parameter.required for parameter in command.params):
            command.make_context(verb, arguments)
    assert {verb for verb, *_ in calls} == set(oms_config.commands)
