"""One key does all it can to keep the server to itself; another one asks for something small and gets it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from backstop_process import BackstopProcess
from requests_made import chat

GREEDY, MODEST = "greedy-key", "modest-key"
# Everything together: the server gives up on a request that waits for 30 s.
PATIENCE_S = 80
MIB = 1 << 20


@pytest.fixture
def server(start: Callable[..., BackstopProcess], tmp_path: Path) -> BackstopProcess:
    keys = tmp_path / "keys"
    keys.write_text(f"{GREEDY} name=greedy\n{MODEST} name=modest may-see-all-keys\n")
    keys.chmod(0o600)
    return start("--api-key-file", str(keys)).wait_until_ready()


class Raw:
    """A connection on which a request is sent by hand, and as slowly as one likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def send(self, path: str, body: bytes, length: int | None = None) -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {GREEDY}\r\n"
        head += f"content-length: {len(body) if length is None else length}\r\n\r\n"
        self.writer.write(head.encode() + body)
        try:
            await self.writer.drain()
        except OSError:
            pass  # It was refused, and the answer says so.

    async def status(self) -> int:
        return int((await self.reader.readline()).split()[1])


@asynccontextmanager
async def connections(server: BackstopProcess, count: int) -> AsyncIterator[list[Raw]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            opened.append(Raw(reader, writer))
        yield opened


def modest(server: BackstopProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.root, headers={"x-api-key": MODEST}, timeout=PATIENCE_S)


async def ask(client: httpx.AsyncClient, text: str = "Hello", padding: int = 0, **fields: Any) -> None:
    body = json.dumps(chat(text, **fields)).encode() + b" " * padding
    answer = await client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 200, answer.text


async def stream(client: httpx.AsyncClient, tokens: int) -> int:
    """Streams an answer to its end; how many pieces it had."""
    body = chat("Hello", stream=True, max_tokens=tokens, min_tokens=tokens)
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return len(lines)


def small_is_answered(
    server: BackstopProcess, requests: list[tuple[str, bytes]], length: int | None = None, padding: int = 0
) -> list[int]:
    """Lets one key send these requests, waits until another one has been answered, returns what became of the first."""

    async def run() -> list[int]:
        async with connections(server, len(requests)) as crowd, modest(server) as client:
            pairs = zip(crowd, requests, strict=True)
            sending = [asyncio.create_task(raw.send(*request, length)) for raw, request in pairs]
            states = [asyncio.create_task(raw.status()) for raw in crowd]
            # The crowd has come when something of it has been refused or answered, or all has been sent.
            await asyncio.wait([asyncio.gather(*sending), *states], return_when=asyncio.FIRST_COMPLETED)
            for _ in range(3):
                await ask(client, "word " * 1000, padding, max_tokens=4)
                assert await stream(client, 20) > 1
            for task in [*sending, *states]:
                task.cancel()
            ended = await asyncio.gather(*states, return_exceptions=True)
            await asyncio.gather(*sending, return_exceptions=True)
            return [status for status in ended if isinstance(status, int)]

    return asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


@pytest.mark.parametrize("count", [24, 240])
def test_prompts_that_are_long_to_prepare_keep_nobody_else_waiting(server: BackstopProcess, count: int) -> None:
    body = json.dumps({"tokens": [300] * (MIB // 2)}).encode()
    small_is_answered(server, [("/detokenize", body)] * (count // 2) + [("/tokenize", slow_text())] * (count // 2))


def slow_text() -> bytes:
    """A text just short enough to be tokenised in full, without a place to divide it."""
    return json.dumps({"prompt": "a" * 80_000}).encode()


@pytest.mark.parametrize("count", [16, 160])
def test_bodies_that_never_end_shut_nobody_else_out(server: BackstopProcess, count: int) -> None:
    body = b" " * (32 * MIB - 1)
    if count > 100:
        body = body[: 4 * MIB]
    statuses = small_is_answered(server, [("/v1/chat/completions", body)] * count, 32 * MIB, 8 * MIB)
    assert set(statuses) <= {408, 429}


def test_without_keys_bodies_that_stand_still_give_way(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()

    async def run() -> None:
        async with connections(server, 16) as crowd, httpx.AsyncClient(base_url=server.root) as client:
            body = b" " * (32 * MIB - 1)
            await asyncio.gather(*(raw.send("/v1/chat/completions", body, 32 * MIB) for raw in crowd))
            small = json.dumps(chat(max_tokens=4)).encode() + b" " * MIB
            # The server waits a minute for the end of a body, unless others need the room.
            deadline = asyncio.get_running_loop().time() + 30
            while (await client.post("/v1/chat/completions", content=small, timeout=PATIENCE_S)).status_code != 200:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


@pytest.mark.parametrize("count", [150, 1500])
def test_long_streams_leave_a_place_to_others(server: BackstopProcess, count: int) -> None:
    body = json.dumps(chat(stream=True, max_tokens=4000, min_tokens=4000)).encode()

    async def run() -> None:
        async with AsyncExitStack() as crowd, modest(server) as client:
            # One after the other: who connects and sends nothing is a stranger, of whom there may be fewer.
            for number in range(count):
                [raw] = await crowd.enter_async_context(connections(server, 1))
                await raw.send("/v1/chat/completions", body)
                if number == 0:
                    first = raw
                    assert await first.status() == 200
            for _ in range(3):
                await ask(client, max_tokens=16)
            assert await stream(client, 100) > 1
            # The others go on.
            for _ in range(20):
                assert await first.reader.readline() != b""
            text = (await client.get("/metrics")).text
            requests = re.search(r'key_requests_total\{key="greedy"\} (\d+)', text)
            assert requests and int(requests[1]) >= 150

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_a_prompt_is_cached_for_its_own_key_alone(server: BackstopProcess) -> None:
    text = "A prompt that only one of them has sent before. " * 80

    def cached(key: str, **fields: Any) -> int:
        body = chat(text, max_tokens=1, **fields)
        answer = httpx.post(f"{server.base_url}/chat/completions", json=body, headers={"x-api-key": key}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(GREEDY) == 0
    assert cached(GREEDY) > 500
    assert cached(MODEST) == 0
    assert cached(GREEDY, cache_salt="ours") == 0
    assert cached(GREEDY, cache_salt="ours") > 500
    assert cached(MODEST, cache_salt="ours") == 0


def test_prefixes_can_be_shared_between_keys(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{GREEDY}\n{MODEST}\n")
    server = start("--api-key-file", str(keys), "--share-prefix-cache").wait_until_ready()
    text = "A prompt that both of them have. " * 80
    counts = []
    for key in (GREEDY, MODEST):
        body = chat(text, max_tokens=1)
        answer = httpx.post(f"{server.base_url}/chat/completions", json=body, headers={"x-api-key": key}, timeout=30)
        counts.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert counts[0] == 0 and counts[1] > 300
