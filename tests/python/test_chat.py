"""POST /v1/chat/completions through the vendor's SDK."""

import pytest
from openai import BadRequestError, OpenAI

from requests_made import WEATHER_TOOL, chat, collect, reasoning_of


def test_answers_have_every_field_that_clients_read(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat())
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "demo"
    assert answer.created > 1_700_000_000
    assert answer.system_fingerprint.startswith("backstop-")
    [choice] = answer.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.content or reasoning_of(choice.message)
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 0.9, "seed": 11}])
def test_a_stream_adds_up_to_the_whole_answer(client: OpenAI, settings: dict) -> None:
    for text in ["Hello!", "Write a function that reverses a list.", "Zähle bis zehn: 一二三 🎉"]:
        body = chat(text, max_tokens=80, **settings)
        whole = client.chat.completions.create(**body).choices[0]
        streamed = collect(client.chat.completions.create(**body, stream=True))[0]
        assert streamed.content == (whole.message.content or "")
        assert streamed.reasoning == reasoning_of(whole.message)
        assert streamed.finish_reason == whole.finish_reason


def test_the_first_chunk_has_the_role_and_ids_never_change(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(**chat(), stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_asks_for_it(client: OpenAI) -> None:
    body = chat("Count to three.")
    whole = client.chat.completions.create(**body)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**body, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    usage = chunks[-1].usage
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_reasoning_can_be_turned_off(client: OpenAI) -> None:
    body = chat("What is two plus three?", max_tokens=160)
    thoughtful = client.chat.completions.create(**body)
    assert reasoning_of(thoughtful.choices[0].message)
    assert thoughtful.usage.completion_tokens_details.reasoning_tokens > 0
    direct = client.chat.completions.create(**body, reasoning_effort="none")
    assert not reasoning_of(direct.choices[0].message)
    assert direct.choices[0].message.content
    assert direct.usage.completion_tokens_details.reasoning_tokens == 0


def test_reasoning_can_be_hidden(client: OpenAI) -> None:
    hidden = client.chat.completions.create(**chat(), extra_body={"include_reasoning": False})
    assert not reasoning_of(hidden.choices[0].message)


def test_sixteen_tokens_are_enough_for_a_probe(client: OpenAI) -> None:
    # Gateways probe with 16 tokens; a reasoning model has no content by then, and that is fine.
    answer = client.chat.completions.create(**chat("Hey how's it going?", max_tokens=16))
    assert answer.choices[0].message.content is not None


def test_log_probabilities_are_consistent(client: OpenAI) -> None:
    body = chat("Name a colour.", logprobs=True, top_logprobs=5, temperature=0.7, seed=3)
    answer = client.chat.completions.create(**body)
    entries = answer.choices[0].logprobs.content
    assert 0 < len(entries) <= answer.usage.completion_tokens
    for entry in entries:
        assert entry.logprob <= 0
        values = [top.logprob for top in entry.top_logprobs]
        assert len(values) == 5
        assert all(value <= 0 for value in values)
        assert values == sorted(values, reverse=True)
        assert bytes(entry.bytes).decode(errors="replace") == entry.token
        known = {tuple(top.bytes): top.logprob for top in entry.top_logprobs}
        if tuple(entry.bytes) in known:
            assert known[tuple(entry.bytes)] == entry.logprob
        else:
            assert entry.logprob <= values[-1]


def test_greedy_decoding_takes_the_most_likely_token(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(logprobs=True, top_logprobs=1))
    for entry in answer.choices[0].logprobs.content:
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob


@pytest.mark.usefixtures("batch_invariant")
def test_streamed_log_probabilities_are_those_of_the_whole(client: OpenAI) -> None:
    body = chat(logprobs=True, top_logprobs=2)
    whole = client.chat.completions.create(**body).choices[0]
    streamed = collect(client.chat.completions.create(**body, stream=True))[0]
    assert streamed.logprobs == [(entry.token, entry.logprob) for entry in whole.logprobs.content]


def test_n_gives_that_many_different_choices(client: OpenAI) -> None:
    body = chat(n=4, temperature=1.0, seed=5, max_tokens=32)
    whole = client.chat.completions.create(**body)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    texts = [(reasoning_of(choice.message), choice.message.content) for choice in whole.choices]
    assert len(set(texts)) > 1
    streamed = collect(client.chat.completions.create(**body, stream=True))
    assert [(streamed[index].reasoning, streamed[index].content) for index in range(4)] == texts
    # The prompt counts once.
    single = client.chat.completions.create(**chat(max_tokens=1))
    assert whole.usage.prompt_tokens == single.usage.prompt_tokens


def test_equal_seeds_give_equal_answers(client: OpenAI) -> None:
    def answer(seed: int | None) -> str:
        body = chat(temperature=1.3, max_tokens=48, seed=seed)
        message = client.chat.completions.create(**body).choices[0].message
        return reasoning_of(message) + "|" + (message.content or "")

    assert answer(42) == answer(42)
    assert len({answer(seed) for seed in range(6)}) > 1
    assert len({answer(None) for _ in range(6)}) > 1


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_either_name_limits_the_answer(client: OpenAI, field: str) -> None:
    body = chat(ignored="", max_tokens=None)
    del body["ignored"], body["max_tokens"]
    answer = client.chat.completions.create(**body, **{field: 5}, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


def test_stop_strings_end_the_answer_and_are_left_out(client: OpenAI) -> None:
    body = chat(max_tokens=120, reasoning_effort="none")
    text = client.chat.completions.create(**body).choices[0].message.content
    # Any piece from the middle of the answer will do.
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    assert stop
    expected = text[: text.index(stop)]
    whole = client.chat.completions.create(**body, stop=[stop, "\0never"]).choices[0]
    assert whole.finish_reason == "stop"
    assert whole.message.content == expected
    streamed = collect(client.chat.completions.create(**body, stop=stop, stream=True))[0]
    assert streamed.content == expected
    extra = {"include_stop_str_in_output": True}
    kept = client.chat.completions.create(**body, stop=stop, extra_body=extra).choices[0]
    assert kept.message.content == expected + stop


def test_tools_and_their_history_are_accepted(client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather in Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]
    for choice in ("auto", "none"):
        answer = client.chat.completions.create(**chat(messages=messages, tools=[WEATHER_TOOL], tool_choice=choice))
        assert answer.choices[0].message.role == "assistant"
        if choice == "none":
            assert not answer.choices[0].message.tool_calls


def test_tool_calls_come_in_the_same_form_streamed_and_whole(client: OpenAI) -> None:
    body = chat("What is the weather in Paris?", max_tokens=200, tools=[WEATHER_TOOL])
    whole = client.chat.completions.create(**body).choices[0]
    streamed = collect(client.chat.completions.create(**body, stream=True))[0]
    assert streamed.finish_reason == whole.finish_reason
    expected = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls or []]
    found = [(call["name"], call["arguments"] or "{}") for _, call in sorted(streamed.tool_calls.items())]
    assert found == expected
    if expected:
        assert whole.finish_reason in ("tool_calls", "length")


def test_reasoning_may_be_sent_back(client: OpenAI) -> None:
    first = client.chat.completions.create(**chat("Hello!", max_tokens=200)).choices[0].message
    history = [
        {"role": "user", "content": "Hello!"},
        first.model_dump(exclude_none=True),
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    assert client.chat.completions.create(**chat(messages=history)).choices[0].finish_reason


def test_logit_bias_can_forbid_and_force(client: OpenAI) -> None:
    # 100 outweighs every logit of this model.
    answer = client.chat.completions.create(**chat(max_tokens=4, logit_bias={"300": 100}, logprobs=True))
    assert len({entry.token for entry in answer.choices[0].logprobs.content}) == 1
