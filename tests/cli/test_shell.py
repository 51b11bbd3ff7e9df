"""`oms-config` in a shell: development tokens, help, completion and colours."""

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.version import VERSION
from tests.cli.command import COMMAND, FakeServer, answer, failure, http_reply, oms_config
from tests.processes import ROOT, SECRET, Service, clean_environment, make_token
from tests.waiting import PATIENCE

VERBS = {"check", "get", "history", "set", "tenants", "token", "watch"}


def test_signed_token_grants_access(service: Service, tenant: str) -> None:
    url = service.url
    done = oms_config("token", "--tenant", tenant, "--subject", "anna", JWT_SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, f"for the tenant {tenant}, valid for 8 h\n")
    assert oms_config("set", "on", url=url, token=done.stdout).returncode == 0
    assert "  anna  " in oms_config("history", url=url, token=done.stdout).stdout
    signed = answer(oms_config("token", "--tenant", tenant, "--hours", "2", "--json", JWT_SECRET=SECRET))
    assert oms_config("get", url=url, token=signed.pop("token")).returncode == 0
    assert signed == {"tenant": tenant, "subject": "developer", "seconds": 7200}


def test_token_matches_the_settings_of_the_service(tmp_path: Path, redis_url: str, tenant: str) -> None:
    own = {"JWT_AUDIENCE": "oms", "JWT_ISSUER": "https://id.example/{tenant}", "JWT_ALGORITHMS": "HS384"}
    own |= {"JWT_READ_SCOPE": "r", "JWT_WRITE_SCOPE": "w", "JWT_SECRET": "s" * 48}
    with Service(tmp_path / "log", redis_url, **own) as picky:
        token = oms_config("token", "--tenant", tenant, **own).stdout
        assert oms_config("set", "on", url=picky.url, token=token).returncode == 0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with `app/`, in which `bin/serve` has not run."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "app").symlink_to(ROOT / "app")
    return tmp_path / "checkout"


@pytest.mark.parametrize("directory", ["/", "."])
def test_default_signing_secret_is_the_one_of_bin_serve(
    checkout: Path, service: Service, tenant: str, directory: str
) -> None:
    (checkout / ".data").mkdir()
    (checkout / ".data" / "secret").write_text(SECRET)
    done = subprocess.run(
        [*COMMAND, "token", "--tenant", tenant], cwd=checkout / directory,
        env=clean_environment({"PYTHONPATH": str(checkout)}), capture_output=True, text=True, timeout=PATIENCE,
        check=True,
    )  # fmt: skip
    assert oms_config("get", url=service.url, token=done.stdout).returncode == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {},
            "JWT_SECRET is not set, and {checkout}/.data/secret, the secret of bin/serve, cannot be read: No such file",
        ),
        ({"JWT_ISSUER": "https://id.example/{tenant}"}, "cannot sign a token without JWT_SECRET"),
        ({"JWT_JWKS_URL": "https://id.example/keys"}, "cannot sign a token without JWT_SECRET"),
        ({"JWT_SECRET": "hunter2"}, "bad settings: JWT_SECRET must be"),
        ({"JWT_SECRET": SECRET, "JWT_ALGORITHMS": "RS256"}, "bad settings: JWT_ALGORITHMS has RS256"),
    ],
)
def test_no_token_is_signed_without_a_valid_secret(variables: dict[str, str], words: str, checkout: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "token"], cwd="/", env=clean_environment({"PYTHONPATH": str(checkout), **variables}),
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert failure(done, 2).startswith(words.replace("{checkout}", str(checkout)))
    assert "hunter2" not in done.stderr


def test_invalid_tenant_name_is_rejected() -> None:
    done = oms_config("token", "--tenant", "Not One", JWT_SECRET=SECRET)
    assert failure(done, 2).startswith("--tenant must be 1 to 63 of")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_has_help_with_an_example(verb: str) -> None:
    done = oms_config(verb, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"Examples?:\n.*oms-config {verb}", done.stdout)


def test_main_help_names_variables_and_exit_statuses() -> None:
    done = oms_config("--help")
    assert done.returncode == 0
    assert {"OMS_CONFIG_URL", "OMS_CONFIG_TOKEN", "NO_COLOR"} <= set(re.findall(r"[A-Z_]+", done.stdout))
    assert re.findall(r"^    (\d)  ", done.stdout, re.MULTILINE) == ["0", "2", "3", "4", "5"]


def test_command_names_its_version_to_users_and_servers() -> None:
    done = oms_config("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"oms-config {VERSION}\n", "")
    with FakeServer(http_reply("200 OK")) as server:
        oms_config("get", url=server.url, token=make_token("acme"))
    assert f"\r\nUser-Agent: oms-config/{VERSION}\r\n".encode() in server.requests[0]


HEAVY = {"connexion", "flask", "redis", "httpx", "jwt", "cryptography", "asyncio"}


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [(["--help"], HEAVY), (["get"], HEAVY - {"httpx", "asyncio"}), (["watch"], HEAVY - {"httpx", "asyncio"})],
)
def test_a_verb_imports_no_more_than_it_needs(arguments: list[str], absent: set[str]) -> None:
    code = "import sys, app.cli\ntry: app.cli.main()\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=clean_environment({}), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    imported = set(re.findall(r"'([\w.]+)'", done.stderr))
    assert "app.cli.commands" in imported
    assert not absent & imported


def test_the_server_imports_nothing_of_the_command() -> None:
    code = "import sys, app.server, app.factory; assert not {'external_oms_config', 'app.cli'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, env={}, timeout=PATIENCE, check=True)


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def command_path(tmp_path: Path) -> str:
    """A PATH on which the command is `oms-config`."""
    command = tmp_path / "oms-config"
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_bash_completes_verbs_and_values(command_path: str) -> None:
    script = """
        eval "$(_OMS_CONFIG_COMPLETE=bash_source oms-config)"
        complete -p oms-config
        for line in "oms-config " "oms-config set o" "oms-config set on --i"; do
            COMP_WORDS=($line); [ "${line% }" = "$line" ] || COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _oms_config_completion oms-config
            echo "${COMPREPLY[*]}"
        done
    """
    done = subprocess.run(
        [shell("bash"), "--norc", "-c", script], cwd=ROOT, env=clean_environment({"PATH": command_path}),
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    registered, verbs, values, options = done.stdout.splitlines()
    assert registered.endswith("-F _oms_config_completion oms-config")
    assert set(verbs.split()) == VERBS
    assert values == "on off"
    assert options == "--if-version"


def test_zsh_completes_verbs_and_values(command_path: str) -> None:
    """The script replaces `compadd` and `_describe`, with which zsh offers completions, with functions that print."""
    script = """
        autoload -U compinit; compinit -u -d "$HOME/.zcompdump"
        eval "$(_OMS_CONFIG_COMPLETE=zsh_source oms-config)"
        echo "${_comps[oms-config]}"
        compadd() { echo "offered ${@[-1]} ${(P)${@[-1]}}" }
        _describe() { echo "described ${(P)3}" }
        words=(oms-config ""); CURRENT=2; _oms_config_completion
        words=(oms-config set o); CURRENT=3; _oms_config_completion
    """
    home = command_path.split(os.pathsep, maxsplit=1)[0]
    done = subprocess.run(
        [shell("zsh"), "-f", "-c", script], cwd=ROOT, env=clean_environment({"PATH": command_path, "HOME": home}),
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    registered, verbs, values = done.stdout.splitlines()
    assert registered == "_oms_config_completion"
    assert set(re.findall(r"(\w+):", verbs)) >= VERBS
    assert values.split()[-2:] == ["on", "off"]


def at_a_terminal(*arguments: str, **environment: str) -> bytes:
    """Return the output of the command at a terminal, stdout and stderr together."""
    ours, terminal = pty.openpty()
    subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=clean_environment({"TERM": "xterm", **environment}), stdout=terminal,
        stderr=terminal, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux reports the closed other end as an error
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    return shown


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_output_has_colours_only_at_a_terminal(
    service: Service, tenant: str, variables: dict[str, str], *, coloured: bool
) -> None:
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}
    assert (b"\x1b[33moff\x1b[0m" in at_a_terminal("get", **own, **variables)) is coloured
    assert (b"\x1b[31merror\x1b[0m" in at_a_terminal("get", **variables)) is coloured
    piped = oms_config("get", url=own["OMS_CONFIG_URL"], token=own["OMS_CONFIG_TOKEN"], **variables)
    assert "\x1b" not in piped.stdout


def test_the_command_of_the_checkout_works_in_any_directory(service: Service, tenant: str, tmp_path: Path) -> None:
    """The dependencies must be installed; otherwise an error names the command that installs them."""
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "oms-config", tmp_path / "bin")
    (tmp_path / "link").symlink_to(tmp_path / "bin" / "oms-config")
    for package in ("app", "external_oms_config"):
        (tmp_path / package).symlink_to(ROOT / package)
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [tmp_path / "link", "get"], cwd="/", env={**own, "PATH": os.environ["PATH"]}, capture_output=True,
            text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    missing = run()
    assert (missing.returncode, missing.stdout) == (5, "")
    assert missing.stderr == "bin/oms-config: the dependencies are not installed; run bin/serve once to install them\n"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    assert (run().returncode, run().stdout) == (0, f"off (version 0, never set) of tenant {tenant}\n")
