"""Claude Code with a model whose words are scripted. Skipped where `claude` is not installed."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import scripted_server
from javascript import require_program
from scripted_server import TURN_TIMEOUT_S

CLAUDE_CODE = require_program("claude", "CLAUDE_CODE_BINARY")
scripted_server.require()

CALL = [{"tool_call_id": "0", "tool_name": "Bash", "parameters": {"command": "echo it-$((40 + 2))-works > proof", "description": "Writes a proof"}}]
CALLS = f"I look.<|END_THINKING|><|START_TEXT|>I run it.<|END_TEXT|><|START_ACTION|>{json.dumps(CALL)}<|END_ACTION|>"
SPEAKS = "I see.<|END_THINKING|><|START_TEXT|>The command has run.<|END_TEXT|>"


def run(address: str, directory: Path, prompt: str, **environment: str) -> dict:
    """One turn, in a home and a project of its own; returns what the client reports."""
    (directory / "home").mkdir()
    (directory / "project").mkdir()
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory / "home"),
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_MODEL": "claude-backstop",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        **environment,
    }
    command = [CLAUDE_CODE, "-p", "--output-format", "json", "--allowedTools", "Bash"]
    done = subprocess.run(
        command, cwd=directory / "project", env=settings, input=prompt, capture_output=True, text=True, timeout=TURN_TIMEOUT_S
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("credential", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_a_command_is_run_and_its_result_goes_back(scripted: Callable[..., str], tmp_path: Path, credential: str) -> None:
    result = run(scripted(CALLS, SPEAKS), tmp_path, "Run a command.", **{credential: "any-key"})
    assert (result["subtype"], result["is_error"]) == ("success", False), result
    assert (result["result"], result["num_turns"]) == ("The command has run.", 2)
    assert (tmp_path / "project" / "proof").read_text() == "it-42-works\n"
    # The second request finds the first one's prompt in the prefix cache.
    assert result["usage"]["cache_read_input_tokens"] > result["usage"]["input_tokens"] / 4


def test_a_prompt_that_is_too_long_is_recognised(scripted: Callable[..., str], tmp_path: Path) -> None:
    result = run(scripted(SPEAKS), tmp_path, "word " * 120_000, ANTHROPIC_API_KEY="any-key")
    assert result["is_error"] is True
    assert result["result"].startswith("Prompt is too long"), result
