"""The commands in `bin/`, run in a directory with an attacker's files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.waiting import PATIENCE


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose modules have names of ours, of libraries and of Python. An import of one leaves a trace."""
    directory = tmp_path / "hostile"
    trace = f"open({str(tmp_path / 'trace')!r}, 'a').write(__name__)\n"
    for package in ("app", "app/cli", "app/dev", "bench", "external_oms_config"):
        (directory / package).mkdir(parents=True)
        (directory / package / "__init__.py").write_text(trace)
        (directory / package / "__main__.py").write_text(trace)
    for module in ("click", "json", "httpx", "sitecustomize", "usercustomize", "runpy", "subprocess", "venv"):
        (directory / f"{module}.py").write_text(trace)
    return directory


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that uses the dependencies of the tests. Its `bin/install.py` only executes the command."""
    root = tmp_path / "checkout"
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (root / ".venv" / "bin" / "python").chmod(0o755)
    (root / "bin").mkdir()
    for script in ("oms-config", "serve", "setup", "bench"):
        shutil.copy(ROOT / "bin" / script, root / "bin")
    command = "import os, sys\nat = sys.argv.index('--') + 1\nos.execvp(sys.argv[at], sys.argv[at:])\n"
    (root / "bin" / "install.py").write_text(command)
    for name in ("app", "bench", "external_oms_config", "tests", "openapi.yaml"):
        (root / name).symlink_to(ROOT / name)
    return root


PATHS = pytest.mark.parametrize(
    "variables",
    [
        {}, {"PYTHONPATH": ""}, {"PYTHONPATH": ":"}, {"PYTHONPATH": "."}, {"PYTHONPATH": "{hostile}"},
        {"PYTHONPATH": "/nothing:"}, {"PYTHONSAFEPATH": "1"}, {"PYTHONSAFEPATH": "1", "PYTHONPATH": ":{hostile}"},
    ],
    ids=str,
)  # fmt: skip


@PATHS
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("oms-config", "get"), "OMS_CONFIG_URL"),
        (("serve",), "MAX_BODY_BYTES"),
        (("bench", "--help"), "usage: "),
    ],
    ids=["oms-config", "serve", "bench"],
)
def test_command_runs_only_its_own_code_in_a_hostile_directory(
    hostile: Path, checkout: Path, command: Sequence[str], expected: str, variables: Mapping[str, str]
) -> None:
    own = {name: value.format(hostile=hostile) for name, value in variables.items()}
    environment = {"PATH": os.environ["PATH"], "HOME": str(hostile), "PORT": "1", "MAX_BODY_BYTES": "many", **own}
    script, *arguments = command
    done = subprocess.run(
        [checkout / "bin" / script, *arguments], cwd=hostile, env=environment, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert not (hostile.parent / "trace").exists()
    assert expected in done.stdout + done.stderr


def test_tests_of_ctrl_c_pass_in_a_background_job() -> None:
    """A shell without job control ignores SIGINT for its background jobs, and their processes inherit that."""
    test = "tests/cli/test_failures.py::test_ctrl_c_ends_a_write_with_an_unknown_outcome"
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    job = ["sh", "-c", 'trap "" INT; exec "$@"', "job", *pytest_command]
    done = subprocess.run(job, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
