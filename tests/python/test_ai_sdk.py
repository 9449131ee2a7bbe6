"""Completions by way of @ai-sdk/openai-compatible, as editors in JavaScript ask for them. Skipped where it is not installed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai import OpenAI

from backstop_process import BackstopProcess
from conftest import sdk
from fim_checkpoint import write_fim_checkpoint
from javascript import DIRECTORY, require_package

NODE = require_package("@ai-sdk/openai-compatible")
PROMPT = "def add(a, b):"


def complete(server: BackstopProcess, *texts: str) -> dict[str, Any]:
    """What the script got: the same completion, whole and streamed, or an error."""
    command = [NODE, "completion.mjs", server.base_url, "demo", *texts]
    done = subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_completion_is_what_the_openai_sdk_gets(server: BackstopProcess, client: OpenAI) -> None:
    # The package writes every prompt as a conversation.
    prompt = f"user:\n{PROMPT}\n\nassistant:\n"
    direct = client.completions.create(model="demo", prompt=prompt, temperature=0, max_tokens=12)
    expected = {
        "text": direct.choices[0].text,
        "finishReason": "length",
        "usage": [direct.usage.prompt_tokens, direct.usage.completion_tokens],
    }
    assert complete(server, PROMPT) == {"whole": expected, "streamed": expected}


def test_a_suffix_that_the_model_cannot_use_is_a_400_that_says_so(server: BackstopProcess) -> None:
    refused = complete(server, PROMPT, "return total")
    assert refused["status"] == 400
    assert "suffix" in refused["message"]


def test_a_suffix_is_filled_in_by_a_model_that_can(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    model = write_fim_checkpoint(tmp_path)
    server = start("--served-model-name", "demo", model=str(model)).wait_until_ready()
    prompt, suffix = f"user:\n{PROMPT}\n\nassistant:\n", "return total"
    with sdk(server) as client:
        direct = client.completions.create(model="demo", prompt=prompt, suffix=suffix, temperature=0, max_tokens=12)
        plain = client.completions.create(model="demo", prompt=prompt, temperature=0, max_tokens=12)
    assert direct.usage.prompt_tokens > plain.usage.prompt_tokens
    answer = complete(server, PROMPT, suffix)
    assert answer["whole"] == answer["streamed"]
    assert answer["whole"]["text"] == direct.choices[0].text
    assert answer["whole"]["usage"][0] == direct.usage.prompt_tokens
