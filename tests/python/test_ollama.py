"""Ollama's API as its own Python package sees it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ollama import AsyncClient, Client, ResponseError

import scripted_server
from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import MODEL_NAME, WEATHER_TOOL
from scripted_server import calls, says

QUESTION = [{"role": "user", "content": "Write a function that adds two numbers."}]


def sdk(server: BackstopProcess, **headers: str) -> Client:
    return Client(host=server.root, timeout=REQUEST_TIMEOUT_S, headers=headers)


@pytest.fixture
def client(server: BackstopProcess) -> Iterator[Client]:
    with sdk(server) as client:
        yield client


@pytest.fixture
def scripted_client(scripted: Callable[..., str]) -> Callable[..., Client]:
    """Clients of servers whose model says these things."""
    if not scripted_server.SCRIPTED_SERVER.is_file():
        pytest.skip("build the scripted server: see README.md")
    return lambda *answers: Client(host=scripted(*answers), timeout=REQUEST_TIMEOUT_S)


def greedy(**options):
    return {"temperature": 0, "num_predict": 24, **options}


def test_an_answer(client: Client) -> None:
    answer = client.chat(MODEL_NAME, QUESTION, options=greedy(), keep_alive="5m")
    assert (answer.model, answer.message.role, answer.done) == (MODEL_NAME, "assistant", True)
    assert answer.message.content or answer.message.thinking
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 0 and 0 < answer.eval_count <= 24
    assert 0 < answer.prompt_eval_duration < answer.total_duration
    assert answer.load_duration + answer.prompt_eval_duration + answer.eval_duration <= answer.total_duration


@pytest.mark.parametrize("think", [None, True, False, "low"])
def test_a_streamed_chat_adds_up_to_the_whole(client: Client, think: bool | str | None) -> None:
    request = {"model": MODEL_NAME, "messages": QUESTION, "options": greedy(num_predict=48), "think": think}
    whole = client.chat(**request)
    parts = list(client.chat(**request, stream=True))
    assert len(parts) > 2 and [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part.message.content for part in parts) == whole.message.content
    thinking = "".join(part.message.thinking or "" for part in parts)
    assert thinking == (whole.message.thinking or "")
    assert think is not False or not thinking
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)


def test_a_streamed_generation_adds_up_to_the_whole_and_is_gone_on_from(client: Client) -> None:
    request = {"model": MODEL_NAME, "prompt": "Add two numbers.", "system": "Be brief.", "options": greedy(), "think": False}
    whole = client.generate(**request)
    parts = list(client.generate(**request, stream=True))
    assert "".join(part.response for part in parts) == whole.response
    assert len(whole.context) == whole.prompt_eval_count + whole.eval_count
    assert parts[-1].context == whole.context
    further = client.generate(MODEL_NAME, "Now subtract.", context=whole.context, options=greedy(), think=False)
    assert further.context[: len(whole.context)] == whole.context


def test_a_raw_prompt_is_continued(client: Client) -> None:
    rendered = client.generate(MODEL_NAME, "def add(a, b):", options=greedy(num_predict=8))
    raw = client.generate(MODEL_NAME, "def add(a, b):", raw=True, options=greedy(num_predict=8))
    assert raw.prompt_eval_count < rendered.prompt_eval_count
    assert raw.context is None and raw.eval_count <= 8


def test_options_say_when_to_stop_and_how_to_sample(client: Client) -> None:
    request = {"model": MODEL_NAME, "prompt": "def add(a, b):", "raw": True}
    whole = client.generate(**request, options=greedy()).response
    stopped = client.generate(**request, options=greedy(stop=[whole[3:6]]))
    assert (stopped.done_reason, stopped.response) == ("stop", whole[:3])
    seeded = {"temperature": 1.5, "top_k": 50, "top_p": 0.95, "min_p": 0.01, "seed": 7, "num_predict": 24, "num_ctx": 2048}
    first, second = (client.generate(**request, options=seeded).response for _ in range(2))
    assert first == second


def test_log_probabilities_come_with_alternatives(client: Client) -> None:
    request = {"model": MODEL_NAME, "prompt": "def add(a, b):", "raw": True, "options": greedy(num_predict=4), "logprobs": True}
    whole = client.generate(**request, top_logprobs=3)
    assert len(whole.logprobs) == whole.eval_count == 4
    assert "".join(token.token for token in whole.logprobs) == whole.response
    for token in whole.logprobs:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob == token.logprob <= 0
    parts = client.generate(**request, top_logprobs=3, stream=True)
    assert [token for part in parts for token in part.logprobs or []] == list(whole.logprobs)


def test_a_format_is_followed(client: Client) -> None:
    properties = {"left": {"type": "boolean"}, "right": {"enum": ["a", "b"]}}
    schema = {"type": "object", "properties": properties, "required": ["left", "right"], "additionalProperties": False}
    answer = client.chat(MODEL_NAME, QUESTION, format=schema, options=greedy(num_predict=400), think=False)
    content = json.loads(answer.message.content)
    assert isinstance(content["left"], bool) and content["right"] in ("a", "b")
    some = client.generate(MODEL_NAME, "Say it in JSON.", format="json", options=greedy(num_predict=40), think=False)
    assert some.response.lstrip().startswith("{")


def get_weather(city: str) -> str:
    """Tells the weather of a city.

    Args:
        city: Its name.
    """
    return f"It is sunny in {city}."


@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_is_called_and_its_result_goes_back(scripted_client: Callable[..., Client], streamed: bool) -> None:
    client = scripted_client(calls("get_weather", city="Paris"), says("Take a hat."))
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]

    def ask():
        answers = client.chat(MODEL_NAME, messages, tools=[get_weather], stream=streamed)
        parts = list(answers) if streamed else [answers]
        assert parts[-1].done_reason == "stop"
        return parts

    [call] = [call for part in ask() for call in part.message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    # The package drops the call's id; the result says by the tool's name whose it is.
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    messages.append({"role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments)})
    assert "".join(part.message.content for part in ask()) == "Take a hat."


def test_thinking_goes_out_and_comes_back(scripted_client: Callable[..., Client]) -> None:
    client = scripted_client(says("Hello."))
    answer = client.chat(MODEL_NAME, QUESTION, think=True)
    assert (answer.message.thinking, answer.message.content) == ("I think.", "Hello.")
    history = [*QUESTION, answer.message, {"role": "user", "content": "Again."}]
    assert client.chat(MODEL_NAME, history, think=True).message.content == "Hello."


def test_a_tool_of_the_demo_model_is_a_tool(client: Client) -> None:
    answer = client.chat(MODEL_NAME, QUESTION, tools=[WEATHER_TOOL], options=greedy())
    for call in answer.message.tool_calls or []:
        assert call.function.name == "get_weather"


def test_without_a_prompt_nothing_is_computed(client: Client) -> None:
    assert client.generate(MODEL_NAME).done_reason == "load"
    assert client.chat(MODEL_NAME).done_reason == "load"
    assert client.generate(MODEL_NAME, keep_alive=0).done_reason == "unload"
    # It has stayed all the same.
    assert client.generate(MODEL_NAME, "a", raw=True, options=greedy(num_predict=1)).eval_count == 1


def test_models(client: Client, server: BackstopProcess) -> None:
    [listed] = client.list().models
    [running] = client.ps().models
    assert listed.model == running.model == f"{MODEL_NAME}:latest"
    assert listed.digest == running.digest and listed.size > 0 and running.size > 0
    assert listed.details.family == "cohere2_moe" and listed.details.format == "safetensors"
    assert running.context_length > 0 and running.expires_at.year > 2200
    shown = client.show(listed.model)
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] == running.context_length
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    assert "messages" in shown.template and f"{running.context_length}" in shown.parameters
    # The name with its tag is the model, too.
    assert client.generate(listed.model).model == listed.model


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (lambda client: client.pull("llama3"), 400, "outbound connection"),
        (lambda client: client.push("llama3"), 400, "outbound connection"),
        (lambda client: client.create("mine", from_="demo"), 400, "started with"),
        (lambda client: client.copy("demo", "mine"), 400, "started with"),
        (lambda client: client.embed(MODEL_NAME, "a"), 400, "does not support embeddings"),
        (lambda client: client.embeddings(MODEL_NAME, "a"), 400, "does not support embeddings"),
        (lambda client: client.generate(MODEL_NAME, "a", suffix="b"), 400, "'suffix'"),
        (lambda client: client.generate(MODEL_NAME, "a", template="{{ .Prompt }}"), 400, "'template'"),
        (lambda client: client.generate(MODEL_NAME, "a", images=["aGk="]), 400, "'images'"),
        (lambda client: client.generate(MODEL_NAME, "a", options={"temperature": 3}), 400, "'options.temperature'"),
        (lambda client: client.chat(MODEL_NAME, [{"role": "user", "content": "a", "images": ["aGk="]}]), 400, "'messages.0.images'"),
        (lambda client: list(client.chat(MODEL_NAME, [{"role": "judge", "content": "a"}], stream=True)), 400, "'messages.0.role'"),
    ],
)
def test_what_is_refused_says_why(client: Client, call: Callable[[Client], object], status: int, words: str) -> None:
    with pytest.raises(ResponseError) as caught:
        call(client)
    assert caught.value.status_code == status
    assert words in caught.value.error


def test_a_model_that_is_not_served_is_not_found(start: Callable[..., BackstopProcess]) -> None:
    server = start("--served-model-name", "only-this").wait_until_ready()
    with sdk(server) as client:
        for call in (client.show, client.generate, client.chat):
            with pytest.raises(ResponseError) as caught:
                call("llama3")
            assert caught.value.status_code == 404
            assert caught.value.error.startswith("model not found")
        assert client.generate("only-this:latest").done


def test_keys_are_sent_as_everywhere(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-right-key\n")
    keys.chmod(0o600)
    server = start("--api-key-file", str(keys)).wait_until_ready()
    with sdk(server) as stranger, pytest.raises(ResponseError) as caught:
        stranger.list()
    assert caught.value.status_code == 401
    with sdk(server, authorization="Bearer the-right-key") as client:
        assert client.list().models


def test_a_client_that_breaks_off_frees_its_place(server: BackstopProcess) -> None:
    async def break_off() -> None:
        client = AsyncClient(host=server.root, timeout=REQUEST_TIMEOUT_S)
        parts = await client.generate(MODEL_NAME, "a", raw=True, stream=True, options={"num_predict": 100_000})
        async for part in parts:
            assert part.done is False
            break
        await parts.aclose()
        await client.close()

    asyncio.run(break_off())
    server.wait_until_idle()
