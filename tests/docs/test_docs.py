"""What the README and docs/ lead to is there: files, headings, paths of the service, commands."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.commands import oms_config
from tests.processes import ROOT, Service
from tests.waiting import PATIENCE

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BASES = {"", "/v0", "/ofrep/v1"}  # what a client is given as the service's address; nothing is asked of them alone

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """All but blocks of code, and without spans of code."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*$|`[^`\n]+`", "", text, flags=re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The headings, as GitHub names them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code(document: Path) -> Iterator[str]:
    """Each span and each line of indented code; lines that a backslash joins are one."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))


def told_arguments(command: str) -> list[list[str]]:
    """What follows the command, wherever it stands, up to what ends it for a shell. A variable stands for a 1."""
    lines = [re.sub(r'"\$\w+"', "1", line) for document in DOCUMENTS for line in code(document)]
    return [rest.split() for line in lines for rest in re.findall(rf"(?:^|[\s(/]){command} ([^|;&)\"]*)", line)]


@each_document
def test_each_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    assert links or "](" not in prose(document)
    for link in links:
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def test_each_path_of_the_service_that_is_told_is_there(service: Service) -> None:
    """Asked with a method that none has: what is there answers 405, what is not 404."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    told = set(re.findall(r"http://127\.0\.0\.1:8000(/?[\w./-]*)", text))
    told |= set(re.findall(r"`(?:GET|POST) (/[\w./-]+)`", text))
    assert len(told) > 5
    for path in {path.rstrip(".") for path in told} - BASES:
        answer = httpx.put(f"{service.url}{path}", trust_env=False, timeout=PATIENCE)
        assert answer.status_code == 405, path


def test_each_command_of_the_checkout_that_is_told_is_there() -> None:
    told = {
        name
        for document in DOCUMENTS
        for line in code(document)
        for name in re.findall(r"(?:^|[\s(=])(bin/[\w-]+)", line)
    }
    assert {"bin/serve", "bin/test", "bin/oms-config"} <= told
    for name in told:
        assert os.access(ROOT / name, os.X_OK), name


def test_each_module_that_is_to_be_run_is_there() -> None:
    told = {
        name
        for document in DOCUMENTS
        for line in code(document)
        for name in re.findall(r"python -m ((?:app|tests)[\w.]*)", line)
    }
    assert {"app.server", "app.cli", "tests.proof"} <= told
    for name in told:
        assert importlib.util.find_spec(name), name


def test_each_verb_of_the_command_is_told_as_it_takes_it() -> None:
    """`click` itself reads the arguments, and runs nothing."""
    told = told_arguments("oms-config")
    for verb, *arguments in told:
        command = oms_config.commands[verb]
        if arguments or not any(parameter.required for parameter in command.params):
            command.make_context(verb, arguments)
    assert {verb for verb, *_ in told} == set(oms_config.commands)
