"""The portable backend behind the same API: the suites of chats and completions, which know nothing of devices."""

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from backstop_process import BackstopProcess
from conftest import sdk
from requests_made import chat
from test_chat import *  # noqa: F403
from test_completions import *  # noqa: F403


@pytest.fixture(scope="module")
def server() -> Iterator[BackstopProcess]:
    """Computes with candle on the processor."""
    process = BackstopProcess("--device", "candle")
    try:
        yield process.wait_until_ready()
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


def test_what_computes_is_no_secret(server: BackstopProcess) -> None:
    version = httpx.get(f"{server.root}/version").json()
    assert version["device"] == "candle on the CPU"
    assert version["batch_invariant"] is False


def test_answers_follow_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    body = chat("Add 2 and 3.", max_tokens=40)
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(**body)
    assert (answer.choices[0].message.content or "").startswith("{")
