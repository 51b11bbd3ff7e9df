"""docs/command.md lists exactly the verbs, options, variables and exit statuses of the command."""

import re

import pytest

from app.cli.commands import oms_config
from app.cli.exit_status import STATUSES
from tests.processes import ROOT

REFERENCE = (ROOT / "docs" / "command.md").read_text()
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", REFERENCE, re.MULTILINE))


def first_cells(section: str) -> str:
    """Return the first cell of each row of the section's tables."""
    return "\n".join(re.findall(r"^\| ([^|]+) \|", SECTIONS[section], re.MULTILINE))


@pytest.mark.parametrize("verb", sorted(oms_config.commands))
def test_each_verb_has_its_options_in_the_reference(verb: str) -> None:
    options = {name for each in oms_config.commands[verb].params for name in each.opts if name.startswith("--")}
    assert set(re.findall(r"--[a-z-]+", first_cells(verb))) == options


def test_the_reference_has_each_variable_of_the_help() -> None:
    help_text = oms_config.epilog or ""
    variables = set(re.findall(r"^  ([A-Z_]+) ", help_text, re.MULTILINE))
    assert {"OMS_CONFIG_URL", "OMS_CONFIG_TOKEN"} <= variables
    assert variables <= set(re.findall(r"[A-Z_]+", first_cells("Environment variables")))


def test_the_reference_has_each_exit_status() -> None:
    rows = re.findall(r"^\| (\d) \| (?:`(\w+)`)? ?\|", SECTIONS["Exit status"], re.MULTILINE)
    assert {word: int(status) for status, word in rows if word} == STATUSES
    assert [status for status, _ in rows] == ["0", "1", "2", "3", "4", "5"]
