"""The service under `opentelemetry-instrument`, with a collector that speaks OTLP over HTTP: `tox -e otel`."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.contract import PATH, probe
from tests.processes import WEB, Service, clean_environment, make_token, process_of, start_store, suspended
from tests.streams import EVENTS_PATH, EventStream
from tests.waiting import eventually

INSTRUMENT = (str(Path(sys.executable).parent / "opentelemetry-instrument"), *WEB)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Keeps the spans that it receives."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def span(self, name: str, **attributes: object) -> Span:
        """Wait for the only span with this name and these attributes."""

        def found() -> list[Span]:
            wanted = {key.replace("__", "."): value for key, value in attributes.items()}.items()
            return [each for each in self.spans if each.name == name and wanted <= attributes_of(each).items()]

        assert eventually(found), [each.name for each in self.spans]
        (span,) = found()
        return span


def attributes_of(span: Span) -> dict[str, Any]:
    """Return the attributes that are no lists."""
    values = ((each.key, each.value, each.value.WhichOneof("value")) for each in span.attributes)
    return {key: getattr(value, kind) for key, value, kind in values if kind != "array_value"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(params=["", "flask"], scope="module")
def traced(
    request: pytest.FixtureRequest, collector: Collector, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Two workers, with and without OpenTelemetry's instrumentation of Flask."""
    collector.spans.clear()
    own = {"WEB_CONCURRENCY": "2", "LOG_FORMAT": "json", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": request.param}
    log = tmp_path_factory.mktemp("traced") / "log"
    with Service(log, redis_url, command=INSTRUMENT, **own, **collector.environment) as service:
        assert service.has_started(2)
        yield service
    assert "Traceback" not in service.log


def line_of(service: Service, request_id: str, event: str = "request") -> dict[str, Any]:
    def lines() -> list[dict[str, Any]]:
        parsed = map(json.loads, service.log.splitlines())
        return [each for each in parsed if (each["event"], each.get("request_id")) == (event, request_id)]

    assert eventually(lambda: bool(lines()))
    (line,) = lines()
    return line


def test_request_has_a_server_span_and_the_store_a_child(traced: Service, collector: Collector, tenant: str) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": tenant}
    assert traced.client(make_token(tenant)).get(headers=headers).status == 200
    server = collector.span(f"GET {PATH}", external_oms__tenant=tenant)
    assert server.kind == Span.SPAN_KIND_SERVER
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = attributes_of(server)
    assert (attributes["http.route"], attributes["http.response.status_code"]) == (PATH, 200)
    store = [each for each in collector.spans if each.trace_id == server.trace_id and each.name == "store current"]
    assert [attributes_of(each)["external_oms.outcome"] for each in store] == ["ok"]
    above = {each.span_id: each.parent_span_id for each in collector.spans}
    parent = store[0].parent_span_id
    while parent != server.span_id:  # Flask's instrumentation puts a span in between
        parent = above[parent]
    line = line_of(traced, tenant)
    assert (line["trace_id"], line["span_id"]) == (TRACE, server.span_id.hex())


def test_trace_that_starts_here_is_in_the_log(traced: Service, collector: Collector, tenant: str) -> None:
    """It is not the caller's: `traceparent` is malformed. The User-Agent is not UTF-8."""
    headers = {"traceparent": "00-1-1-01", "X-Request-ID": tenant, "User-Agent": b"\xff\\x"}
    answer = traced.client(make_token(tenant)).request("POST", PATH, json={"enabled": True}, headers=headers)
    assert answer.status == 200
    server = collector.span(f"POST {PATH}", external_oms__tenant=tenant)
    for event in ("request", "setting_changed"):
        assert line_of(traced, tenant, event)["trace_id"] == server.trace_id.hex()


def test_unknown_path_has_a_span_without_its_text_as_a_name(traced: Service, collector: Collector, tenant: str) -> None:
    token = make_token(tenant)
    path = f"/{tenant}/{token}"
    assert probe(traced.port, path).status == 404
    span = collector.span("GET", url__path=f"/{tenant}/[token]")
    assert attributes_of(span)["http.response.status_code"] == 404
    assert "http.route" not in attributes_of(span)
    assert probe(traced.port, "/readyz").status == 200
    assert probe(traced.port, "/livez").status == 200
    assert traced.client(None).get(headers={"X-Request-ID": "last"}).status == 401
    collector.span(f"GET {PATH}", http__response__status_code=401)
    assert not [each.name for each in collector.spans if re.search("readyz|livez", str(each))]


def test_event_stream_is_one_span_and_the_feed_has_none(traced: Service, collector: Collector, tenant: str) -> None:
    with EventStream(traced.port, make_token(tenant)) as stream:
        assert stream.event()
        traced.client(make_token(tenant)).change(True)
        assert stream.versions(1) == [1]
    span = collector.span(f"GET {EVENTS_PATH}", external_oms__tenant=tenant)
    assert not [each.name for each in collector.spans if each.trace_id == span.trace_id and "store" in each.name]


def test_failure_marks_both_spans_with_its_cause(collector: Collector, tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data")
    own = {"REDIS_TIMEOUT": "0.3", **collector.environment, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"}
    collector.spans.clear()
    try:
        with Service(tmp_path / "log", f"{store.connection_url}/0", command=INSTRUMENT, **own) as service:
            client = service.client(make_token(tenant))
            assert client.get().status == 200
            with suspended(process_of(store)):
                assert client.get().status == 500
            server = collector.span(f"GET {PATH}", http__response__status_code=500)
            failed = collector.span("store current", external_oms__outcome="error")
    finally:
        store.stop()
    assert server.status.code == failed.status.code == Status.STATUS_CODE_ERROR
    assert server.status.message.startswith("StoreError: the setting could not be read; ")
    assert attributes_of(failed)["error.type"] == "StoreError"


def test_process_without_a_tracer_provider_has_no_tracing() -> None:
    """redis-py imports OpenTelemetry if it is installed."""
    code = (
        "import app.factory, app.tracing, sys;"
        "print('opentelemetry.trace' in sys.modules, app.tracing.tracing_of_process())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=clean_environment({}), capture_output=True, text=True, check=True)
    assert done.stdout == "True None\n"


def test_last_spans_are_exported_when_the_service_stops(
    collector: Collector, redis_url: str, tmp_path: Path, tenant: str
) -> None:
    own = {**collector.environment, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with Service(tmp_path / "log", redis_url, command=INSTRUMENT, **own) as service:
        assert service.client(make_token(tenant)).get().status == 200
    collector.span(f"GET {PATH}", external_oms__tenant=tenant)
