"""OpenCode, by way of @ai-sdk/openai-compatible, with a model whose words are scripted. Skipped where it is not installed."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scripted_server
from javascript import require_program
from scripted_server import TURN_TIMEOUT_S, calls, says

OPENCODE = require_program("opencode", "OPENCODE_BINARY")
scripted_server.require()


@pytest.fixture
def turn(tmp_path: Path, scripted: Callable[..., str]) -> Callable[..., list[dict[str, Any]]]:
    """Runs one turn of the client against a model that gives these answers in turn; returns the client's events."""

    def run(question: str, *answers: str) -> list[dict[str, Any]]:
        (tmp_path / "opencode.json").write_text(json.dumps(configuration(scripted(*answers))))
        command = [OPENCODE, "run", "--format", "json", "--model", "backstop/north", question]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return run


def configuration(root: str) -> dict[str, Any]:
    model = {"name": "north", "tool_call": True, "reasoning": True, "limit": {"context": 60_000, "output": 4_096}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Backstop",
        "options": {"baseURL": f"{root}/v1", "apiKey": "unused"},
        "models": {"north": model},
    }
    return {
        "provider": {"backstop": provider},
        "model": "backstop/north",
        "autoupdate": False,
        "share": "disabled",
        "permission": {"bash": "allow"},
        # Asks for a title beside the turn, and would get an answer of the script.
        "agent": {"title": {"disable": True}},
    }


def environment(home: Path) -> dict[str, str]:
    directories = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    return {
        **os.environ,
        **directories,
        "HOME": str(home),
        # Which it takes for its working directory.
        "PWD": str(home),
        # The client's list of models comes from the internet otherwise.
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }


def parts(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event["part"] for event in events if event["type"] == kind]


def test_a_turn_without_tools_ends_in_the_models_words(turn: Callable[..., list[dict[str, Any]]]) -> None:
    events = turn("Say hello", says("Hello from the script."))
    assert [part["text"] for part in parts(events, "text")] == ["Hello from the script."]


def test_a_command_is_run_and_its_output_goes_back(turn: Callable[..., list[dict[str, Any]]]) -> None:
    command = calls("bash", command="echo marker-$((6*7))", description="Says a marker")
    events = turn("Run the command", command, says("It ran."))
    [used] = parts(events, "tool_use")
    assert used["tool"] == "bash"
    assert used["state"]["status"] == "completed"
    assert "marker-42" in used["state"]["output"]
    assert [part["text"] for part in parts(events, "text")] == ["It ran."]
