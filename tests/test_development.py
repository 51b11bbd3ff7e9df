"""`bin/serve`, as a newcomer runs it."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, clean_environment, free_port


class Development:
    """`python -m app.development` in a directory of its own."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.out = directory / "out"
        self._directory = directory
        self._environment = clean_environment({"PORT": str(self.port)} | environment)

    def __enter__(self) -> "Development":
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.development"], cwd=self._directory, env=self._environment, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while "Ctrl-C stops it" not in self.said and time.monotonic() < deadline:
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(signal.SIGINT)

    def stop(self, by: signal.Signals) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, by)  # as a terminal does it
        return self.process.wait(20)

    def run_once(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "app.development"], cwd=self._directory, env=self._environment, capture_output=True,
            text=True, timeout=30, check=False,
        )  # fmt: skip

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def curl(self) -> list[str]:
        """The line to paste."""
        (line,) = re.findall(r"^curl .*$", self.said, re.MULTILINE)
        return shlex.split(line)


def paste(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def processes_of(directory: Path) -> list[str]:
    """The command lines that mention what `directory` holds, or work in it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cwd").readlink() == directory or (process / "cwd").readlink() == directory / ".data":
                    found.append((process / "cmdline").read_text())
            except OSError:
                continue
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """What of a checkout the command needs, without its data."""
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "openapi.yaml", tmp_path)
    yield tmp_path
    assert processes_of(tmp_path) == []


def test_the_printed_line_works_and_setting_and_token_outlive_a_restart(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as first:
        assert f"http://127.0.0.1:{first.port}/v0/ui/" in first.said
        curl = first.curl
        assert '{"enabled": false}' in paste(curl)
        assert '{"enabled": true}' in paste([*curl, "--json", '{"enabled": true}'])
    again = Development(checkout, PYTHONPATH=str(checkout))
    with again:
        moved = [argument.replace(f":{first.port}/", f":{again.port}/") for argument in curl]
        assert '{"enabled": true}' in paste(moved)
    for file in (checkout / ".data").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_of_it(checkout: Path, by: signal.Signals) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as running:
        assert len(processes_of(checkout)) == 3
        assert running.stop(by) == 0
        assert "Traceback" not in running.said


def test_two_at_once_in_one_checkout_do_not_meet(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as first:
        second = Development(checkout, PYTHONPATH=str(checkout)).run_once()
        assert second.returncode == 1
        assert second.stderr == f"bin/serve: it runs already in this checkout, as process {first.process.pid}\n"


def test_a_port_in_use_is_one_line(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as first:
        other = checkout / "other"
        other.mkdir()
        done = Development(other, PYTHONPATH=str(checkout), PORT=str(first.port)).run_once()
        assert done.returncode == 1
        assert done.stderr == f"cannot listen on port {first.port} (PORT): Address already in use\n"


def test_data_that_cannot_be_written_are_one_line(checkout: Path) -> None:
    (checkout / ".data").write_text("a file")
    done = Development(checkout, PYTHONPATH=str(checkout)).run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: cannot write .data: File exists\n"


def test_a_bad_setting_is_one_line(checkout: Path) -> None:
    done = Development(checkout, PYTHONPATH=str(checkout), MAX_BODY_BYTES="many").run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: bad settings: MAX_BODY_BYTES takes bytes, 64 to 1048576\n"


def test_what_is_set_is_used(checkout: Path, redis_url: str) -> None:
    """A store and a secret of one's own: nothing is made."""
    with Development(
        checkout, PYTHONPATH=str(checkout), REDIS_URL=redis_url, JWT_SECRET="s" * 32, JWT_AUDIENCE="oms"
    ) as running:
        assert "200 OK" in paste(running.curl)
        assert {file.name for file in (checkout / ".data").iterdir()} == {"lock"}
