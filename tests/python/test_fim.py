"""Filling in the middle, as editors and SDKs ask for it, of a checkpoint whose vocabulary has the tokens."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from backstop_process import BINARY, REQUEST_TIMEOUT_S, BackstopProcess
from conftest import sdk
from fim_checkpoint import TOKENS, write_fim_checkpoint

PREFIX = "def add(a, b):\n    total ="
SUFFIX = "\n    return total\n"


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackstopProcess]:
    model = write_fim_checkpoint(tmp_path_factory.mktemp("fim"))
    process = BackstopProcess("--served-model-name", "demo,*", model=str(model))
    try:
        yield process.wait_until_ready()
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.fixture
def editor(filling: BackstopProcess) -> Iterator[OpenAI]:
    with sdk(filling) as client:
        yield client


def post(server: BackstopProcess, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.root}{path}", json=body, timeout=REQUEST_TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def token_ids(server: BackstopProcess, text: str, add_special_tokens: bool = False) -> list[int]:
    return post(server, "/tokenize", prompt=text, add_special_tokens=add_special_tokens)["tokens"]


def ids_by_hand(server: BackstopProcess, before: str, behind: str) -> list[int]:
    """The prompt that stands for two texts."""
    mark = {token: token_ids(server, token)[0] for token in TOKENS}
    begin = token_ids(server, "", add_special_tokens=True)
    prefix, suffix = token_ids(server, before), token_ids(server, behind)
    return [*begin, mark["<|fim_prefix|>"], *prefix, mark["<|fim_suffix|>"], *suffix, mark["<|fim_middle|>"]]


def middle(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "prompt": PREFIX, "suffix": SUFFIX, "temperature": 0, "max_tokens": 12, **fields}


def test_a_middle_is_what_the_tokens_by_hand_give(filling: BackstopProcess, editor: OpenAI) -> None:
    by_hand = middle(prompt=ids_by_hand(filling, PREFIX, SUFFIX), suffix=None)
    expected = editor.completions.create(**by_hand, logprobs=1)
    answer = editor.completions.create(**middle(logprobs=1))
    assert answer.choices == expected.choices
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    stream = editor.completions.create(**middle(), stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == expected.choices[0].text
    several = editor.completions.create(**middle(prompt=[PREFIX, "import "], n=2))
    assert [choice.text for choice in several.choices][:2] == [expected.choices[0].text] * 2


def test_a_middle_ends_at_the_tokens_that_ask_for_it(filling: BackstopProcess, editor: OpenAI) -> None:
    for token in TOKENS:
        (mark,) = token_ids(filling, token)
        answer = editor.completions.create(**middle(logit_bias={str(mark): 100}))
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop"), token


def test_texts_of_control_tokens_are_text(filling: BackstopProcess, editor: OpenAI) -> None:
    plain = editor.completions.create(**middle(suffix="x"))
    marked = editor.completions.create(**middle(suffix="x<|fim_middle|>"))
    assert marked.usage.prompt_tokens > plain.usage.prompt_tokens + 1


def test_an_editor_of_llama_cpp(filling: BackstopProcess, editor: OpenAI) -> None:
    expected = editor.completions.create(**middle(max_tokens=20)).choices[0].text
    # As llama.vim asks.
    asked = {
        "id_slot": 0,
        "input_prefix": "def add(a, b):\n",
        "input_suffix": SUFFIX,
        "input_extra": [],
        "prompt": "    total =",
        "n_predict": 20,
        "stop": [],
        "n_indent": 0,
        "top_k": 40,
        "top_p": 0.99,
        "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 100_000,
        "temperature": 0,
    }
    fields = ["content", "timings/prompt_n", "timings/prompt_ms", "timings/predicted_per_second", "truncated", "tokens_cached"]
    answer = post(filling, "/infill", **asked, response_fields=fields)
    assert set(answer) == set(fields)
    assert answer["content"] == expected
    warm_up = {**asked, "n_predict": 0, "samplers": [], "response_fields": [""]}
    assert post(filling, "/infill", **warm_up) == {}
    extra = [{"filename": "other.py", "text": "def sub(a, b):\n    return a - b\n"}]
    whole = post(filling, "/infill", **{**asked, "input_extra": extra})
    assert "<|file_sep|>other.py\ndef sub(a, b):" in whole["prompt"]
    # The second request with the same files finds most of its prompt in the cache.
    again = post(filling, "/infill", **{**asked, "input_extra": extra})
    assert again["timings"]["cache_n"] > 0
    assert again["content"] == whole["content"]


def test_mistrals_client(filling: BackstopProcess, editor: OpenAI) -> None:
    client = pytest.importorskip("mistralai.client")
    expected = editor.completions.create(**middle()).choices[0].text
    mistral = client.Mistral(api_key="unused", server_url=filling.root)
    asked = {"model": "codestral-latest", "prompt": PREFIX, "suffix": SUFFIX, "temperature": 0, "max_tokens": 12}
    answer = mistral.fim.complete(**asked, random_seed=3, min_tokens=1, stop=["never"])
    assert answer.choices[0].message.content == expected
    assert answer.usage.completion_tokens == 12
    with mistral.fim.stream(**asked) as stream:
        chunks = [event.data for event in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 12


def test_a_model_without_the_tokens_says_so(server: BackstopProcess) -> None:
    asked = {"/v1/completions": middle(), "/v1/fim/completions": middle(), "/infill": {"input_prefix": "a", "input_suffix": "b"}}
    for path, body in asked.items():
        answer = httpx.post(f"{server.root}{path}", json=body, timeout=REQUEST_TIMEOUT_S)
        assert answer.status_code == 400, path
        assert "no tokens to fill in the middle" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("way", "complaint"),
    [("unheard-of", "known are: qwen"), ("mellum", "the vocabulary lacks tokens to fill in the middle: <fim_prefix>")],
)
def test_a_manifest_that_names_another_way_is_refused(way: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "filling").mkdir()
    write_fim_checkpoint(tmp_path / "filling")
    manifest = f"""
name = "filling"
architecture = "Cohere2MoeForCausalLM"
description = "A model that fills in the middle."
[serving]
fill_in_the_middle = "{way}"
"""
    (tmp_path / "filling.toml").write_text(manifest)
    command = [str(BINARY), "serve", "filling", "--port", "0"]
    environment = {**os.environ, "BACKSTOP_MODELS_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=REQUEST_TIMEOUT_S)
    assert done.returncode != 0
    assert complaint in done.stderr
