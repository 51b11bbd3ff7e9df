"""The commands and programs of docs/consuming.md, run as they are written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import Client
from tests.processes import ROOT, Service, clean_environment, make_token
from tests.waiting import PATIENCE

GUIDE = (ROOT / "docs" / "consuming.md").read_text()
COMMANDS = re.findall(r"^ {4}(curl -i .+)$", GUIDE, re.MULTILINE)
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def run(command: list[str], service: Service, token: str) -> str:
    """Run a command with the two variables of the guide, and return its output."""
    environment = clean_environment({"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": token})
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout


def test_curl_commands_of_the_guide_have_the_statuses_that_it_names(
    service: Service, client: Client, tenant: str
) -> None:
    answers = [run(["sh", "-c", command], service, make_token(tenant)) for command in COMMANDS]
    assert [int(answer.split()[1]) for answer in answers] == [200, 304, 200, 200, 200]
    read, _, history, changed, flags = answers
    assert {'etag: "0"', f"oms-tenant: {tenant}"} <= set(read.splitlines())
    assert read.endswith('{"enabled": false}')
    assert history.endswith(f'{{"tenant": "{tenant}", "changes": []}}')
    assert 'etag: "1"' in changed.splitlines()
    assert flags.endswith('"metadata": {"version": 1}}')
    again = run(["sh", "-c", COMMANDS[3]], service, make_token(tenant))
    assert again.startswith("HTTP/1.1 409 ")
    assert [change["reason"] for change in client.history()] == ["Go-live"]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "False 0 {tenant}\n"), (1, "True 1\n"), (2, r"platform 0\.\d+\n")]
)
def test_python_programs_of_the_guide_run(
    service: Service, tenant: str, tmp_path: Path, number: int, expected: str
) -> None:
    assert len(PROGRAMS) == 3
    (tmp_path / "program.py").write_text(PROGRAMS[number])
    output = run([sys.executable, str(tmp_path / "program.py")], service, make_token(tenant))
    assert re.fullmatch(expected.format(tenant=tenant), output)
