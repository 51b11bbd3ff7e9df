"""The examples of docs/consuming.md behave as documented, each in its own process."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from tests.cli.command import FakeServer, http_reply
from tests.contract import Client
from tests.processes import ROOT, Service, WatchedProcess, clean_environment, make_token, reserve_port, skip_locally
from tests.waiting import PATIENCE, eventually

EXAMPLES = ROOT / "docs" / "examples"


class Consumer(WatchedProcess):
    """A running example."""

    def prints(self, *expected: str) -> None:
        """Wait for these lines, and check that they are the next ones. The quotation marks of an ETag do not matter."""
        for line in expected:
            assert self.line().replace('"', "") == line

    def ends(self) -> int:
        """Return its exit status, once it has ended by itself without another line."""
        status = self.wait()
        assert self.is_silent()
        return status


Consume = Callable[[Service, str], Consumer]

followers = pytest.mark.parametrize("example", ["follow.py", "follow.mjs"])
# The class that the Python example imports has these tests in tests/client.
pasted = pytest.mark.parametrize("example", ["follow.mjs"])
setters = pytest.mark.parametrize("example", ["set.py", "set.mjs"])


def interpreter_of(example: str) -> str:
    if not example.endswith(".mjs"):
        return sys.executable
    interpreter = shutil.which("node")
    if interpreter is None:
        skip_locally("node is not installed")
    if not (EXAMPLES / "node_modules").is_dir():
        skip_locally("docs/examples/node_modules is not there: npm ci --prefix docs/examples")
    return interpreter


@pytest.fixture
def consume(example: str, tmp_path: Path) -> Iterator[Consume]:
    """A function that starts the example with a token. The example ends with the test."""
    interpreter = interpreter_of(example)
    with ExitStack() as stack:

        def start(service: Service, token: str) -> Consumer:
            own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": token}
            return stack.enter_context(Consumer([interpreter, str(EXAMPLES / example)], tmp_path / "stderr", **own))

        yield start


@followers
def test_example_prints_the_current_setting_and_each_change(
    consume: Consume, service: Service, tenant: str, client: Client
) -> None:
    consumer = consume(service, make_token(tenant))
    consumer.prints("0 off")
    client.change(True)
    consumer.prints("1 on")
    client.change(False, True)
    consumer.prints("2 off", "3 on")
    assert consumer.errors == ""


@pasted
def test_example_prints_each_change_once_across_restarts(
    consume: Consume, stoppable: Service, tenant: str, client: Client
) -> None:
    client.change(True)
    consumer = consume(stoppable, make_token(tenant))
    consumer.prints("1 on")
    for first in (2, 6):
        stoppable.stop()
        client.change(False, True, False)
        stoppable.start()
        consumer.prints(f"{first} off", f"{first + 1} on", f"{first + 2} off")
        client.change(True)
        consumer.prints(f"{first + 3} on")


@pasted
def test_example_takes_a_reset_as_the_current_setting(
    consume: Consume, stoppable: Service, tenant: str, client: Client, redis_url: str
) -> None:
    """Redis lost all data, so that versions start at 0 again."""
    client.change(True, False, True)
    consumer = consume(stoppable, make_token(tenant))
    consumer.prints("3 on")
    stoppable.stop()
    with redis.Redis.from_url(redis_url) as store:
        store.delete(*store.keys(f"*{{{tenant}}}*"))
    stoppable.start()
    consumer.prints("0 off")
    client.change(True)
    consumer.prints("1 on")


@pasted
def test_example_survives_an_absent_identity_provider(
    example: str, service: Service, tenant: str, client: Client, tmp_path: Path
) -> None:
    """A program that pastes `follow` passes its own function, which fetches tokens over HTTP."""
    text, own = (EXAMPLES / example).read_text(), "async () => (await fetch(process.env.PROVIDER)).text()"
    assert text.count("() => process.env.OMS_CONFIG_TOKEN") == 1
    (tmp_path / example).write_text(text.replace("() => process.env.OMS_CONFIG_TOKEN", own))
    (tmp_path / "node_modules").symlink_to(EXAMPLES / "node_modules")
    port = reserve_port()

    def issuing(**claims: object) -> FakeServer:
        return FakeServer(http_reply("200 OK", "text/plain", make_token(tenant, **claims)), port=port)

    command = [interpreter_of(example), str(tmp_path / example)]
    urls = {"OMS_CONFIG_URL": service.url, "PROVIDER": f"http://127.0.0.1:{port}"}
    with Consumer(command, tmp_path / "stderr", OMS_CONFIG_TOKEN="unused", **urls) as consumer:
        assert eventually(lambda: "reconnecting" in consumer.errors)
        with issuing(exp=int(time.time()) + 10):
            consumer.prints("0 off")
        failed = consumer.errors.count("fetch failed")
        assert eventually(lambda: consumer.errors.count("fetch failed") > failed)  # the token has expired
        client.change(True)
        with issuing():
            consumer.prints("1 on")


@pytest.mark.parametrize("example", ["follow.py", "follow.mjs", "set.py", "set.mjs"])
def test_example_ends_with_a_clear_error_for_a_bad_token(consume: Consume, service: Service) -> None:
    consumer = consume(service, "bad")
    assert consumer.ends() == 1
    assert re.match("rejected: .*401: ", consumer.errors)
    assert consumer.errors.count("\n") == 1  # no traceback


def run_example(example: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [interpreter_of(example), str(EXAMPLES / example)]
    return subprocess.run(
        command, env=clean_environment(environment), input="on\n", capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("example", ["follow.py", "follow.mjs", "set.py", "set.mjs", "flag.py"])
def test_example_names_missing_variables_in_one_line(example: str) -> None:
    done = run_example(example)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "OMS_CONFIG_URL, OMS_CONFIG_TOKEN must be set" in done.stderr
    done = run_example(example, OMS_CONFIG_URL="http://127.0.0.1:1")
    assert "TOKEN must be set" in done.stderr


@pytest.mark.parametrize("example", ["set.py", "set.mjs", "flag.py"])
def test_example_without_the_service_ends_with_one_line(example: str) -> None:
    for url in (f"http://127.0.0.1:{reserve_port()}", "nonsense", "http://[::1"):
        done = run_example(example, OMS_CONFIG_URL=url, OMS_CONFIG_TOKEN=make_token("acme"))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert re.match(
            "failed: |failed, the setting may or may not have been set: |cannot read the flag: ", done.stderr
        )


@setters
def test_example_names_a_proxy_that_removes_the_version(example: str) -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": false}')) as proxy:
        done = run_example(example, OMS_CONFIG_URL=proxy.url, OMS_CONFIG_TOKEN=make_token("acme"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(".*a proxy in front of the service (removes|has removed) .*\n", done.stderr)
    assert len(proxy.requests) == 1


@setters
def test_example_reports_a_response_of_another_server_in_one_line(example: str) -> None:
    with FakeServer(http_reply("200 OK", "text/html", "<html>", ETag='"x"')) as server:
        done = run_example(example, OMS_CONFIG_URL=server.url, OMS_CONFIG_TOKEN=make_token("acme"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("example", ["follow.py", "set.py"])
def test_example_ends_with_one_line_after_ctrl_c(consume: Consume, service: Service, tenant: str) -> None:
    consumer = consume(service, make_token(tenant))
    assert consumer.line().startswith(("0 off", "off "))
    consumer.interrupt()
    assert consumer.ends() == 1
    assert consumer.errors == "interrupted\n"


@pytest.mark.parametrize("example", ["follow.py", "follow.mjs"])
def test_example_ends_with_the_reader_of_its_output(
    example: str, service: Service, tenant: str, client: Client
) -> None:
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}
    process = subprocess.Popen(
        [interpreter_of(example), str(EXAMPLES / example)], env=clean_environment(own), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "0 off\n"
    process.stdout.close()
    client.change(True, False)
    assert process.wait(PATIENCE) == 1
    errors = process.stderr.read()
    process.stderr.close()
    assert errors.count("\n") <= 1


def run_flag_example(service: Service, token: str) -> "subprocess.CompletedProcess[str]":
    environment = clean_environment({"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": token})
    command = [sys.executable, str(EXAMPLES / "flag.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_openfeature_example_prints_the_setting(service: Service, tenant: str, client: Client) -> None:
    assert run_flag_example(service, make_token(tenant) + "\n").stdout == "0 off\n"
    client.change(True)
    assert run_flag_example(service, make_token(tenant)).stdout == "1 on\n"


def test_openfeature_example_prints_no_default_after_an_error(service: Service, tenant: str, client: Client) -> None:
    client.change(True)
    rejected = run_flag_example(service, make_token(tenant, exp=1))
    assert (rejected.returncode, rejected.stdout) == (1, "")
    assert rejected.stderr.splitlines()[-1] == "cannot read the flag: unauthorized"


@followers
def test_example_ends_when_its_token_expires(consume: Consume, service: Service, tenant: str) -> None:
    consumer = consume(service, make_token(tenant, exp=int(time.time()) + 10))
    consumer.prints("0 off")
    assert consumer.ends() == 1
    ended, rejected = consumer.errors.splitlines()
    assert re.fullmatch("the .*stream .*ended; reconnecting", ended)
    assert re.match("rejected: .*401: ", rejected)


@setters
def test_example_sets_what_was_decided_on_the_current_setting(
    consume: Consume, service: Service, tenant: str, client: Client
) -> None:
    consumer = consume(service, make_token(tenant))
    consumer.prints("off 0")
    consumer.write_line("on")
    consumer.prints("set: on 1")
    assert consumer.ends() == 0
    assert client.enabled()
    assert consumer.errors == ""


@setters
def test_example_asks_again_after_a_conflict(consume: Consume, service: Service, tenant: str, client: Client) -> None:
    """The value is the same again after the other writer's changes, but the version is not."""
    consumer = consume(service, make_token(tenant))
    consumer.prints("off 0")
    client.change(True, False)
    consumer.write_line("on")
    consumer.prints("off 2")
    assert [each["version"] for each in client.history()] == [2, 1]
    consumer.write_line("on")
    consumer.prints("set: on 3")
    assert consumer.ends() == 0


@setters
def test_example_sets_nothing_after_five_conflicts(
    consume: Consume, service: Service, tenant: str, client: Client
) -> None:
    consumer = consume(service, make_token(tenant))
    for version in range(5):
        consumer.prints(f"{'on' if version % 2 else 'off'} {version}")
        client.change(version % 2 == 0)
        consumer.write_line("off")
    assert consumer.ends() == 1
    assert re.fullmatch(
        "nothing was set: .*(5 conflicts in a row|409: .* the current version .*is 5\\.)\n", consumer.errors
    )
    assert [each["version"] for each in client.history()] == [5, 4, 3, 2, 1]


@setters
def test_example_sets_nothing_without_a_decision(
    consume: Consume, service: Service, tenant: str, client: Client
) -> None:
    consumer = consume(service, make_token(tenant))
    consumer.prints("off 0")
    consumer.write_line("no")
    assert consumer.ends() == 1
    assert consumer.errors == "nothing was set: expected on or off\n"
    assert client.history() == []
