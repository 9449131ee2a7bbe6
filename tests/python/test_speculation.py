"""Guessing tokens ahead: answers stay what they are, whoever asks for them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import WEATHER_TOOL, chat, completion

CONFIG = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
LINES = "".join(f"    total = total + values[{index}]\n" for index in range(24))
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/completions", completion(f"def add(values):\n{LINES}", max_tokens=200, logprobs=3)),
    ("/completions", completion("x = [1, 2, 1, 2, 1, 2,", max_tokens=120, stop=["]"])),
    ("/completions", completion("a b a b a b", max_tokens=60, temperature=1.0, seed=5, n=4, frequency_penalty=0.3)),
    ("/completions", completion("for i in range(3):", max_tokens=7, echo=True, logprobs=2)),
    ("/chat/completions", chat(max_tokens=150, logprobs=True, top_logprobs=4, ignore_eos=True)),
    ("/chat/completions", chat("Weather?", max_tokens=90, tools=[WEATHER_TOOL], tool_choice="required")),
    ("/chat/completions", chat("One of two.", reasoning_effort="none", guided_choice=["one", "two"])),
]


async def answers(server: BackstopProcess) -> list[list[Any]]:
    """The choices of all requests, asked for at once, twice each."""
    async with httpx.AsyncClient(base_url=server.base_url, timeout=REQUEST_TIMEOUT_S) as client:
        both = [*REQUESTS, *REQUESTS]
        responses = await asyncio.gather(*(client.post(path, json=body) for path, body in both))
    return [[without_ids(choice) for choice in response.raise_for_status().json()["choices"]] for response in responses]


def without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    for call in choice.get("message", {}).get("tool_calls") or []:
        del call["id"]
    return choice


def test_guesses_do_not_change_answers(server: BackstopProcess, start: Callable[..., BackstopProcess]) -> None:
    guessing = start("--speculative-config", json.dumps(CONFIG)).wait_until_ready()
    assert asyncio.run(answers(guessing)) == asyncio.run(answers(server))
    guessing.wait_until_idle()
    metrics = guessing.metrics()
    accepted = metrics["vllm:spec_decode_num_accepted_tokens_total"]
    assert 100 < accepted < metrics["vllm:spec_decode_num_draft_tokens_total"], metrics
    assert metrics["vllm:spec_decode_num_drafts_total"] < metrics["vllm:spec_decode_num_draft_tokens_total"]


def test_a_setting_that_makes_no_sense_is_explained(start: Callable[..., BackstopProcess]) -> None:
    refused = start("--speculative-config", json.dumps({**CONFIG, "prompt_lookup_min": 9}))
    assert refused.wait() != 0
    assert "prompt_lookup_min in --speculative-config must lie between 1 and 3" in refused.log()
