"""POST /v1/responses through the vendor's SDK."""

import json
from typing import Any, Literal

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from requests_made import MODEL_NAME, WEATHER_TOOL

FLAT_TOOL: dict[str, Any] = {"type": "function", "strict": False, **WEATHER_TOOL["function"]}


def body(text: Any = "Write a function that adds two numbers.", **fields: Any) -> dict[str, Any]:
    """Arguments of a greedy request."""
    return {"model": MODEL_NAME, "input": text, "temperature": 0, "max_output_tokens": 24, **fields}


def contents(output: Any) -> list[dict[str, Any]]:
    """Items without what differs between two answers."""
    dumped = [item.model_dump() for item in output]
    for item in dumped:
        item.pop("id")
        item.pop("call_id", None)
    return dumped


def test_answers_have_every_field_that_the_sdk_declares(client: OpenAI) -> None:
    answer = client.responses.create(**body(metadata={"a": "b"}))
    assert answer.object == "response"
    assert answer.id.startswith("resp_")
    assert answer.model == "demo"
    assert answer.created_at > 1_700_000_000
    assert answer.status in ("completed", "incomplete")
    assert (answer.error, answer.store, answer.metadata) == (None, False, {"a": "b"})
    assert (answer.tools, answer.tool_choice, answer.parallel_tool_calls) == ([], "auto", True)
    usage = answer.usage
    assert usage.input_tokens > 0 and 0 < usage.output_tokens <= 24
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens <= usage.output_tokens
    assert answer.output[0].type == "reasoning"
    # Validates every field against its declared type, which the SDK itself does not.
    type(answer).model_validate(answer.model_dump(), strict=False)


def test_an_answer_that_is_cut_off_says_why(client: OpenAI) -> None:
    answer = client.responses.create(**body(max_output_tokens=16, extra_body={"ignore_eos": True}))
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 16


def test_reasoning_can_be_turned_off(client: OpenAI) -> None:
    answer = client.responses.create(**body("What is two plus three?", max_output_tokens=160, reasoning={"effort": "none"}))
    assert [item.type for item in answer.output] == ["message"]
    assert answer.output_text
    assert answer.usage.output_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("summary", [None, "auto"])
def test_a_stream_adds_up_to_the_whole_answer(client: OpenAI, summary: str | None) -> None:
    for text in ["Hello!", "Write a function that reverses a list.", "Zähle bis zehn: 一二三 🎉"]:
        arguments = body(text, max_output_tokens=120, reasoning={"summary": summary})
        whole = client.responses.create(**arguments)
        text_pieces: list[str] = []
        reasoning_pieces: list[str] = []
        numbers = []
        for event in client.responses.create(**arguments, stream=True):
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text_pieces.append(event.delta)
            if event.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
                assert ("summary" in event.type) == (summary is not None)
                reasoning_pieces.append(event.delta)
        assert numbers == list(range(len(numbers)))
        assert event.type in ("response.completed", "response.incomplete")
        assert contents(event.response.output) == contents(whole.output)
        assert "".join(text_pieces) == whole.output_text
        reasoning = whole.output[0]
        parts = reasoning.summary if summary else reasoning.content
        assert "".join(reasoning_pieces) == parts[0].text
        assert event.response.usage.output_tokens == whole.usage.output_tokens


def test_the_sdks_own_accumulation_of_a_stream_works(client: OpenAI) -> None:
    whole = client.responses.create(**body(max_output_tokens=120, tools=[FLAT_TOOL]))
    with client.responses.stream(**body(max_output_tokens=120, tools=[FLAT_TOOL])) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == whole.output_text


def test_a_conversation_goes_on_with_everything_sent_back(client: OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "Hello!"}]
    for text in ["And now?", "Goodbye!"]:
        answer = client.responses.create(**body(history, include=["reasoning.encrypted_content"], max_output_tokens=160))
        history += answer.output
        history.append({"role": "user", "content": [{"type": "input_text", "text": text}]})
    assert client.responses.create(**body(history)).status in ("completed", "incomplete")


def test_reasoning_reaches_the_prompt_in_whichever_field_it_comes_back(client: OpenAI) -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Rome"}'}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees"}
    question = {"role": "user", "content": "What is the weather in Rome?"}

    def prompt_tokens(*reasoning: dict[str, Any]) -> int:
        items = [question, *reasoning, call, result]
        return client.responses.create(**body(items, tools=[FLAT_TOOL])).usage.input_tokens

    answer = client.responses.create(**body(question["content"], max_output_tokens=160, include=["reasoning.encrypted_content"]))
    item = answer.output[0].model_dump()
    assert item["type"] == "reasoning" and item["encrypted_content"]
    summary = [{"type": "summary_text", "text": item["content"][0]["text"]}]
    lengths = {
        prompt_tokens(item),
        prompt_tokens({**item, "content": None}),
        prompt_tokens({"type": "reasoning", "id": "rs_1", "summary": summary}),
    }
    assert len(lengths) == 1
    foreign = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABo"}
    assert prompt_tokens(foreign) == prompt_tokens() < lengths.pop()


def test_tool_calls_and_their_results_make_a_round_trip(client: OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    arguments = {"tools": [FLAT_TOOL], "max_output_tokens": 200}
    answer = client.responses.create(**body(history, **arguments))
    calls = [item for item in answer.output if item.type == "function_call"]
    streamed = list(client.responses.create(**body(history, **arguments), stream=True))[-1].response
    assert contents(streamed.output) == contents(answer.output)
    history += answer.output
    for call in calls:
        assert call.name == "get_weather" and call.call_id.startswith("call_")
        history.append({"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"})
    history.append({"role": "user", "content": "Thanks."})
    assert client.responses.create(**body(history, **arguments)).output is not None


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_a_forced_call_is_made_and_fits_its_schema(client: OpenAI, choice: Any) -> None:
    arguments = body(tools=[FLAT_TOOL], tool_choice=choice, max_output_tokens=600)
    answer = client.responses.create(**arguments)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert calls and all(call.name == "get_weather" for call in calls)
    assert list(json.loads(calls[0].arguments)) == ["city"]
    streamed = list(client.responses.create(**arguments, stream=True))[-1].response
    assert contents(streamed.output) == contents(answer.output)


def test_a_custom_tool_can_be_forced(client: OpenAI) -> None:
    tool = {"type": "custom", "name": "note", "description": "Takes a note."}
    choice = {"type": "custom", "name": "note"}
    answer = client.responses.create(**body(tools=[tool], tool_choice=choice, max_output_tokens=600))
    [call] = [item for item in answer.output if item.type == "custom_tool_call"]
    assert call.name == "note" and isinstance(call.input, str)


class Sum(BaseModel):
    left: bool
    right: Literal["a", "b"]


def test_text_is_parsed_into_a_model(client: OpenAI) -> None:
    arguments = {"model": MODEL_NAME, "input": "Add something.", "temperature": 0, "max_output_tokens": 600}
    answer = client.responses.parse(**arguments, text_format=Sum)
    assert isinstance(answer.output_parsed, Sum)
    with client.responses.stream(**arguments, text_format=Sum) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == answer.output_parsed


def test_hosted_tools_are_left_out_and_not_claimed(client: OpenAI) -> None:
    answer = client.responses.create(**body(tools=[{"type": "web_search"}, FLAT_TOOL]))
    assert [tool.type for tool in answer.tools] == ["function"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content.0.type"),
        ({"input": [{"type": "compaction_trigger"}]}, "input.0.type"),
        ({"include": ["everything"]}, "include.0"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(**body(**fields))
    assert caught.value.param == param


def test_an_input_that_is_too_long_is_named_as_such(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(**body("word " * 20_000))
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.message.count("maximum context length is") == 1


def test_answers_are_not_stored(client: OpenAI) -> None:
    answer = client.responses.create(**body(store=True))
    assert answer.store is False
    with pytest.raises(NotFoundError):
        client.responses.retrieve(answer.id)
