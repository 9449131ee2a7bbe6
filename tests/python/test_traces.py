"""Traces in OpenTelemetry's form: what a collector gets, and that a broken one costs nobody anything."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from backstop_process import BackstopProcess, eventually, free_port
from conftest import sdk
from requests_made import chat, completion

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "xyzzy-plugh"


class Collector:
    """Takes what is exported to it over HTTP."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        # Statuses that come before 200.
        self.failures: list[int] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.failures.pop(0) if collector.failures else 200
                if status == 200:
                    about = {"path": self.path, "type": self.headers["content-type"]}
                    collector.requests.append({**about, "body": json.loads(body)})
                answer = b"{}"
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def spans(self) -> list[dict[str, Any]]:
        """All spans, each with its attributes as a dictionary."""
        spans = []
        for request in self.requests:
            for resource in request["body"]["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        spans.append({**span, "attributes": attributes(span["attributes"])})
        return spans


def attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    def plain(value: dict[str, Any]) -> Any:
        [(kind, value)] = value.items()
        if kind == "intValue":
            return int(value)
        if kind == "arrayValue":
            return [plain(one) for one in value["values"]]
        return value

    assert len({pair["key"] for pair in pairs}) == len(pairs)
    return {pair["key"]: plain(pair["value"]) for pair in pairs}


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


def spans_by_outcome(server: BackstopProcess) -> dict[str, float]:
    lines = httpx.get(f"{server.root}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("backstop:trace_spans_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_a_collector_gets_a_span_for_each_request_to_a_model(
    start: Callable[..., BackstopProcess], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "last-link")
    server = start("--otlp-traces-endpoint", collector.url).wait_until_ready()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced-1"}
    with sdk(server) as client:
        answer = client.chat.completions.create(**chat(SECRET, max_tokens=4), extra_headers=headers)
        list(client.completions.create(**completion(max_tokens=3), stream=True))
        with pytest.raises(APIStatusError):
            client.chat.completions.create(**chat(temperature=9))
    eventually(lambda: len(collector.spans()) == 3)
    first, second, third = sorted(collector.spans(), key=lambda span: int(span["startTimeUnixNano"]))
    told = first["attributes"]
    assert (first["traceId"], first["parentSpanId"]) == (TRACE, PARENT)
    model = told[gen_ai_attributes.GEN_AI_RESPONSE_MODEL]
    assert answer.model and model and first["name"] == f"chat {model}"
    assert told[gen_ai_attributes.GEN_AI_OPERATION_NAME] == gen_ai_attributes.GenAiOperationNameValues.CHAT.value
    assert told[gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS] == answer.usage.prompt_tokens
    assert told[gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS] == 4
    assert told[gen_ai_attributes.GEN_AI_RESPONSE_FINISH_REASONS] == ["length"]
    assert (told["gen_ai.request.id"], told["http.route"]) == ("traced-1", "/v1/chat/completions")
    took = (int(first["endTimeUnixNano"]) - int(first["startTimeUnixNano"])) / 1e9
    assert took == pytest.approx(told["gen_ai.latency.e2e"], abs=1e-6)
    assert 0 <= told["gen_ai.latency.time_in_queue"] <= told["gen_ai.latency.time_to_first_token"] <= took
    assert second["name"] == f"text_completion {model}" and "parentSpanId" not in second
    assert second["attributes"]["gen_ai.usage.completion_tokens"] == 3
    assert third["attributes"]["http.response.status_code"] == 400
    assert third["attributes"]["error.type"] == "invalid_value" and "status" not in third
    assert {(request["path"], request["type"]) for request in collector.requests} == {
        ("/v1/traces", "application/json")
    }
    resource = collector.requests[0]["body"]["resourceSpans"][0]["resource"]
    assert attributes(resource["attributes"])["service.name"] == "last-link"
    assert SECRET not in json.dumps(collector.requests)
    assert spans_by_outcome(server) == {"exported": 3, "dropped": 0}


def test_another_process_connects_and_ends_behind_the_server(
    start: Callable[..., BackstopProcess], collector: Collector
) -> None:
    server = start("--otlp-traces-endpoint", collector.url).wait_until_ready()
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in server.children()}
    [exporter] = [child for child, command in commands.items() if b"trace-exporter" in command]
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    # The last span is on its way when the server ends.
    server.stop()
    eventually(lambda: len(collector.spans()) == 1)
    eventually(lambda: not Path(f"/proc/{exporter}").exists())


def test_who_makes_a_request_decides_whether_it_is_recorded(
    start: Callable[..., BackstopProcess], collector: Collector
) -> None:
    server = start("--otlp-traces-endpoint", collector.url, "--otlp-traces-sample-ratio", "0").wait_until_ready()
    with sdk(server) as client:
        for flags in ("00", "01"):
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", "x-request-id": f"flags-{flags}"}
            client.chat.completions.create(**chat(max_tokens=4), extra_headers=headers)
        client.chat.completions.create(**chat(max_tokens=4))
    server.stop()
    assert [span["attributes"]["gen_ai.request.id"] for span in collector.spans()] == ["flags-01"]


def test_a_collector_that_is_busy_is_asked_again(start: Callable[..., BackstopProcess], collector: Collector) -> None:
    collector.failures = [503, 429]
    server = start("--otlp-traces-endpoint", f"{collector.url}/elsewhere").wait_until_ready()
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    eventually(lambda: len(collector.spans()) == 1)
    assert collector.requests[0]["path"] == "/elsewhere"
    eventually(lambda: spans_by_outcome(server) == {"exported": 1, "dropped": 0})


def test_without_a_collector_requests_are_answered_and_losses_counted(start: Callable[..., BackstopProcess]) -> None:
    port = free_port()
    server = start("--otlp-traces-endpoint", f"http://localhost:{port}").wait_until_ready()
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4))
        eventually(lambda: spans_by_outcome(server)["dropped"] == 1)
        assert "traces are lost: http://localhost:" in server.log()
        collector = Collector(port)
        try:
            client.chat.completions.create(**chat(max_tokens=4))
            eventually(lambda: len(collector.spans()) == 1)
        finally:
            collector.stop()
    eventually(lambda: "traces are exported again" in server.log())


def test_a_collector_that_does_not_exist_is_no_reason_not_to_start(start: Callable[..., BackstopProcess]) -> None:
    server = start("--otlp-traces-endpoint", "http://collector.invalid:4318").wait_until_ready()
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    eventually(lambda: "no traces are exported: there is no collector.invalid" in server.log())
    eventually(lambda: spans_by_outcome(server) == {"exported": 0, "dropped": 1})


def test_addresses_that_cannot_be_are_refused(start: Callable[..., BackstopProcess]) -> None:
    server = start("--otlp-traces-endpoint", "https://collector:4318")
    assert server.wait() == 2
    assert "expected http://HOST:PORT" in server.log()
