"""Completions by way of @ai-sdk/openai-compatible, as editors in JavaScript ask for them. Skipped where it is not installed."""

import json
import subprocess
from typing import Any

from openai import OpenAI

from backstop_process import BackstopProcess
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
