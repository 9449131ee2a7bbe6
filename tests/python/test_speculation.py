"""Guessing tokens ahead: answers stay what they are, whoever asks for them."""

import array
import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from large_checkpoint import DEMO
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


def write_eagle_head(directory: Path) -> Path:
    """Fills `directory` with a head for the demo model, of two layers and random weights."""
    demo = json.loads((DEMO / "config.json").read_text())
    shared = ("vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window", "rms_norm_eps")
    config = {"model_type": "cohere2", "num_hidden_layers": 2, "intermediate_size": 96, "layer_types": ["sliding_attention"] * 2}
    (directory / "config.json").write_text(json.dumps({**config, **{name: demo[name] for name in shared}}))
    hidden, width = demo["hidden_size"], config["intermediate_size"]
    query, key = (demo[name] * demo["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    shapes = {"model.fc.weight": [hidden, 2 * hidden], "model.fc.bias": [hidden], "model.norm.weight": [hidden]}
    for layer in ("model.layers.0", "model.layers.1"):
        shapes[f"{layer}.input_layernorm.weight"] = [hidden]
        for name, rows, columns in (("q", query, hidden), ("k", key, hidden), ("v", key, hidden), ("o", hidden, query)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = [rows, columns]
        for name, rows, columns in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
            shapes[f"{layer}.mlp.{name}_proj.weight"] = [rows, columns]
    numbers, header, data = random.Random(1), {}, b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        start = len(data)
        data += array.array("f", (numbers.gauss(0, shape[-1] ** -0.5) for _ in range(count))).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    (directory / "model.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return directory


def test_a_draft_head_does_not_change_answers(server: BackstopProcess, start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    config = {"method": "eagle", "model": str(write_eagle_head(tmp_path)), "num_speculative_tokens": 3}
    guessing = start("--speculative-config", json.dumps(config)).wait_until_ready()
    assert asyncio.run(answers(guessing)) == asyncio.run(answers(server))
    guessing.wait_until_idle()
    metrics = guessing.metrics()
    guessed = metrics["vllm:spec_decode_num_draft_tokens_total"]
    assert guessed > 1000, metrics
    assert metrics["vllm:spec_decode_num_accepted_tokens_total"] < guessed, metrics


def test_a_draft_head_that_is_none_is_explained(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    for model, reason in (("no_such_head", 'there is no model "no_such_head"'), (str(DEMO), "supported are: cohere2")):
        config = {"method": "eagle", "model": model, "num_speculative_tokens": 3}
        refused = start("--speculative-config", json.dumps(config))
        assert refused.wait() != 0
        assert "model in --speculative-config" in refused.log() and reason in refused.log(), refused.log()
    (write_eagle_head(tmp_path) / "model.safetensors").write_bytes(b"\0" * 100)
    refused = start("--speculative-config", json.dumps({**config, "model": str(tmp_path)}))
    assert refused.wait() != 0
    assert "model.safetensors" in refused.log(), refused.log()


def test_a_setting_that_makes_no_sense_is_explained(start: Callable[..., BackstopProcess]) -> None:
    refused = start("--speculative-config", json.dumps({**CONFIG, "prompt_lookup_min": 9}))
    assert refused.wait() != 0
    assert "prompt_lookup_min in --speculative-config must lie between 1 and 3" in refused.log()
