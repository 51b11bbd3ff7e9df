"""The alerts and the dashboard use only metrics that the service exposes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.processes import ROOT, Service, make_token, skip_locally
from tests.waiting import PATIENCE
from tests.web.middleware.test_request_metrics import TOKEN, scrape

PROMETHEUS_LABELS = {"job", "instance"}  # labels that Prometheus adds to every sample
SELECTOR = re.compile(r"([a-z_:]+)\{([^}]*)\}")


def alerts() -> Iterator[str]:
    document = yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def dashboard() -> Iterator[str]:
    for panel in json.loads((ROOT / "docs" / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> dict[str, set[str]]:
    """The metrics that a service exposes after one request, each with its labels."""
    with Service(tmp_path_factory.mktemp("exposed") / "log", redis_url, METRICS_TOKEN=TOKEN) as service:
        service.client(make_token("exposed")).get()
        names: dict[str, set[str]] = {}
        for name, labels in scrape(service):
            names.setdefault(name, set()).update(label for label, _ in labels)
        return names


@pytest.mark.parametrize("expression", [*alerts(), *dashboard()])
def test_each_queried_metric_and_label_is_exposed(exposed: dict[str, set[str]], expression: str) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    for name, matchers in selectors:
        if name != "up":
            assert set(re.findall(r"(\w+)[=!]~?", matchers)) <= exposed[name] | PROMETHEUS_LABELS
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert grouped <= set.union(*(exposed.get(name, set()) for name, _ in selectors)) | PROMETHEUS_LABELS


def test_each_metric_is_on_the_dashboard(exposed: dict[str, set[str]]) -> None:
    shown = {
        re.sub("_(bucket|count)$", "", name) for expression in dashboard() for name, _ in SELECTOR.findall(expression)
    }
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in exposed} <= shown


def test_each_alert_fires_only_under_its_condition() -> None:
    cases = (ROOT / "tests" / "docs" / "alerts.yaml").read_text()
    outcomes = {
        (rule["alertname"], bool(rule["exp_alerts"]))
        for case in yaml.safe_load(cases)["tests"]
        for rule in case["alert_rule_test"]
    }
    named = re.findall(r"- alert: (\w+)", (ROOT / "docs" / "alerts.yaml").read_text())
    assert outcomes == {(name, fires) for name in named for fires in (True, False)}
    promtool = shutil.which("promtool")
    if promtool is None:
        skip_locally("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "test", "rules", "alerts.yaml"],
        cwd=ROOT / "tests" / "docs",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
