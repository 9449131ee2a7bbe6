"""Codex CLI with a model whose words are scripted. Skipped where `codex` is not installed."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scripted_server
from javascript import require_program
from scripted_server import TURN_TIMEOUT_S, calls, says

CODEX = require_program("codex", "CODEX_BINARY")
scripted_server.require()


class Codex:
    """The client with a home and a project of its own."""

    def __init__(self, directory: Path, root: str):
        self.home = directory / "home"
        self.project = directory / "project"
        self.home.mkdir()
        self.project.mkdir()
        configuration = [
            'model_provider = "backstop"',
            "[model_providers.backstop]",
            'name = "Backstop"',
            f'base_url = "{root}/v1"',
            'wire_api = "responses"',
            # A test must not succeed by trying again.
            "request_max_retries = 0",
            "stream_max_retries = 0",
        ]
        (self.home / "config.toml").write_text("\n".join(configuration))

    def run(self, model: str, *arguments: str) -> list[dict[str, Any]]:
        """One turn; returns the items that the client reports."""
        command = [CODEX, "exec", "--json", "--skip-git-repo-check", "-m", model, *arguments]
        environment = {**os.environ, "CODEX_HOME": str(self.home)}
        done = subprocess.run(
            command,
            cwd=self.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert events[-1]["type"] == "turn.completed", done.stdout + done.stderr
        return [event["item"] for event in events if event["type"] == "item.completed"]


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["text"] for item in items if item["type"] == "agent_message"]


# It offers other tools, and in another way, to a model that it knows.
UNKNOWN_MODEL = "north"


def test_a_turn_without_tools_ends_in_the_models_words(tmp_path: Path, scripted: Callable[..., str]) -> None:
    codex = Codex(tmp_path, scripted(says("Hello from the script.")))
    assert texts(codex.run(UNKNOWN_MODEL, "Say hello")) == ["Hello from the script."]


def test_a_command_is_run_and_its_output_goes_back(tmp_path: Path, scripted: Callable[..., str]) -> None:
    root = scripted(calls("exec_command", cmd="echo marker-$((6*7))"), says("It ran."))
    items = Codex(tmp_path, root).run(UNKNOWN_MODEL, "-s", "danger-full-access", "Run the command")
    [command] = [item for item in items if item["type"] == "command_execution"]
    assert "marker-42" in command["aggregated_output"]
    assert command["exit_code"] == 0
    assert texts(items) == ["It ran."]


def test_the_models_reasoning_is_shown_as_the_summary(tmp_path: Path, scripted: Callable[..., str]) -> None:
    items = Codex(tmp_path, scripted(says("Hello."))).run(UNKNOWN_MODEL, "Say hello")
    assert [item["text"] for item in items if item["type"] == "reasoning"] == ["I think."]


def test_a_patch_goes_through_a_custom_tool(tmp_path: Path, scripted: Callable[..., str]) -> None:
    patch = "*** Begin Patch\n*** Add File: made.txt\n+by a patch\n*** End Patch\n"
    codex = Codex(tmp_path, scripted(calls("apply_patch", input=patch), says("Patched.")))
    items = codex.run("gpt-5.5", "-s", "danger-full-access", "Make a file")
    assert (codex.project / "made.txt").read_text() == "by a patch\n"
    assert texts(items) == ["Patched."]


def test_a_session_goes_on_where_it_was(tmp_path: Path, scripted: Callable[..., str]) -> None:
    codex = Codex(tmp_path, scripted(says("One."), says("Two.")))
    codex.run(UNKNOWN_MODEL, "Count")
    assert texts(codex.run(UNKNOWN_MODEL, "resume", "--last", "Go on")) == ["Two."]
