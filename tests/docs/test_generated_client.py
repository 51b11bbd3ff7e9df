"""A client that openapi-python-client generates from `/client.yaml`, with the example of docs/consuming.md."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import Client
from tests.processes import ROOT, Service, clean_environment, make_token, reserve_port
from tests.waiting import PATIENCE

EXAMPLE = ROOT / "docs" / "examples" / "generated.py"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def generated(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the package of a generated client."""
    folder = tmp_path_factory.mktemp("generated")
    options = ["--url", f"{service.url}/client.yaml", "--meta", "none", "--output-path", str(folder / "external_oms")]
    environment = clean_environment({})
    environment["PATH"] = f"{PROGRAMS}:{environment['PATH']}"  # it formats with ruff
    done = subprocess.run(
        [str(PROGRAMS / "openapi-python-client"), "generate", "--fail-on-warning", *options],
        env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run_example(generated: Path, url: str, token: str) -> "subprocess.CompletedProcess[str]":
    own = {"PYTHONPATH": str(generated), "OMS_CONFIG_URL": url, "OMS_CONFIG_TOKEN": token}
    command = [sys.executable, str(EXAMPLE)]
    return subprocess.run(
        command, env=clean_environment(own), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_generated_client_changes_the_setting_conditionally(
    generated: Path, service: Service, client: Client, tenant: str
) -> None:
    client.change(True)
    done = run_example(generated, service.url, make_token(tenant))
    read, written, conflict = done.stdout.splitlines()
    assert read == 'read: True "1"'
    assert written == 'written: 200 SetExternalOmsConfigurationResponse200(enabled=False, additional_properties={}) "2"'
    assert conflict.startswith(
        "written: 409 SetExternalOmsConfigurationResponse409(error_code='concurrent_update_on_tenant_setting', "
    )
    assert conflict.endswith(' "2"')
    assert (done.returncode, done.stderr) == (0, "")
    assert [change["reason"] for change in client.history()] == ["Café reopens", None]


def test_generated_client_knows_401_and_403(generated: Path, tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, JWT_WRITE_SCOPE="oms.write") as service:
        rejected = run_example(generated, service.url, "bad")
        forbidden = run_example(generated, service.url, make_token(tenant))
    assert rejected.returncode == 1
    assert rejected.stderr.startswith("rejected: 401 ErrorBody(error_code='unauthorized', ")
    assert forbidden.stdout.count("written: 403 ErrorBody(error_code='forbidden', ") == 2


def test_example_without_the_service_ends_with_one_line(generated: Path) -> None:
    done = run_example(generated, f"http://127.0.0.1:{reserve_port()}", "x")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
