"""The log: as text and as JSON, a line for each request, and never what was asked or answered."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import APIStatusError

from backstop_process import BackstopProcess, eventually
from conftest import sdk
from requests_made import chat

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SECRET = "xyzzy-plugh"
OF_EVERY_LINE = {"timestamp", "level", "message", "target"}


def lines(server: BackstopProcess) -> list[dict[str, Any]]:
    """All whole lines of a log of JSON, each of which must be an object."""
    text = server.log()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def answered(server: BackstopProcess, request_id: str) -> dict[str, Any]:
    """The one line about a request, which is written when its answer has ended."""

    def found() -> list[dict[str, Any]]:
        about = [line for line in lines(server) if line.get("request_id") == request_id]
        return [line for line in about if line["message"] == "answered"]

    eventually(lambda: bool(found()))
    assert len(found()) == 1
    return found()[0]


def names(request_id: str) -> dict[str, dict[str, str]]:
    return {"extra_headers": {"x-request-id": request_id, "traceparent": TRACEPARENT}}


@pytest.fixture
def logging_server(start: Callable[..., BackstopProcess]) -> BackstopProcess:
    return start("--log-format", "json").wait_until_ready()


def test_every_line_is_an_object_and_nothing_in_them_was_asked(logging_server: BackstopProcess) -> None:
    server = logging_server
    with sdk(server) as client:
        body = chat(SECRET, max_tokens=4)
        whole = client.chat.completions.create(**body, **names("whole-1"))
        list(client.chat.completions.create(**body, stream=True, **names("streamed-1")))
    told = answered(server, "whole-1")
    assert OF_EVERY_LINE < set(told)
    assert (told["level"], told["method"], told["route"]) == ("INFO", "POST", "/v1/chat/completions")
    assert (told["status"], told["trace_id"], told["client"].split(":")[0]) == (200, TRACE, "127.0.0.1")
    assert told["prompt_tokens"] == whole.usage.prompt_tokens
    assert told["completion_tokens"] == whole.usage.completion_tokens == 4
    assert told["finish_reason"] == "length" and "error" not in told and "aborted" not in told
    assert 0 <= told["queue_s"] <= told["first_token_s"] <= told["duration_s"]
    streamed = answered(server, "streamed-1")
    assert (streamed["completion_tokens"], streamed["finish_reason"]) == (4, "length")
    assert streamed["cached_tokens"] > 0
    server.stop()
    for line in lines(server):
        assert OF_EVERY_LINE <= set(line)
    assert SECRET not in server.log()


def test_what_fails_says_how(logging_server: BackstopProcess) -> None:
    server = logging_server
    with sdk(server) as client:
        with pytest.raises(APIStatusError):
            client.chat.completions.create(**chat(temperature=9), **names("refused-1"))
        gone = client.chat.completions.create(
            **chat(max_tokens=4000, stream=True), **names("gone-1"), extra_body={"ignore_eos": True}
        )
        next(iter(gone))
        gone.close()
    refused = answered(server, "refused-1")
    assert (refused["status"], refused["error"]) == (400, "invalid_value")
    assert "finish_reason" not in refused and "completion_tokens" not in refused
    gone_line = answered(server, "gone-1")
    assert (gone_line["status"], gone_line["aborted"], gone_line["finish_reason"]) == (200, True, "abort")


def test_ids_that_could_forge_lines_are_made_harmless(logging_server: BackstopProcess) -> None:
    given = 'id" level=ERROR ' + "x" * 500
    answer = httpx.get(f"{logging_server.base_url}/models", headers={"x-request-id": given})
    echoed = answer.headers["x-request-id"]
    assert len(echoed) == 128 and echoed.startswith("idlevelERRORxxx")


def test_the_usual_log_has_a_line_for_each_request_to_a_model_and_none_for_probes(
    start: Callable[..., BackstopProcess],
) -> None:
    server = start().wait_until_ready()
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4), **names("text-1"))
    eventually(lambda: 'request_id="text-1"' in server.log())
    [line] = [line for line in server.log().splitlines() if "answered" in line]
    assert " INFO " in line and 'route="/v1/chat/completions" status=200' in line
    assert "/ready" not in server.log() and "/metrics" not in server.log()


@pytest.mark.parametrize("flag", ["--disable-access-log", "--disable-uvicorn-access-log", "--log-level=warn"])
def test_lines_about_requests_can_be_left_out(start: Callable[..., BackstopProcess], flag: str) -> None:
    server = start(flag).wait_until_ready()
    with sdk(server) as client:
        client.chat.completions.create(**chat(max_tokens=4), **names("quiet-1"))
    server.stop()
    assert "quiet-1" not in server.log()
    assert ("listening on" in server.log()) == (flag != "--log-level=warn")


def test_levels_that_do_not_exist_are_refused(start: Callable[..., BackstopProcess]) -> None:
    server = start("--log-level", "verbose")
    assert server.wait() == 2
    assert '"verbose" is neither error, warn, info, debug nor trace' in server.log()


def test_a_log_of_json_says_why_the_start_failed(start: Callable[..., BackstopProcess]) -> None:
    server = start("--log-format", "json", model="no-such-model")
    assert server.wait() == 1
    assert lines(server)[-1]["level"] == "ERROR"
