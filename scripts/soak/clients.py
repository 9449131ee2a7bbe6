"""What clients do to a server on a bad day. Each kind of client is a coroutine that sends one request and returns what came
of it in a word; an `Unexpected` is an answer that no client should ever get."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT_S = 300.0
# Of an answer in time: it was given, or refused for want of room.
REFUSALS = {429, 503}
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards boil green soup and count their red cups".split()
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"], "additionalProperties": False},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


class Unexpected(Exception):
    """An answer that no client should ever get."""


@dataclass
class Client:
    """One client: its connection, its dice, and the model that it asks."""

    http: httpx.AsyncClient
    dice: random.Random
    model: str

    def text(self, words: int) -> str:
        return " ".join(self.dice.choice(WORDS) for _ in range(words))

    def chat(self, words: int = 20, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.text(words)}]
        return {"model": self.model, "messages": messages, "max_tokens": self.dice.randint(4, 64), "temperature": 1, **fields}


async def whole(client: Client, path: str, body: Any) -> tuple[str, Any]:
    """An answer in one piece."""
    response = await client.http.post(path, json=body, timeout=TIMEOUT_S)
    if response.status_code in REFUSALS:
        return f"refused {response.status_code}", None
    if response.status_code != 200:
        raise Unexpected(f"{path}: {response.status_code}: {response.text[:200]}")
    return "answered", response.json()


async def streamed(client: Client, body: Any, pieces: int | None = None, pause_s: float = 0.0) -> str:
    """A streamed chat, read to its end, or given up after so many pieces."""
    async with client.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, timeout=TIMEOUT_S) as response:
        if response.status_code in REFUSALS:
            await response.aread()
            return f"refused {response.status_code}"
        if response.status_code != 200:
            raise Unexpected(f"stream: {response.status_code}: {(await response.aread())[:200]!r}")
        last, count = "", 0
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            last, count = line, count + 1
            if count == pieces:
                return "aborted"
            if pause_s:
                await asyncio.sleep(pause_s)
        if last == "data: [DONE]":
            return "answered"
        error = json.loads(last.removeprefix("data: ") or "{}").get("error", {})
        if error.get("code") in ("deadline_exceeded", "queue_full"):
            return f"refused late: {error['code']}"
        raise Unexpected(f"a stream ended with {last[:200]!r}")


async def stream(client: Client) -> str:
    return await streamed(client, client.chat())


async def answer(client: Client) -> str:
    return (await whole(client, "/v1/chat/completions", client.chat()))[0]


async def abort_stream(client: Client) -> str:
    return await streamed(client, client.chat(max_tokens=200, ignore_eos=True), pieces=client.dice.randint(1, 20))


async def abort_answer(client: Client) -> str:
    body = client.chat(max_tokens=400, ignore_eos=True, n=client.dice.choice([1, 4]))
    try:
        async with asyncio.timeout(client.dice.uniform(0.01, 1.5)):
            return (await whole(client, "/v1/chat/completions", body))[0]
    except TimeoutError:
        return "aborted"


async def slow_reader(client: Client) -> str:
    return await streamed(client, client.chat(max_tokens=40, ignore_eos=True), pause_s=client.dice.uniform(0.05, 0.5))


async def long_prompt(client: Client) -> str:
    return await streamed(client, client.chat(words=client.dice.randint(300, 1500), max_tokens=8))


async def several_choices(client: Client) -> str:
    body = {"model": client.model, "prompt": client.text(10), "n": 3, "max_tokens": 24, "temperature": 1, "logprobs": 2, "stop": ["fox"]}
    return (await whole(client, "/v1/completions", body))[0]


async def tools(client: Client) -> str:
    body = client.chat(tools=[TOOL], tool_choice="required", max_tokens=120)
    return (await whole(client, "/v1/chat/completions", body))[0]


async def schema(client: Client) -> str:
    body = client.chat(response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}, max_tokens=150)
    outcome, reply = await whole(client, "/v1/chat/completions", body)
    if reply and reply["choices"][0]["finish_reason"] == "stop":
        json.loads(reply["choices"][0]["message"]["content"])
    return outcome


async def other_dialects(client: Client) -> str:
    messages = [{"role": "user", "content": client.text(8)}]
    path, body = client.dice.choice(
        [
            ("/v1/messages", {"model": client.model, "messages": messages, "max_tokens": 20}),
            ("/v1/responses", {"model": client.model, "input": client.text(8), "max_output_tokens": 20}),
            ("/api/chat", {"model": client.model, "messages": messages, "stream": False, "options": {"num_predict": 20}}),
        ]
    )
    return (await whole(client, path, body))[0]


async def bad_input(client: Client) -> str:
    """What is wrong is refused as such, and nothing else happens."""
    body, allowed = client.dice.choice(
        [
            (b'{"messages": [', {400}),
            (b"\xff\xfe\x00", {400}),
            (b"[" * 5000, {400}),
            (json.dumps(client.chat(temperature="hot")).encode(), {400}),
            (json.dumps(client.chat(max_tokens=-1)).encode(), {400}),
            (json.dumps(client.chat(words=40_000)).encode(), {400}),
            (json.dumps(client.chat(tools=[{"type": "function"}])).encode(), {400}),
            (json.dumps({"model": client.model, "messages": []}).encode(), {400}),
        ]
    )
    headers = {"content-type": "application/json"}
    response = await client.http.post("/v1/chat/completions", content=body, headers=headers, timeout=TIMEOUT_S)
    if response.status_code not in allowed | REFUSALS:
        raise Unexpected(f"bad input {body[:80]!r}: {response.status_code}: {response.text[:200]}")
    return "refused as wrong" if response.status_code in allowed else f"refused {response.status_code}"


async def half_a_request(client: Client) -> str:
    """A connection that is given up in the middle of a request."""
    url = client.http.base_url
    _reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{"
        writer.write(head[: client.dice.randint(1, len(head))])
        await writer.drain()
        await asyncio.sleep(client.dice.uniform(0, 1))
    finally:
        writer.close()
    return "hung up"


async def ordinary(client: Client) -> str:
    """What is timed: always the same amount of work."""
    outcome = await streamed(client, client.chat(words=12, max_tokens=16, ignore_eos=True))
    if outcome.startswith("refused"):
        # Not timed with the answers.
        raise Refused(outcome)
    return outcome


async def heavy(client: Client) -> str:
    """Much work for the server and little for who asks, so that a client on the same machine can ask for too much."""
    body = client.chat(words=12, max_tokens=128, ignore_eos=True)
    outcome, _ = await whole(client, "/v1/chat/completions", body)
    if outcome.startswith("refused"):
        raise Refused(outcome)
    return outcome


class Refused(Exception):
    """There was no room for a client that is timed."""


# How often each comes, for a hundred in all.
KINDS: dict[Callable[[Client], Awaitable[str]], int] = {
    stream: 20,
    answer: 14,
    abort_stream: 12,
    abort_answer: 8,
    slow_reader: 4,
    long_prompt: 6,
    several_choices: 6,
    tools: 6,
    schema: 6,
    other_dialects: 6,
    bad_input: 8,
    half_a_request: 4,
}
