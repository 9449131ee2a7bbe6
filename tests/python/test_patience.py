"""Clients that put up with little silence, while their request waits behind a long one."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import MODEL_NAME, chat, collect, completion

ONE_PLACE = ("--max-num-seqs", "1", "--queue-timeout", "60s")
MESSAGES = chat()["messages"]
# What no stream exceeds, and for how long the clients of these tests wait.
SILENCE_S = 2
WAIT_S = 2 * SILENCE_S
STREAMS = {
    "/v1/chat/completions": chat(stream=True),
    "/v1/completions": completion(stream=True),
    "/v1/responses": {"model": MODEL_NAME, "input": "Hello", "stream": True, "max_output_tokens": 20},
    "/v1/messages": {"model": MODEL_NAME, "messages": MESSAGES, "stream": True, "max_tokens": 20},
}


def test_no_stream_is_silent_for_two_seconds(start: Callable[..., BackstopProcess]) -> None:
    server = start(*ONE_PLACE).wait_until_ready()

    def read(path: str) -> str:
        return httpx.post(f"{server.root}{path}", json=STREAMS[path], timeout=SILENCE_S).text

    with ThreadPoolExecutor() as threads:
        with server.occupied():
            answers = {path: threads.submit(read, path) for path in STREAMS}
            time.sleep(WAIT_S)
            assert not any(answer.done() for answer in answers.values())
        ends = {path: answer.result(REQUEST_TIMEOUT_S).strip() for path, answer in answers.items()}
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert ends[path].startswith(": keep-alive") and ends[path].endswith("data: [DONE]")
    assert "event: response.incomplete" in ends["/v1/responses"] or "event: response.completed" in ends["/v1/responses"]
    assert ends["/v1/messages"].startswith("event: ping") and "event: message_stop" in ends["/v1/messages"]


def questions(server: BackstopProcess) -> dict[str, Callable[[], Any]]:
    """What the vendors' packages make of each API, streamed and whole, without what is never the same."""
    openai = OpenAI(base_url=server.base_url, api_key="unused", timeout=SILENCE_S, max_retries=0)
    anthropic = Anthropic(base_url=server.root, api_key="unused", timeout=SILENCE_S, max_retries=0)
    responses = {"model": MODEL_NAME, "input": "Hello", "max_output_tokens": 20, "temperature": 0}
    greedy = {"temperature": 0}
    messages: dict[str, Any] = {"model": MODEL_NAME, "messages": MESSAGES, "max_tokens": 20, "extra_body": greedy}

    def message_stream() -> str:
        with anthropic.messages.stream(**messages) as stream:
            return stream.get_final_message().content[0].text

    def response_stream() -> str:
        with openai.responses.stream(**responses) as stream:
            return stream.get_final_response().output_text

    return {
        "chat": lambda: openai.chat.completions.create(**chat()).choices[0].message.content,
        "chat stream": lambda: collect(openai.chat.completions.create(**chat(), stream=True))[0].content,
        "completion": lambda: openai.completions.create(**completion()).choices[0].text,
        "response": lambda: openai.responses.create(**responses).output_text,
        "response stream": response_stream,
        "message": lambda: anthropic.messages.create(**messages).content[0].text,
        "message stream": message_stream,
    }


def test_the_vendors_packages_understand_signs_of_life(start: Callable[..., BackstopProcess]) -> None:
    server = start(*ONE_PLACE, "--response-keep-alive", "500ms").wait_until_ready()
    asked = questions(server)
    expected = {name: ask() for name, ask in asked.items()}
    with ThreadPoolExecutor() as threads:
        with server.occupied():
            answers = {name: threads.submit(ask) for name, ask in asked.items()}
            time.sleep(WAIT_S)
            assert not any(answer.done() for answer in answers.values())
        assert {name: answer.result(REQUEST_TIMEOUT_S) for name, answer in answers.items()} == expected


@pytest.mark.parametrize("path", STREAMS)
def test_an_answer_that_is_ready_in_time_is_as_ever(start: Callable[..., BackstopProcess], path: str) -> None:
    server = start("--response-keep-alive", "30s").wait_until_ready()
    answer = httpx.post(f"{server.root}{path}", json={**STREAMS[path], "stream": False}, timeout=30)
    assert answer.headers["content-length"] == str(len(answer.content))
    refused = httpx.post(f"{server.root}{path}", json={**STREAMS[path], "temperature": "hot"}, timeout=30)
    assert refused.status_code == 400
