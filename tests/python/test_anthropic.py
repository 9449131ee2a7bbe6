"""The Messages API as Anthropic's own SDK sees it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic import Anthropic

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import MODEL_NAME, WEATHER_TOOL

TOOL = {
    "name": WEATHER_TOOL["function"]["name"],
    "description": WEATHER_TOOL["function"]["description"],
    "input_schema": WEATHER_TOOL["function"]["parameters"],
}


def sdk(server: BackstopProcess, api_key: str = "unused") -> Anthropic:
    return Anthropic(base_url=server.root, api_key=api_key, max_retries=0, timeout=REQUEST_TIMEOUT_S)


@pytest.fixture
def client(server: BackstopProcess) -> Iterator[Anthropic]:
    with sdk(server) as client:
        yield client


def ask(content="Write a function that adds two numbers.", **fields):
    """Arguments of a greedy request with one message. The SDK itself no longer has a temperature."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL_NAME, "max_tokens": 24, "messages": messages, "extra_body": {"temperature": 0}, **fields}


def test_an_answer(client: Anthropic) -> None:
    message = client.messages.create(**ask(system="Be brief."))
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL_NAME)
    assert [block.type for block in message.content] == ["text"]
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 0
    assert 0 < message.usage.output_tokens <= 24
    assert message._request_id


def test_a_stream_adds_up_to_the_whole(client: Anthropic) -> None:
    request = ask(max_tokens=48, thinking={"type": "enabled", "budget_tokens": 1024})
    client.messages.create(**request)  # fills the prefix cache, so that the usage below is the same twice
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert "thinking" in [block.type for block in whole.content]
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)


def test_thinking_goes_out_and_comes_back(client: Anthropic) -> None:
    first = client.messages.create(**ask(max_tokens=200, thinking={"type": "adaptive"}))
    thinking = first.content[0]
    assert thinking.type == "thinking" and thinking.thinking and thinking.signature
    assert first.usage.output_tokens_details.thinking_tokens > 0
    history = [*ask()["messages"], {"role": "assistant", "content": first.content}, {"role": "user", "content": "Now subtract."}]
    second = client.messages.create(**ask(messages=history))
    assert all(block.type == "text" for block in second.content)


def test_a_tool_call_goes_out_and_its_result_comes_back(client: Anthropic) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    history = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sunny"}]}]},
    ]
    message = client.messages.create(**ask(messages=history, tools=[TOOL]))
    assert message.stop_reason in ("end_turn", "max_tokens", "tool_use")
    for block in message.content:
        if block.type == "tool_use":
            assert block.id.startswith("toolu_") and isinstance(block.input, dict)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_call_is_made_and_fits_its_schema(client: Anthropic, choice: dict) -> None:
    request = ask(tools=[TOOL], tool_choice={**choice, "disable_parallel_tool_use": True}, max_tokens=600)
    message = client.messages.create(**request)
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert (message.stop_reason, call.name, list(call.input)) == ("tool_use", "get_weather", ["city"])
    with client.messages.stream(**request) as stream:
        [streamed] = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert (streamed.name, streamed.input) == (call.name, call.input)


def test_text_follows_a_schema(client: Anthropic) -> None:
    properties = {"left": {"type": "boolean"}, "right": {"enum": ["a", "b"]}}
    schema = {"type": "object", "properties": properties, "required": ["left", "right"], "additionalProperties": False}
    message = client.messages.create(**ask(output_config={"format": {"type": "json_schema", "schema": schema}}, max_tokens=600))
    answer = json.loads(message.content[-1].text)
    assert isinstance(answer["left"], bool) and answer["right"] in ("a", "b")


def test_stop_sequences_and_prefill(client: Anthropic) -> None:
    whole = client.messages.create(**ask(max_tokens=40)).content[0].text
    stop = whole[3:6]
    stopped = client.messages.create(**ask(max_tokens=40, stop_sequences=[stop]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop)
    text = "".join(block.text for block in stopped.content)
    assert whole.startswith(text) and stop not in text
    history = [*ask()["messages"], {"role": "assistant", "content": "def add(a, b):"}]
    assert client.messages.create(**ask(messages=history)).content


def test_more_tokens_than_the_context_leaves_are_no_error(client: Anthropic) -> None:
    message = client.messages.create(**ask(max_tokens=1_000_000))
    assert message.stop_reason in ("end_turn", "model_context_window_exceeded")


def test_counting(client: Anthropic) -> None:
    def count(**fields) -> int:
        request = {name: value for name, value in ask(**fields).items() if name not in ("max_tokens", "extra_body")}
        return client.messages.count_tokens(**request).input_tokens

    plain = count()
    usage = client.messages.create(**ask()).usage
    assert plain == usage.input_tokens + usage.cache_read_input_tokens
    assert plain < count(system="Be brief.") < count(system="Be brief.", tools=[TOOL])


def test_models(client: Anthropic) -> None:
    models = list(client.models.list(limit=1))
    assert [model.id for model in models] == [MODEL_NAME]
    model = client.models.retrieve(MODEL_NAME)
    assert (model.type, model.display_name, model.lifecycle) == ("model", MODEL_NAME, "active")
    assert model.created_at.year >= 2024
    assert model.max_input_tokens > 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 3}}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{**TOOL, "name": "not a name"}]}, "tools.0.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ],
)
def test_bad_fields_are_named(client: Anthropic, fields: dict, named: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**ask(**fields))
    assert caught.value.type == "invalid_request_error"
    assert f"'{named}'" in caught.value.api_message
    assert caught.value.request_id == caught.value.body["request_id"]


def test_a_prompt_beyond_the_context_says_so_as_anthropic_does(client: Anthropic) -> None:
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
            client.messages.create(**ask("word " * 20_000, stream=stream))


def test_errors_arrive_as_the_exceptions_they_are(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-secret-key\n")
    server = start("--api-key-file", str(keys)).wait_until_ready()
    with sdk(server, "wrong-secret-key") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**ask())
    assert caught.value.type == "authentication_error"
    with sdk(server, "first-secret-key") as client:
        assert client.messages.create(**ask()).content
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(**ask(model="claude-unheard-of"))
        assert caught.value.type == "not_found_error"
        assert "claude-unheard-of" not in caught.value.response.text
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("claude-unheard-of")
    with Anthropic(base_url=server.root, auth_token="first-secret-key", api_key=None) as client:
        assert client.messages.count_tokens(model=MODEL_NAME, messages=ask()["messages"]).input_tokens
