"""Requests and answers that several tests use."""

from typing import Any

MODEL_NAME = "demo"

WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def chat(text: str = "Write a function that adds two numbers.", **fields: Any) -> dict[str, Any]:
    """Arguments of a greedy chat with one message."""
    body: dict[str, Any] = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 24,
    }
    return {**body, **fields}


def completion(prompt: Any = "def add(a, b):", **fields: Any) -> dict[str, Any]:
    """Arguments of a greedy completion."""
    return {"model": MODEL_NAME, "prompt": prompt, "temperature": 0, "max_tokens": 24, **fields}


def reasoning_of(message: Any) -> str:
    """The reasoning of an SDK message or delta, whose names for it must agree."""
    first, second = getattr(message, "reasoning", None), getattr(message, "reasoning_content", None)
    assert first == second
    return first or ""


class Collected:
    """What a stream of chat chunks adds up to, for one choice."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = ""
        self.finish_reason: str | None = None
        self.logprobs: list[tuple[str, float]] = []
        self.tool_calls: dict[int, dict[str, str]] = {}

    def add(self, choice: Any) -> None:
        assert self.finish_reason is None, "nothing follows the finish reason"
        self.content += choice.delta.content or ""
        self.reasoning += reasoning_of(choice.delta)
        for call in choice.delta.tool_calls or []:
            known = self.tool_calls.setdefault(call.index, {"id": call.id, "name": "", "arguments": ""})
            known["name"] += call.function.name or ""
            known["arguments"] += call.function.arguments or ""
        if choice.logprobs is not None:
            self.logprobs += [(entry.token, entry.logprob) for entry in choice.logprobs.content]
        self.finish_reason = choice.finish_reason


def collect(stream: Any) -> dict[int, Collected]:
    """All choices of a chat stream, by index."""
    choices: dict[int, Collected] = {}
    for chunk in stream:
        for choice in chunk.choices:
            choices.setdefault(choice.index, Collected()).add(choice)
    assert all(choice.finish_reason for choice in choices.values())
    return choices
