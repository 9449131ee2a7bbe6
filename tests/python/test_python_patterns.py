"""The Python patterns of scripts/gateways, run as they are, with a primary that is dead or breaks off."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Literal

import pytest
import requests

from backstop_process import REPOSITORY, BackstopProcess
from fake_primary import CUT_TEXT, FakePrimary
from requests_made import WEATHER_TOOL

PATTERNS = REPOSITORY / "scripts/gateways/python"
# Nothing listens there.
DEAD = "http://127.0.0.1:9/v1"
FAULTS = ["refused", "status-401", "status-429", "status-503", "context", "hang", "cut-before"]
HELLO = [{"role": "user", "content": "Write a function that adds two numbers."}]
# The silence that the impatient gateway puts up with, and how often it hears something.
SILENCE_S = 1
ONE_PLACE = ("--max-num-seqs", "1")
IMPATIENT = (*ONE_PLACE, "--response-keep-alive", "200ms", "--queue-timeout", "60s")
GREEDY = {"temperature": 0, "max_tokens": 40}


def load(monkeypatch: pytest.MonkeyPatch, name: str, backstop: BackstopProcess, primary_url: str) -> ModuleType:
    """The pattern as its user has it, with addresses from the environment."""
    settings = {"PRIMARY_URL": primary_url, "BACKSTOP_URL": backstop.base_url, "PRIMARY_TIMEOUT_S": "1"}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    spec = importlib.util.spec_from_file_location(name, PATTERNS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_impatient(monkeypatch: pytest.MonkeyPatch, backstop: BackstopProcess, primary_url: str) -> ModuleType:
    """The gateway that puts up with little silence; with the least of it, so that tests are quick."""
    monkeypatch.setenv("GATEWAY_TIMEOUT_S", str(SILENCE_S))
    return load(monkeypatch, "requests_two_providers", backstop, primary_url)


def url_of(primary: FakePrimary, fault: str) -> str:
    return DEAD if fault == "refused" else primary.url(fault)


def direct(client: Any, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "demo", "messages": HELLO, **GREEDY, **fields}).choices[0].message


@pytest.mark.parametrize("fault", FAULTS)
def test_openai_falls_back(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary, fault: str
) -> None:
    pattern = load(monkeypatch, "openai_two_clients", server, url_of(primary, fault))
    expected = direct(client).content
    assert pattern.ask(HELLO, **GREEDY).choices[0].message.content == expected
    assert "".join(pattern.stream(HELLO, **GREEDY)) == expected


def test_openai_continues_a_broken_stream(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary
) -> None:
    pattern = load(monkeypatch, "openai_two_clients", server, primary.url("cut-after"))
    prefill = {"role": "assistant", "content": CUT_TEXT, "prefix": True}
    continuation = direct(client, messages=[*HELLO, prefill]).content
    assert continuation
    assert "".join(pattern.stream(HELLO, **GREEDY)) == CUT_TEXT + continuation


@pytest.mark.parametrize("fault", FAULTS)
def test_requests_falls_back(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary, fault: str
) -> None:
    pattern = load_impatient(monkeypatch, server, url_of(primary, fault))
    assert pattern.ask(HELLO, **GREEDY)["choices"][0]["message"]["content"] == direct(client).content


def test_requests_loses_an_answer_that_is_silent_for_too_long(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., BackstopProcess]
) -> None:
    backstop = start(*ONE_PLACE).wait_until_ready()
    pattern = load_impatient(monkeypatch, backstop, DEAD)
    with backstop.occupied(), pytest.raises(requests.ReadTimeout):
        pattern.ask(HELLO, **GREEDY)


def test_requests_waits_for_an_answer_that_is_at_work(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., BackstopProcess]
) -> None:
    backstop = start(*IMPATIENT).wait_until_ready()
    pattern = load_impatient(monkeypatch, backstop, DEAD)
    expected = pattern.ask(HELLO, **GREEDY)["choices"]
    with ThreadPoolExecutor() as threads:
        with backstop.occupied():
            asked = threads.submit(pattern.ask, HELLO, **GREEDY)
            # Twice what the gateway puts up with.
            time.sleep(2 * SILENCE_S)
            assert not asked.done()
        assert asked.result(timeout=60)["choices"] == expected


def test_requests_notices_what_fails_after_the_status(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary
) -> None:
    pattern = load_impatient(monkeypatch, server, primary.url("late"))
    with pytest.raises(pattern.ProviderFailed, match="The fake provider fails"):
        pattern.answer_of(pattern.PROVIDERS[0], HELLO)
    assert pattern.ask(HELLO, **GREEDY)["choices"][0]["message"]["content"] == direct(client).content


@pytest.mark.parametrize(
    "name", ["openai_two_clients", "langchain_with_fallbacks", "llamaindex_fallback", "requests_two_providers"]
)
def test_a_pattern_is_a_program_too(server: BackstopProcess, name: str) -> None:
    requirement = {"langchain_with_fallbacks": "langchain_openai", "llamaindex_fallback": "llama_index"}.get(name)
    if requirement is not None:
        pytest.importorskip(requirement)
    environment = {**os.environ, "PRIMARY_URL": DEAD, "BACKSTOP_URL": server.base_url}
    command = [sys.executable, str(PATTERNS / f"{name}.py"), "Hello!"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
    assert output.strip()


@pytest.mark.parametrize("fault", FAULTS)
def test_langchain_falls_back(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary, fault: str
) -> None:
    pytest.importorskip("langchain_openai")
    pattern = load(monkeypatch, "langchain_with_fallbacks", server, url_of(primary, fault))
    expected = direct(client).content
    model = pattern.chat_model().bind(**GREEDY)
    answer = model.invoke(HELLO)
    assert answer.content == expected
    assert answer.response_metadata["model_name"] == "demo"
    assert answer.usage_metadata["output_tokens"] > 0
    # A stream that broke after its first piece, an empty one, is not begun again.
    if fault != "cut-before":
        assert "".join(piece.content for piece in model.stream(HELLO)) == expected


def test_langchain_calls_tools_behind_a_dead_primary(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any
) -> None:
    pytest.importorskip("langchain_openai")
    pattern = load(monkeypatch, "langchain_with_fallbacks", server, DEAD)
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    settings = {"temperature": 0, "max_tokens": 80}
    expected = direct(client, messages=question, tools=[WEATHER_TOOL], **settings).tool_calls
    assert expected, "the demo model calls the tool"
    model = pattern.chat_model().bind_tools([WEATHER_TOOL]).bind(**settings)
    [call] = model.invoke(question).tool_calls
    assert call["name"] == expected[0].function.name
    whole = None
    for piece in model.stream(question):
        whole = piece if whole is None else whole + piece
    assert [call["name"] for call in whole.tool_calls] == [expected[0].function.name]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain_gets_structured_answers_behind_a_dead_primary(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, method: str
) -> None:
    pytest.importorskip("langchain_openai")
    from pydantic import BaseModel

    class Weather(BaseModel):
        city: Literal["Paris", "Rome"]
        sky: Literal["clear", "cloudy"]

    pattern = load(monkeypatch, "langchain_with_fallbacks", server, DEAD)
    settings = {"temperature": 0, "max_tokens": 400, "reasoning_effort": "none"}
    if method == "json_mode":
        # Any object, for the schema is not sent.
        answer = pattern.chat_model().with_structured_output(None, method=method).bind(**settings).invoke(HELLO)
        assert isinstance(answer, dict)
    else:
        answer = pattern.chat_model().with_structured_output(Weather, method=method).bind(**settings).invoke(HELLO)
        assert isinstance(answer, Weather)


@pytest.mark.parametrize("fault", ["refused", "status-503"])
def test_llamaindex_falls_back(
    monkeypatch: pytest.MonkeyPatch, server: BackstopProcess, client: Any, primary: FakePrimary, fault: str
) -> None:
    pytest.importorskip("llama_index")
    from llama_index.core.base.llms.types import ChatMessage

    pattern = load(monkeypatch, "llamaindex_fallback", server, url_of(primary, fault))
    expected = direct(client).content
    question = [ChatMessage(role="user", content=HELLO[0]["content"])]
    model = pattern.language_model()
    assert model.chat(question, **GREEDY).message.content == expected
    assert "".join(piece.delta or "" for piece in model.stream_chat(question, **GREEDY)) == expected
