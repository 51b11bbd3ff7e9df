"""The reference documents name every setting, error, metric, log event and option that the code has, and no other."""

import ast
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.commands import oms_config
from app.errors import RejectionReason
from app.settings import Settings
from app.web.middleware.error_responses import ErrorResponse
from app.web.ofrep import EvaluationCode
from tests.docs.test_docs import DOCUMENTS, code
from tests.processes import ROOT, Service, make_token, reserve_port
from tests.web.middleware.test_request_metrics import TOKEN, scrape

DOCS = ROOT / "docs"
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# Fields of every log line.
COMMON_FIELDS = {"time", "level", "event", "exception"}
# Fields that a function call computes: no literal in the code names them.
COMPUTED_FIELDS = {"request": {"trace_id", "parent_id"}, "listening": {"jwt_keys", "metrics"}}

Row = list[str]


def rows(document: str, heading: str) -> dict[str, Row]:
    """Return the first table below a heading: the other cells of each row by the name in its first cell."""
    lines = (DOCS / document).read_text().split(f"# {heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| "))
    table = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in takewhile(lambda line: line.startswith("|"), lines[first + 2 :])
    ]
    named = {names(cells[0])[0]: cells[1:] for cells in table}
    assert len(named) == len(table)
    return named


def names(cell: str) -> list[str]:
    """Return the spans of code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


def settings() -> dict[str, "dataclasses.Field[Any]"]:
    return {field.metadata["variable"]: field for field in dataclasses.fields(Settings)}


def test_every_setting_is_documented_and_no_other() -> None:
    assert rows("settings.md", "All settings").keys() == settings().keys()


@pytest.mark.parametrize("variable", settings())
def test_the_default_and_the_range_of_a_setting_are_documented(variable: str) -> None:
    _, takes, shown = rows("settings.md", "All settings")[variable]
    field = settings()[variable]
    if field.default is dataclasses.MISSING:
        assert shown == "required"
    elif field.default in {None, ()}:
        assert not re.fullmatch("`[^`]*`", shown)
    else:
        default = str(field.default)
        assert shown == f"`{default.lower() if isinstance(field.default, bool) else default}`"
    if numbers(field.metadata["expected"]) - numbers(takes):
        pytest.fail(f"{variable} takes {field.metadata['takes']}")


def test_settings_are_in_one_table_only() -> None:
    for document in DOCUMENTS:
        if document.name != "settings.md":
            assert not settings().keys() & set(re.findall(r"^\| `([A-Z_]+)`", document.read_text(), re.MULTILINE))


def test_every_error_code_is_documented_and_no_other() -> None:
    codes = {}
    for status in range(400, 600):
        try:
            body = ErrorResponse(status, "").body({"type": "http", "path": "/", "headers": []})
        except KeyError:
            continue
        codes[str(status)] = json.loads(body)["error_code"]
    text = (DOCS / "reference.md").read_text()
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text.split("## Error codes")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(table) == sorted(codes.items())


def test_every_openfeature_error_code_is_documented_and_no_other() -> None:
    assert rows("reference.md", "OpenFeature error codes").keys() == set(EvaluationCode)


def test_every_rejection_reason_is_documented_and_no_other() -> None:
    assert rows("reference.md", "Rejection reasons").keys() == set(RejectionReason)


def test_every_metric_and_label_is_documented_and_no_other(tmp_path: Path, redis_url: str) -> None:
    with Service(tmp_path / "log", redis_url, METRICS_TOKEN=TOKEN) as service:
        service.client(make_token("documented")).get()
        exposed: dict[str, set[str]] = {}
        for sample, labels in scrape(service):
            exposed.setdefault(re.sub("_(bucket|count|sum)$", "", sample), set()).update(label for label, _ in labels)
    documented = {name: set(names(cells[1])) for name, cells in rows("reference.md", "Metrics").items()}
    assert documented == {name: labels - {"le"} for name, labels in exposed.items()}


def test_every_option_of_the_command_is_documented_and_no_other() -> None:
    commands = (oms_config, *oms_config.commands.values())
    options = {option for command in commands for each in command.params for option in each.opts if option[0] == "-"}
    lines = [line for line in code(DOCS / "command.md") if "oms-config" in line or line.startswith("--")]
    documented = {option for line in lines for option in re.findall(r"(?<!\S)--[a-z-]+", line)}
    assert documented - {"--help"} == options


def test_every_finding_of_the_check_is_documented_and_no_other() -> None:
    source = "".join(path.read_text() for path in [*(ROOT / "app").rglob("preflight/*.py"), ROOT / "app/cli/check.py"])
    codes = set(re.findall(r'(?:Finding\("\w+", |_warning\(|_unchecked\()"(\w+)"', source))
    text = (DOCS / "how-to" / "releases.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| (?:error|warning)", text, re.MULTILINE)) == codes


def test_every_alert_has_a_section_in_the_runbook_and_a_row() -> None:
    groups = yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    sections = re.findall(r"^## (ExternalOms\w+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    linked = re.findall(r"^\| \[(\w+)\]", (DOCS / "how-to" / "monitoring.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(linked) == sorted(alerts)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def log_events() -> dict[str, set[str]]:
    """Return the fields of each event that the code logs."""
    events: dict[str, set[str]] = {}
    for path in (ROOT / "app").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, Function))):
            variables = {} if scope is tree else dictionaries(scope)
            for event, extra in log_calls(scope):
                events.setdefault(event, set()).update(field_names(extra, variables))
    return events


def log_calls(scope: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield the event of each record that is logged, and the expression of its fields."""
    for node in ast.walk(scope):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in LOG_METHODS and "log" in ast.unparse(node.func.value).lower():
            extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
            yield from ((event, extra) for event in map(text_of, node.args) if event)
        elif node.func.attr == "makeLogRecord" and not isinstance(scope, ast.Module):
            members = (member for each in dictionaries(scope).values() for member in members_of(each))
            yield from ((event, node.args[0]) for key, value in members if key == "msg" and (event := text_of(value)))


def text_of(node: ast.expr | None) -> str | None:
    """Return the value of a literal string, and None for any other expression."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def dictionaries(scope: ast.AST) -> dict[str, ast.Dict]:
    """Return the literal dictionaries that variables are set to."""
    return {
        target.id: node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def members_of(literal: ast.Dict) -> Iterator[tuple[str, ast.expr]]:
    """Yield the members of a literal dictionary whose keys are literal strings."""
    for key, value in zip(literal.keys, literal.values, strict=True):
        if name := text_of(key):
            yield name, value


def field_names(extra: ast.expr | None, variables: Mapping[str, ast.Dict]) -> set[str]:
    """Return the keys of the dictionaries in an expression, and of those that its variables are set to."""
    nodes = ast.walk(extra) if extra is not None else ()
    literals = (variables.get(node.id) if isinstance(node, ast.Name) else node for node in nodes)
    found = {key for each in literals if isinstance(each, ast.Dict) for key, _ in members_of(each)}
    return found - {"msg", "levelname"}


def test_every_log_event_and_field_is_documented_and_no_other() -> None:
    documented = {event: set(names(cells[1])) for event, cells in event_table().items()}
    logged = {event: fields | COMPUTED_FIELDS.get(event, set()) for event, fields in log_events().items()}
    assert documented == logged


def event_table() -> dict[str, Row]:
    text = (DOCS / "reference.md").read_text()
    section = text.split("\n| event | level |")[1].split("\n\n")[0]
    return {names(line)[0]: [cell.strip() for cell in line.split("|")[2:-1]] for line in section.splitlines()[2:]}


def example_lines(document: str) -> list[dict[str, str]]:
    """Return the fields of each log line in a document."""
    lines = re.findall(r"^ *(time=.+)$", (DOCS / document).read_text(), re.MULTILINE)
    assert lines
    field = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
    return [{name: quoted or plain for name, quoted, plain in field.findall(line)} for line in lines]


def test_every_log_event_has_an_example() -> None:
    assert {line["event"] for line in example_lines("reference.md")} == event_table().keys()


@pytest.mark.parametrize("document", ["reference.md", "runbook.md"])
def test_an_example_line_has_only_documented_fields(document: str) -> None:
    allowed = {event: set(names(cells[1])) for event, cells in event_table().items()}
    allowed["listening"] |= {variable.lower() for variable in settings()}
    for line in example_lines(document):
        assert line.keys() - COMMON_FIELDS <= allowed[line["event"]]
        assert line["level"] in event_table()[line["event"]][0]


def test_the_example_of_a_failed_request_is_what_the_service_logs(tmp_path: Path) -> None:
    port = reserve_port()
    with Service(tmp_path / "log", f"redis://127.0.0.1:{port}") as service:
        request_id = service.client(make_token("acme")).get().headers["x-request-id"]
        assert service.logs(f"request_id={request_id}")
        (logged,) = (line for line in service.log.splitlines() if request_id in line)
    logged = logged.replace(f":{port}", ":6379")
    volatile = r"(time|request_id|duration_ms)=\S+"
    lines = re.findall("^(time=.+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    assert re.sub(volatile, "", logged) in {re.sub(volatile, "", line) for line in lines}
