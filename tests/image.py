"""The image, built from the Dockerfile and run: `tox -e image`.

Needs root, and Debian's packages podman, runc and debootstrap. If no registry can be reached, the base is made of
Debian's packages, with the layout of the official image.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.version import VERSION
from tests.processes import ROOT, SECRET, make_token, reserve_port
from tests.waiting import eventually

DEBIAN_BASE = "localhost/external-oms-config-base"
IMAGE = "localhost/external-oms-config:test"
# Debian's libraries, and in /usr/local a Python with pip and setuptools.
DEBIAN_PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
TOKEN = "a-token-for-metrics"
# The defaults of podman exceed what a machine may allow.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512")

PRINT_STALE = """
import importlib.util, os, pathlib, sys
for root in sys.argv[1:]:
    for source in pathlib.Path(root).rglob("*.py"):
        if "test" in source.parts or "tests" in source.parts or source.parts[-2] == "templates":
            continue
        compiled = pathlib.Path(importlib.util.cache_from_source(source))
        if not compiled.exists() or compiled.read_bytes()[4:8] != bytes([1, 0, 0, 0]):
            print(source)
"""


def podman(*arguments: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
    command = ["podman", "--runtime", "runc", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done


def base(temporary: Path) -> str:
    """Return the base image that the Dockerfile names, or one of Debian's packages."""
    (official,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if podman("pull", f"docker.io/library/{official}", check=False).returncode == 0:
        return f"docker.io/library/{official}"
    if podman("image", "exists", DEBIAN_BASE, check=False).returncode:
        root = temporary / "base"
        debootstrap = ["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", "bookworm", str(root)]
        subprocess.run(debootstrap, stdout=subprocess.DEVNULL, timeout=900, check=True)
        archive = temporary / "base.tar"
        make_venv = ["chroot", str(root), "python3", "-m", "venv", "/usr/local"]
        make_archive = ["tar", "--create", "--file", str(archive), "--directory", str(root), "."]
        for command in (make_venv, make_archive):
            subprocess.run(command, timeout=300, check=True)
        podman("import", archive, DEBIAN_BASE)
    return DEBIAN_BASE


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    podman(
        "build", "--format", "docker", "--network", "host", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro",
        "--build-arg", f"BASE={base(tmp_path_factory.mktemp('image'))}", *LIMITS, "--tag", IMAGE, ".",
    )  # fmt: skip
    yield IMAGE
    podman("rmi", IMAGE)


def run(image: str, *command: str) -> str:
    return podman("run", "--rm", "--network", "none", *LIMITS, image, *command).stdout


class Container:
    """A running container. It cannot write to its root."""

    def __init__(self, image: str, *options: str, **environment: str) -> None:
        variables = [option for name, value in environment.items() for option in ("--env", f"{name}={value}")]
        self._options = ("--read-only", "--read-only-tmpfs=false", *LIMITS, *options, *variables, image)

    def __enter__(self) -> "Container":
        self._id = podman("run", "--detach", *self._options).stdout.strip()
        return self

    def __exit__(self, *_error: object) -> None:
        podman("rm", "--force", self._id)

    def is_healthy(self) -> bool:
        return podman("healthcheck", "run", self._id, check=False).returncode == 0

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM to the process 1, and SIGKILL after 15 s. Return its exit status, and its log."""
        podman("stop", "--time", "15", self._id)
        status = int(podman("wait", self._id).stdout)
        return status, podman("logs", self._id).stderr


def test_user_is_not_root_and_cannot_write_the_service(image: str) -> None:
    assert run(image, "id", "-u") == "10001\n"
    assert run(image, "find", "/service", "/venv", "-writable", "-not", "-type", "l") == ""


def test_image_has_the_version_as_its_label(image: str) -> None:
    (inspected,) = json.loads(podman("image", "inspect", image).stdout)
    assert inspected["Labels"]["org.opencontainers.image.version"] == VERSION


def test_image_has_no_installer(image: str) -> None:
    names = ("-name", "pip-*.dist-info", "-o", "-name", "setuptools-*.dist-info", "-o", "-path", "*/bin/pip*")
    assert run(image, "find", "/usr/local", "/venv", *names) == ""


def test_byte_code_is_complete_and_never_compared_with_the_times_of_files(image: str) -> None:
    standard_library = run(image, "python", "-c", "import os; print(os.path.dirname(os.__file__))").strip()
    assert run(image, "python", "-c", PRINT_STALE, "/service", "/venv", standard_library) == ""


def test_health_check_reads_an_empty_port_as_the_server(image: str) -> None:
    own = {"PORT": "", "REDIS_URL": "redis://localhost", "JWT_SECRET": SECRET}
    with Container(image, "--network", "none", **own) as container:
        assert eventually(container.is_healthy)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("own", [{}, {"METRICS_TOKEN": TOKEN}], ids=["plain", "metrics"])
def test_container_with_a_read_only_root_serves_and_stops_on_sigterm(
    image: str, redis_url: str, tenant: str, workers: str, own: dict[str, str]
) -> None:
    port = reserve_port()
    own = own | {"PORT": str(port), "REDIS_URL": redis_url, "JWT_SECRET": SECRET, "WEB_CONCURRENCY": workers}
    with Container(image, "--network", "host", **own) as container:
        assert eventually(container.is_healthy)
        headers = {"Authorization": f"Bearer {make_token(tenant)}"}
        address = f"http://127.0.0.1:{port}/v0/config/sales_order/external_oms"
        assert httpx.get(address, headers=headers, trust_env=False).json() == {"enabled": False}
        status, log = container.stop()
    assert status == 0
    assert log.count("Finished server process") == int(workers)
    assert "Traceback" not in log


def test_size(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the size, and that of the service and its packages. Debian's base is larger than the official one."""
    (inspected,) = json.loads(podman("image", "inspect", image).stdout)
    own = sum(int(line.split()[0]) for line in run(image, "du", "-sk", "/venv", "/service").splitlines())
    with capsys.disabled():
        print(f"\nimage: {inspected['Size'] / 1e6:.0f} MB; /venv and /service: {own / 1e3:.0f} MB")  # noqa: T201
    assert own < 150_000
