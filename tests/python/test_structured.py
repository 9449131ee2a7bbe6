"""Constrained answers: every one parses and satisfies its schema, streamed and whole."""

import asyncio
import json
import re
from typing import Any, Literal

import jsonschema
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import WEATHER_TOOL, chat, collect
from schemas import parameters

SCHEMAS = 2000
# More than the server runs at once, so that it is never idle.
CONCURRENT = 96
# Reasoning is free text, which this model rarely ends.
BRIEF = {"reasoning_effort": "none", "temperature": 1.0}


def tool(name: str, schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **fields}}


async def forced_call(client: AsyncOpenAI, seed: int) -> tuple[str, str]:
    """The arguments of a call that had to be made, and how the answer ended."""
    named = {"type": "function", "function": {"name": "look_up"}}
    body = chat("Look it up.", **BRIEF, seed=seed, max_tokens=1500, tools=[tool("look_up", parameters(seed))])
    body["tool_choice"] = named if seed % 4 < 2 else "required"
    body["parallel_tool_calls"] = False
    if seed % 2:
        whole = (await client.chat.completions.create(**body)).choices[0]
        (call,) = whole.message.tool_calls
        return call.function.arguments, whole.finish_reason
    arguments, finish_reason = "", ""
    async for chunk in await client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            for part in choice.delta.tool_calls or []:
                assert part.index == 0
                arguments += part.function.arguments or ""
            finish_reason = choice.finish_reason or finish_reason
    return arguments, finish_reason


async def all_forced_calls(server: BackstopProcess) -> list[tuple[int, str, str]]:
    places = asyncio.Semaphore(CONCURRENT)

    async def one(client: AsyncOpenAI, seed: int) -> tuple[int, str, str]:
        async with places:
            return (seed, *await forced_call(client, seed))

    # The queue is longer than any single request may wait on a slow machine.
    options = {"base_url": server.base_url, "api_key": "unused", "max_retries": 0, "timeout": 5 * REQUEST_TIMEOUT_S}
    async with AsyncOpenAI(**options) as client:
        return await asyncio.gather(*(one(client, seed) for seed in range(SCHEMAS)))


def test_every_forced_call_parses_and_satisfies_its_schema(server: BackstopProcess) -> None:
    answers = asyncio.run(all_forced_calls(server))
    for seed, arguments, finish_reason in answers:
        assert finish_reason == "tool_calls", (seed, finish_reason, arguments)
        jsonschema.validate(json.loads(arguments), parameters(seed))
    assert len(answers) == SCHEMAS


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object", "schema": WEATHER_TOOL["function"]["parameters"]}},
        {"json_schema": json.dumps(WEATHER_TOOL["function"]["parameters"])},
    ],
    ids=["beside json_object", "as json_schema"],
)
def test_schemas_are_enforced_wherever_other_servers_have_them(client: OpenAI, fields: dict[str, Any]) -> None:
    answer = client.chat.completions.create(**chat("The weather?", **BRIEF, max_tokens=600), extra_body=fields)
    jsonschema.validate(json.loads(answer.choices[0].message.content), WEATHER_TOOL["function"]["parameters"])


@pytest.mark.parametrize("seed", range(12))
def test_streamed_arguments_add_up_to_the_whole(client: OpenAI, seed: int) -> None:
    tools = [tool("look_up", parameters(seed)), tool("noop", {"type": "object", "properties": {}})]
    body = chat("Look it up.", **BRIEF, seed=seed, max_tokens=600, tools=tools, tool_choice="required")
    whole = client.chat.completions.create(**body).choices[0]
    streamed = collect(client.chat.completions.create(**body, stream=True))[0]
    expected = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls]
    assert [(call["name"], call["arguments"]) for _, call in sorted(streamed.tool_calls.items())] == expected
    assert streamed.finish_reason == whole.finish_reason


def test_a_tool_without_parameters_is_called_with_an_empty_object(client: OpenAI) -> None:
    body = chat(**BRIEF, max_tokens=200, tools=[{"type": "function", "function": {"name": "now"}}])
    named = {"type": "function", "function": {"name": "now"}}
    whole = client.chat.completions.create(**body, tool_choice=named).choices[0]
    assert [call.function.arguments for call in whole.message.tool_calls] == ["{}"]
    streamed = collect(client.chat.completions.create(**body, tool_choice=named, stream=True))[0]
    assert streamed.tool_calls[0]["arguments"] == "{}"


def test_json_mode_is_json(client: OpenAI) -> None:
    for seed in range(5):
        body = chat(**BRIEF, seed=seed, max_tokens=400, response_format={"type": "json_object"})
        choice = client.chat.completions.create(**body).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.message.content.lstrip().startswith("{")


class Step(BaseModel):
    kind: Literal["add", "remove"]
    amount: int
    done: bool


class Plan(BaseModel):
    first: Step
    second: Step | None


def test_parse_returns_the_model_that_was_asked_for(client: OpenAI) -> None:
    for seed in range(5):
        body = chat(**BRIEF, seed=seed, max_tokens=400)
        completion = client.chat.completions.parse(**body, response_format=Plan)
        assert isinstance(completion.choices[0].message.parsed, Plan)


def test_strict_tools_are_strict_and_single_calls_single(client: OpenAI) -> None:
    strict = tool("get_weather", WEATHER_TOOL["function"]["parameters"], strict=True)
    for seed in range(5):
        body = chat("What is the weather in Rome?", **BRIEF, seed=seed, max_tokens=400, tools=[strict])
        message = client.chat.completions.create(**body, parallel_tool_calls=False).choices[0].message
        for call in message.tool_calls or []:
            jsonschema.validate(json.loads(call.function.arguments), WEATHER_TOOL["function"]["parameters"])
        assert len(message.tool_calls or []) <= 1


@pytest.mark.parametrize(
    ("field", "value", "pattern"),
    [
        ("guided_regex", r"[a-c]{3}-\d", r"[a-c]{3}-\d"),
        ("guided_choice", ["yes", "no"], "yes|no"),
        ("guided_grammar", 'start: "<" /[xy]{2}/ ">"', "<[xy]{2}>"),
        ("structured_outputs", {"choice": ["größer", "🙂"]}, "größer|🙂"),
    ],
)
def test_other_output_formats(client: OpenAI, field: str, value: Any, pattern: str) -> None:
    choice = client.chat.completions.create(**chat(**BRIEF, max_tokens=60), extra_body={field: value}).choices[0]
    assert choice.finish_reason == "stop"
    assert re.fullmatch(pattern, choice.message.content)


def test_legacy_functions(client: OpenAI) -> None:
    function = WEATHER_TOOL["function"]
    fields = {"functions": [function], "function_call": {"name": "get_weather"}}
    for seed in range(20):
        body = chat(**BRIEF, seed=seed, max_tokens=400, **fields)
        choice = client.chat.completions.create(**body).choices[0]
        if choice.finish_reason == "function_call":
            break
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call.name == "get_weather"
    jsonschema.validate(json.loads(choice.message.function_call.arguments), function["parameters"])


def test_what_cannot_be_enforced_is_refused_by_name(client: OpenAI) -> None:
    broken = tool("broken", {"type": "object", "properties": {"secret": {"not": {}}}}, strict=True)
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(tools=[WEATHER_TOOL, broken], tool_choice="required"))
    assert caught.value.param == "tools.1.function.parameters"
    assert "not" in caught.value.message and "secret" not in caught.value.message


def test_a_tool_that_is_not_strict_is_held_to_what_can_be_enforced(client: OpenAI) -> None:
    tags = {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 3, "uniqueItems": True}
    code = {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)(?!.*A1)\w{4,6}$"}
    schema = {"type": "object", "properties": {"tags": tags, "code": code}, "required": ["tags", "code"]}
    body = chat(**BRIEF, max_tokens=300, tools=[tool("mark", schema)], tool_choice="required")
    for seed in range(5):
        raw = client.chat.completions.with_raw_response.create(**body, seed=seed)
        assert raw.headers["x-backstop-not-enforced"] == "tools.0.function.parameters uniqueItems"
        (call, *_) = raw.parse().choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert re.search(code["pattern"], arguments["code"])
        assert all(len(tag) <= 3 for tag in arguments["tags"])
