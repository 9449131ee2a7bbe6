"""What the LiteLLM proxy makes of Backstop's own answers and errors when no link is left behind it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("litellm", reason="the LiteLLM proxy has an environment of its own")

import httpx  # noqa: E402
from openai import APIStatusError, BadRequestError, OpenAI  # noqa: E402

from backstop_process import BackstopProcess  # noqa: E402
from litellm_proxy import MODES, PREFIXES, LiteLLMProxy  # noqa: E402
from requests_made import WEATHER_TOOL, chat  # noqa: E402

TOO_LONG = "word " * 20_000


def ask(client: OpenAI, mode: str = "whole", text: str = "Hello", **fields: object) -> None:
    body = chat(text, **fields)
    if mode == "streamed":
        list(client.chat.completions.create(**body, stream=True))
    else:
        client.chat.completions.create(**body)


def status_of(client: OpenAI, group: str, **fields: object) -> APIStatusError | None:
    try:
        ask(client, model=group, **fields)
    except APIStatusError as error:
        return error
    return None


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_that_not_even_the_last_link_can_hold_is_a_400(through: OpenAI, mode: str, prefix: str) -> None:
    for group in (f"backstop-{prefix}", f"context-whole-{prefix}"):
        with pytest.raises(BadRequestError) as caught:
            ask(through, mode, TOO_LONG, model=group)
        assert "ContextWindowExceededError" in caught.value.message, group
        assert "word word" not in caught.value.message


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mode", MODES)
def test_if_every_link_fails_the_client_sees_the_primarys_error_and_reads_of_the_last(
    through: OpenAI, mode: str, prefix: str
) -> None:
    with pytest.raises(APIStatusError) as caught:
        ask(through, mode, TOO_LONG, model=f"status-503-{mode}-{prefix}")
    assert caught.value.status_code == 503
    assert f"Fallback to backstop-{prefix} also failed: litellm.ContextWindowExceededError" in caught.value.message


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mode", MODES)
def test_a_bad_field_is_a_400_that_names_it(through: OpenAI, mode: str, prefix: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(through, mode, model=f"backstop-{prefix}", temperature=3)
    assert "'temperature'" in caught.value.message


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("group", "status"), [("keyed", 401), ("unheard-of", 404)])
def test_a_single_401_or_404_takes_a_lone_deployment_out(
    through: OpenAI, group: str, status: int, prefix: str
) -> None:
    first = status_of(through, f"{group}-{prefix}")
    assert first is not None and first.status_code == status
    again = status_of(through, f"{group}-{prefix}")
    assert again is not None and again.status_code == 429
    assert "No deployments available" in again.message or "cooldown" in again.message.lower()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_full_queue_is_a_429_and_the_server_keeps_being_called(
    through: OpenAI, special: dict[str, BackstopProcess], prefix: str
) -> None:
    for _ in range(4):
        refused = status_of(through, f"small-{prefix}", n=8)
        assert refused is not None and refused.status_code == 429
        assert "queue is full" in refused.message
        assert 1 <= int(refused.response.headers["llm_provider-retry-after"]) <= 60
    special["small"].wait_until_idle()
    ask(through, model=f"small-{prefix}")


def test_a_draining_server_is_a_503_and_keeps_being_called(
    through: OpenAI, special: dict[str, BackstopProcess]
) -> None:
    draining = special["draining"]
    with long_answer(draining):
        draining.terminate()
        wait_until_draining(draining)
        for prefix in PREFIXES:
            for _ in range(4):
                refused = status_of(through, f"draining-{prefix}")
                assert refused is not None and refused.status_code == 503
                assert "shutting down" in refused.message
                assert 1 <= int(refused.response.headers["llm_provider-retry-after"]) <= 60
    assert draining.wait() == 0


@contextmanager
def long_answer(server: BackstopProcess, choices: int = 16) -> Iterator[None]:
    """Keeps the server busy with an answer that takes seconds."""
    body = chat("Tell me a long story.", max_tokens=3500, n=choices, stream=True, ignore_eos=True)
    running, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=120) as stream:
            for _ in stream.iter_raw():
                running.set()
                if may_end.is_set():
                    return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert running.wait(60)
        yield
    finally:
        may_end.set()
        reader.join()


def wait_until_draining(server: BackstopProcess) -> None:
    while httpx.get(f"{server.root}/ready", timeout=10).status_code == 200:
        pass


def test_the_proxys_health_check_finds_backstop_healthy(proxy: LiteLLMProxy, server: BackstopProcess) -> None:
    health = httpx.get(f"{proxy.root}/health", headers=proxy.headers, params={"model": "backstop-hosted_vllm"}, timeout=120)
    assert health.status_code == 200
    assert health.json()["unhealthy_count"] == 0
    [endpoint] = health.json()["healthy_endpoints"]
    assert endpoint["api_base"] == server.base_url


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tools_get_through_in_both_directions(through: OpenAI, client: OpenAI, prefix: str) -> None:
    body = chat("What is the weather in Paris?", tools=[WEATHER_TOOL], max_tokens=80)
    direct = client.chat.completions.create(**body).choices[0]
    answer = through.chat.completions.create(**{**body, "model": f"backstop-{prefix}"}).choices[0]
    streamed = collect_calls(through.chat.completions.create(**{**body, "model": f"backstop-{prefix}"}, stream=True))
    expected = calls_of(direct.message)
    assert expected, "the demo model calls the tool"
    assert answer.finish_reason == direct.finish_reason == "tool_calls"
    assert calls_of(answer.message) == expected
    assert streamed == expected


def calls_of(message: object) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


def collect_calls(stream: object) -> list[tuple[str, str]]:
    calls: dict[int, list[str]] = {}
    for chunk in stream:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, ["", ""])
                known[0] += call.function.name or ""
                known[1] += call.function.arguments or ""
    return [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_streams_usage_is_backstops_own_count(through: OpenAI, client: OpenAI, prefix: str) -> None:
    usage = client.chat.completions.create(**chat()).usage
    options = {"include_usage": True}
    chunks = list(through.chat.completions.create(**chat(model=f"backstop-{prefix}"), stream=True, stream_options=options))
    counted = chunks[-1].usage
    assert (counted.prompt_tokens, counted.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_anthropics_messages_reach_backstop(proxy: LiteLLMProxy, client: OpenAI, mode: str, prefix: str) -> None:
    """With `openai/` they arrive as /v1/responses, with `hosted_vllm/` as chat completions."""
    text = "Write a function that adds two numbers."
    body = {"model": f"status-503-{mode}-{prefix}", "max_tokens": 40, "temperature": 0}
    body["messages"] = [{"role": "user", "content": text}]
    answer = httpx.post(
        f"{proxy.root}/v1/messages", headers=proxy.headers, json={**body, "stream": mode == "streamed"}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    if mode == "streamed":
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert [event["type"] for event in events if event["type"] != "ping"][0] == "message_start"
        assert events[-1]["type"] == "message_stop"
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        said = "".join(delta.get("text", "") for delta in deltas)
    else:
        said = "".join(block.get("text", "") for block in answer.json()["content"])
    expected = client.chat.completions.create(**chat(text, max_tokens=40)).choices[0].message.content
    assert said == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_responses_api_reaches_backstop(through: OpenAI, client: OpenAI, mode: str, prefix: str) -> None:
    text = "Write a function that adds two numbers."
    body = {"model": f"backstop-{prefix}", "input": text, "max_output_tokens": 40, "temperature": 0}
    if mode == "streamed":
        said = "".join(
            event.delta for event in through.responses.create(**body, stream=True) if event.type == "response.output_text.delta"
        )
    else:
        said = through.responses.create(**body).output_text
    assert said == client.chat.completions.create(**chat(text, max_tokens=40)).choices[0].message.content


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mode", MODES)
def test_the_proxy_says_which_model_answered(
    through: OpenAI, server: BackstopProcess, mode: str, prefix: str
) -> None:
    body = chat(model=f"backstop-{prefix}")
    with through.chat.completions.with_streaming_response.create(**body, stream=mode == "streamed") as answer:
        told = answer.headers["llm_provider-x-backstop-model"]
        answer.read()
    assert told == httpx.get(f"{server.root}/health").headers["x-backstop-model"]
