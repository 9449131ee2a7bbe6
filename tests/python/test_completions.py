"""POST /v1/completions through the vendor's SDK."""

import pytest
from openai import BadRequestError, OpenAI

from requests_made import completion


def test_a_text_is_continued(client: OpenAI) -> None:
    answer = client.completions.create(**completion())
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.usefixtures("batch_invariant")
def test_a_list_of_prompts_is_answered_in_order(client: OpenAI) -> None:
    prompts = ["def add(a, b):", "import ", "class Stack:"]
    alone = [client.completions.create(**completion(prompt)) for prompt in prompts]
    together = client.completions.create(**completion(prompts))
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == [answer.choices[0].text for answer in alone]
    assert together.usage.prompt_tokens == sum(answer.usage.prompt_tokens for answer in alone)


def test_token_ids_are_prompts_as_well(client: OpenAI) -> None:
    one = client.completions.create(**completion([300, 301, 302]))
    assert one.usage.prompt_tokens == 3
    two = client.completions.create(**completion([[300, 301, 302], [400, 401]]))
    assert two.usage.prompt_tokens == 5
    assert two.choices[0].text == one.choices[0].text


def test_unknown_token_ids_are_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(**completion([2_000_000_000]))
    assert caught.value.param == "prompt"


def test_echo_repeats_the_prompt(client: OpenAI) -> None:
    prompt = "def add(a, b):"
    plain = client.completions.create(**completion(prompt)).choices[0].text
    assert client.completions.create(**completion(prompt, echo=True)).choices[0].text == prompt + plain
    stream = client.completions.create(**completion(prompt, echo=True), stream=True)
    assert "".join(choice.text for chunk in stream for choice in chunk.choices) == prompt + plain


@pytest.mark.usefixtures("batch_invariant")
def test_an_echoed_prompt_has_log_probabilities(client: OpenAI) -> None:
    prompt = "def add(a, b):"
    choice = client.completions.create(**completion(prompt, echo=True, logprobs=2)).choices[0]
    logprobs = choice.logprobs
    # The tokenizer puts a token before the text, which follows nothing.
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens[1:]) == choice.text and choice.text.startswith(prompt)
    for token, offset in zip(logprobs.tokens[1:], logprobs.text_offset[1:], strict=True):
        assert choice.text[offset:].startswith(token)
    alone = client.completions.create(**{**completion(prompt, echo=True, logprobs=2), "max_tokens": 0})
    rated = alone.choices[0].logprobs.token_logprobs
    assert alone.choices[0].text == prompt and alone.usage.completion_tokens == 0
    assert rated == logprobs.token_logprobs[: len(rated)]


def test_log_probabilities_are_parallel_lists(client: OpenAI) -> None:
    choice = client.completions.create(**completion(logprobs=3)).choices[0]
    logprobs = choice.logprobs
    count = len(logprobs.tokens)
    assert count > 0
    assert count == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset)
    assert "".join(logprobs.tokens) == choice.text
    offset = 0
    for index, token in enumerate(logprobs.tokens):
        value, top = logprobs.token_logprobs[index], logprobs.top_logprobs[index]
        assert value <= 0
        # Greedy: nothing is more likely than what was taken.
        assert top[token] == value == max(top.values())
        assert logprobs.text_offset[index] == offset
        offset += len(token)


@pytest.mark.usefixtures("batch_invariant")
def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    body = completion(["def add(a, b):", "for i in range("], n=2, temperature=0.8, seed=9, logprobs=1)
    whole = client.completions.create(**body)
    options = {"include_usage": True}
    chunks = list(client.completions.create(**body, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    for expected in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == expected.index]
        assert "".join(part.text for part in parts) == expected.text
        assert parts[-1].finish_reason == expected.finish_reason
        with_logprobs = [part.logprobs for part in parts if part.logprobs]
        values = [value for logprobs in with_logprobs for value in logprobs.token_logprobs]
        offsets = [offset for logprobs in with_logprobs for offset in logprobs.text_offset]
        assert values == expected.logprobs.token_logprobs
        assert offsets == expected.logprobs.text_offset


def test_stop_token_ids_end_the_answer(client: OpenAI) -> None:
    extra = {"stop_token_ids": [301], "ignore_eos": True}
    body = completion(logit_bias={"301": 100}, max_tokens=8)
    answer = client.completions.create(**body, extra_body=extra)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra["stop_reason"] == 301
    assert answer.usage.completion_tokens == 1


def test_min_tokens_holds_back_the_end(client: OpenAI) -> None:
    extra = {"stop_token_ids": [301], "min_tokens": 4}
    answer = client.completions.create(**completion(logit_bias={"301": 100}, max_tokens=8), extra_body=extra)
    assert answer.usage.completion_tokens == 5
