"""Behind the LiteLLM proxy: whatever happens to the primary, Backstop answers. Skipped without litellm."""

from itertools import product

import pytest

pytest.importorskip("litellm", reason="the LiteLLM proxy has an environment of its own")

from openai import BadRequestError, OpenAI  # noqa: E402

from fake_primary import CUT_TEXT, FakePrimary  # noqa: E402
from litellm_proxy import FAULTS, PREFIXES  # noqa: E402
from requests_made import chat, collect, reasoning_of  # noqa: E402

CASES = list(product(FAULTS, PREFIXES))
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(("fault", "prefix"), CASES)
def test_an_answer_comes_from_backstop(
    through: OpenAI, client: OpenAI, primary: FakePrimary, fault: str, prefix: str
) -> None:
    hits = primary.hits[fault]
    body = chat(model=f"{fault}-whole-{prefix}")
    raw = through.chat.completions.with_raw_response.create(**body)
    assert fault == "refused" or primary.hits[fault] == hits + 1, "the primary was asked, once"
    assert raw.headers["x-litellm-model-group"] == f"backstop-{prefix}"
    answer, direct = raw.parse(), client.chat.completions.create(**chat())
    [choice], [expected] = answer.choices, direct.choices
    assert choice.message.content == expected.message.content
    assert choice.message.reasoning_content == reasoning_of(expected.message)
    assert choice.finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == direct.usage.completion_tokens
    assert answer.usage.prompt_tokens == direct.usage.prompt_tokens


@pytest.mark.parametrize(("fault", "prefix"), [case for case in CASES if case[0] != "cut-after"])
def test_a_stream_comes_from_backstop(
    through: OpenAI, client: OpenAI, primary: FakePrimary, fault: str, prefix: str
) -> None:
    hits = primary.hits[fault]
    body = chat(model=f"{fault}-streamed-{prefix}", max_tokens=40)
    streamed = Streamed(through, body)
    assert fault == "refused" or primary.hits[fault] == hits + 1, "the primary was asked, once"
    direct = client.chat.completions.create(**chat(max_tokens=40))
    [expected] = direct.choices
    assert streamed.content == (expected.message.content or "")
    assert streamed.reasoning == reasoning_of(expected.message)
    assert streamed.finish_reason == expected.finish_reason
    assert streamed.usage.completion_tokens == direct.usage.completion_tokens


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_stream_that_breaks_in_its_text_is_continued_by_backstop(
    through: OpenAI, client: OpenAI, primary: FakePrimary, prefix: str
) -> None:
    hits = primary.hits["cut-after"]
    streamed = Streamed(through, chat(model=f"cut-after-streamed-{prefix}", max_tokens=40))
    assert primary.hits["cut-after"] == hits + 1
    prefill = {"role": "assistant", "content": CUT_TEXT, "prefix": True}
    body = chat(max_tokens=40)
    body["messages"] = [*body["messages"], prefill]
    continuation = collect(client.chat.completions.create(**body, stream=True))[0]
    assert continuation.content, "there is something left to say"
    # One text without a seam: what the primary said, and after it what Backstop says to that beginning. LiteLLM takes
    # the tokens that are spent already off the limit.
    assert streamed.content.startswith(CUT_TEXT)
    assert (CUT_TEXT + continuation.content).startswith(streamed.content)
    assert len(streamed.content) > len(CUT_TEXT)
    assert streamed.finish_reason in ("stop", "length")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_group_that_the_list_for_policies_forgets_has_no_fallback_for_that_error(through: OpenAI, prefix: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        through.chat.completions.create(**chat(model=f"policy-forgotten-{prefix}"))
    assert "ContentPolicyViolationError" in caught.value.message


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_group_that_the_list_for_long_contexts_forgets_takes_the_ordinary_fallback(
    through: OpenAI, client: OpenAI, prefix: str
) -> None:
    answer = through.chat.completions.create(**chat(model=f"context-forgotten-{prefix}"))
    assert answer.choices[0].message.content == client.chat.completions.create(**chat()).choices[0].message.content


class Streamed:
    """What one streamed answer adds up to, as LiteLLM writes it."""

    def __init__(self, through: OpenAI, body: dict) -> None:
        self.content = self.reasoning = ""
        self.finish_reason = self.usage = None
        for chunk in through.chat.completions.create(**body, **WITH_USAGE):
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self.content += choice.delta.content or ""
                self.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                self.finish_reason = choice.finish_reason or self.finish_reason
