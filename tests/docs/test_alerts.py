"""The alerts and the dashboard ask for what the service tells."""

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

PROMETHEUS_OWN = {"job", "instance"}  # labels that it adds to each number
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
def told(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> dict[str, set[str]]:
    """The names that a service tells, each with its labels, once it was asked for anything."""
    with Service(tmp_path_factory.mktemp("told") / "log", redis_url, METRICS_TOKEN=TOKEN) as service:
        service.client(make_token("told")).get()
        names: dict[str, set[str]] = {}
        for name, labels in scrape(service):
            names.setdefault(name, set()).update(label for label, _ in labels)
        return names


@pytest.mark.parametrize("expression", [*alerts(), *dashboard()])
def test_each_name_and_label_that_is_asked_for_is_told(told: dict[str, set[str]], expression: str) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    for name, matchers in selectors:
        if name != "up":
            assert set(re.findall(r"(\w+)[=!]~?", matchers)) <= told[name] | PROMETHEUS_OWN
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert grouped <= set.union(*(told.get(name, set()) for name, _ in selectors)) | PROMETHEUS_OWN


def test_each_number_is_shown_on_the_dashboard(told: dict[str, set[str]]) -> None:
    shown = {
        re.sub("_(bucket|count)$", "", name) for expression in dashboard() for name, _ in SELECTOR.findall(expression)
    }
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in told} <= shown


def test_the_picture_of_the_dashboard_is_there() -> None:
    assert (ROOT / "docs" / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def test_each_alert_fires_when_it_is_to_and_only_then() -> None:
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
