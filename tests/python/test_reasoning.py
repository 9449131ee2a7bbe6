"""Budgets of reasoning, and messages that are continued within it, through the vendors' packages."""

from typing import Any

import pytest
from openai import OpenAI

from backstop_process import BackstopProcess
from requests_made import MODEL_NAME, chat, reasoning_of

QUESTION = "Write a function that adds two numbers."


@pytest.mark.parametrize("budget", [0, 1, 6])
@pytest.mark.parametrize(
    "fields",
    [
        lambda budget: {"thinking_token_budget": budget},
        lambda budget: {"thinking_budget": budget},
        lambda budget: {"reasoning": {"max_tokens": budget}},
        lambda budget: {"google": {"thinking_config": {"thinking_budget": budget}}},
    ],
)
def test_a_chat_keeps_to_its_budget(client: OpenAI, budget: int, fields: Any) -> None:
    for settings in [{"temperature": 0}, {"temperature": 1.0, "seed": 3}]:
        body = chat(QUESTION, max_tokens=120, **settings)
        choice = client.chat.completions.create(**body, extra_body=fields(budget))
        [message] = [choice.message for choice in choice.choices]
        details = choice.usage.completion_tokens_details
        # The token that closes reasoning may count as well.
        assert details.reasoning_tokens <= budget + 1
        assert bool(reasoning_of(message)) == (budget > 0)
        assert message.content or message.tool_calls


def test_a_budget_that_is_not_spent_changes_nothing(client: OpenAI) -> None:
    body = chat(QUESTION, max_tokens=120)
    free = client.chat.completions.create(**body).choices[0].message
    bounded = client.chat.completions.create(**body, extra_body={"thinking_budget": 5000}).choices[0].message
    assert (bounded.content, reasoning_of(bounded)) == (free.content, reasoning_of(free))


def test_a_message_keeps_to_its_budget(server: BackstopProcess) -> None:
    anthropic = pytest.importorskip("anthropic")
    client = anthropic.Anthropic(base_url=server.root, api_key="unused", max_retries=0)
    thinking = {"type": "enabled", "budget_tokens": 5}
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": MODEL_NAME, "max_tokens": 120, "messages": messages}
    message = client.messages.create(**body, thinking=thinking, extra_body={"temperature": 0})
    assert [block.type for block in message.content][:2] == ["thinking", "text"]
    assert 0 < len(message.content[0].thinking.split()) <= 5


def test_reasoning_is_continued_where_it_ends(client: OpenAI) -> None:
    whole = client.chat.completions.create(**chat(QUESTION, max_tokens=120)).choices[0].message
    thought = reasoning_of(whole)
    half = thought[: len(thought) // 2]
    partial = {"role": "assistant", "content": "", "reasoning": half, "prefix": True}
    body = chat(QUESTION, max_tokens=120)
    rest = client.chat.completions.create(**{**body, "messages": [*body["messages"], partial]}).choices[0].message
    assert rest.content
    assert not reasoning_of(rest).startswith(half)
