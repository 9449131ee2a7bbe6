"""Properties under concurrency: answers do not depend on company, and nobody who leaves is missed."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import chat, completion

STREAMS = 64
ABORTS = 1000
ABORTS_AT_ONCE = 48
WORDS = "add reverse sort count parse merge find print list string number file tree graph loop class".split()


def request_number(index: int) -> tuple[str, dict[str, Any]]:
    """A path and a body; every index has its own prompt, length and seed."""
    chooser = random.Random(index)
    text = " ".join(chooser.choices(WORDS, k=chooser.randint(1, 120)))
    settings = {
        "temperature": chooser.choice([0, 0.6, 1.0, 1.4]),
        "top_p": chooser.choice([1.0, 0.9]),
        "seed": index,
        "max_tokens": chooser.randint(8, 64),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if index % 2:
        return "/chat/completions", chat(text, **settings, logprobs=True, top_logprobs=3)
    return "/completions", completion(text, **settings, logprobs=3)


async def answer_to(client: httpx.AsyncClient, index: int) -> dict[str, Any]:
    """Everything that must be the same each time."""
    path, body = request_number(index)
    text, logprobs, finish, usage, done = "", [], None, None, False
    async with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                done = True
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                delta = choice.get("delta", choice)
                text += (delta.get("reasoning") or "") + (delta.get("content") or "") + (delta.get("text") or "")
                logprobs += flat(choice["logprobs"])
                finish = choice["finish_reason"] or finish
    assert done
    counts = (usage["prompt_tokens"], usage["completion_tokens"])
    return {"text": text, "logprobs": logprobs, "finish": finish, "counts": counts}


def flat(logprobs: dict[str, Any] | None) -> list:
    """The log-probabilities of either endpoint, without where they begin."""
    if logprobs is None:
        return []
    if "content" in logprobs:
        return logprobs["content"]
    return list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))


async def serial_and_concurrent(base_url: str) -> tuple[list, list]:
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(base_url=base_url, timeout=REQUEST_TIMEOUT_S, limits=limits) as client:
        serial = [await answer_to(client, index) for index in range(STREAMS)]
        concurrent = await asyncio.gather(*(answer_to(client, index) for index in range(STREAMS)))
    return serial, concurrent


def assert_streams_keep_their_answers(server: BackstopProcess) -> None:
    serial, concurrent = asyncio.run(serial_and_concurrent(server.base_url))
    for index in range(STREAMS):
        assert serial[index]["logprobs"], f"request {index} has no log-probabilities"
        assert concurrent[index] == serial[index], f"request {index}"
    server.wait_until_idle()


@pytest.mark.slow
def test_each_of_64_streams_gets_its_own_serial_answer(start: Callable[..., BackstopProcess]) -> None:
    assert_streams_keep_their_answers(start().wait_until_ready())


@pytest.mark.slow
def test_preempted_sequences_give_their_serial_answers(start: Callable[..., BackstopProcess]) -> None:
    # Room for two of the longest sequences, small steps and no cache: preemptions and odd chunks.
    server = start(
        "--kv-cache-memory", "1MiB", "--block-size", "4", "--max-model-len", "224",
        "--max-num-batched-tokens", "67", "--no-enable-prefix-caching",
    ).wait_until_ready()  # fmt: skip
    assert_streams_keep_their_answers(server)

    # Sequences of one request begin together however fast the model is, and these cannot all stay.
    prompts = WORDS[:8]
    settings = {"max_tokens": 120, "ignore_eos": True, "temperature": 1.0, "seed": 7}
    preemptions = server.metrics()["vllm:num_preemptions_total"]
    with httpx.Client(base_url=server.base_url, timeout=REQUEST_TIMEOUT_S) as client:
        together = client.post("/completions", json=completion(prompts, **settings)).json()
        assert server.metrics()["vllm:num_preemptions_total"] > preemptions
        for prompt, choice in zip(prompts, together["choices"], strict=True):
            alone = client.post("/completions", json=completion(prompt, **settings)).json()
            assert choice["text"] == alone["choices"][0]["text"], prompt


async def abort(port: int, index: int) -> str:
    """Sends a request and leaves at some point; says at which."""
    chooser = random.Random(index)
    path, body = request_number(index)
    body = {**body, "max_tokens": 600, "ignore_eos": True, "n": chooser.choice([1, 1, 1, 2])}
    kind = chooser.choice(["at once", "in the middle of the body", "before the answer", "chunks", "whole"])
    if kind == "whole":
        body["stream"] = False
    payload = json.dumps(body).encode()
    head = f"POST /v1{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if kind == "in the middle of the body":
            writer.write(head.encode() + payload[: len(payload) // 2])
            await writer.drain()
        else:
            writer.write(head.encode() + payload)
            await writer.drain()
        if kind in ("before the answer", "whole"):
            await asyncio.sleep(chooser.uniform(0, 0.05))
        elif kind == "chunks":
            for _ in range(chooser.randint(1, 4)):
                await asyncio.wait_for(reader.read(4096), REQUEST_TIMEOUT_S)
        if chooser.random() < 0.5:
            # A reset instead of an orderly end.
            writer.transport.abort()
    finally:
        writer.close()
    return kind


async def abort_many(port: int) -> dict[str, int]:
    places = asyncio.Semaphore(ABORTS_AT_ONCE)
    counts: dict[str, int] = {}

    async def one(index: int) -> None:
        async with places:
            kind = await abort(port, index)
            counts[kind] = counts.get(kind, 0) + 1

    await asyncio.gather(*(one(index) for index in range(ABORTS)))
    return counts


def settled(read: Callable[[], int], limit: int, timeout_s: float = 30) -> int:
    """The value once it is within `limit`, or the last one."""
    deadline = time.monotonic() + timeout_s
    while (value := read()) > limit and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


@pytest.mark.slow
def test_a_thousand_aborted_streams_leave_nothing_behind(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    # Everything that is allocated once has been after some ordinary traffic and some aborts.
    asyncio.run(serial_and_concurrent(server.base_url))
    asyncio.run(abort_many(server.port))
    server.wait_until_idle()
    time.sleep(1)
    files, threads, resident = server.open_files(), server.threads(), server.resident_bytes()
    before = server.metrics()
    counts = asyncio.run(abort_many(server.port))
    assert sum(counts.values()) == ABORTS and len(counts) == 5
    server.wait_until_idle()
    assert settled(server.open_files, files) <= files
    assert settled(server.threads, threads) <= threads
    assert server.resident_bytes() < resident + (32 << 20)
    # Aborted sequences did not run to their end.
    generated = server.metrics()["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
    assert generated < ABORTS * 100
    assert httpx.post(f"{server.base_url}/completions", json=completion()).status_code == 200
