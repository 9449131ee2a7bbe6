"""Codex CLI with a model whose words are scripted. Skipped where `codex` is not installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backstop_process import BINARY

CODEX = shutil.which(os.environ.get("CODEX_BINARY", "codex"))
SCRIPTED_SERVER = BINARY.parent / "examples/scripted_server"
# The client's own patience; a turn takes a few seconds.
TURN_TIMEOUT_S = 120

if CODEX is None:
    pytest.skip("codex is not installed", allow_module_level=True)
if not SCRIPTED_SERVER.is_file():
    pytest.skip("build the scripted server: see README.md", allow_module_level=True)


def says(text: str) -> str:
    """What a model writes that thinks and then says `text`."""
    return f"I think.<|END_THINKING|><|START_TEXT|>{text}<|END_TEXT|>"


def calls(name: str, **parameters: Any) -> str:
    """What a model writes that thinks and then calls a tool."""
    action = [{"tool_call_id": "0", "tool_name": name, "parameters": parameters}]
    return f"I look.<|END_THINKING|><|START_ACTION|>{json.dumps(action)}<|END_ACTION|>"


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """Starts servers whose model gives these answers, one after the other; returns their base URL."""
    processes: list[subprocess.Popen[str]] = []

    def start(*answers: str) -> str:
        command = [str(SCRIPTED_SERVER), *answers]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1].stdout.readline().strip()

    try:
        yield start
        for process in processes:
            assert process.poll() is None, "the server ended by itself"
    finally:
        for process in processes:
            process.kill()
            process.wait()


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
