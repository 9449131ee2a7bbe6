"""A server whose model gives answers from a script, for clients that need a model to say certain things."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backstop_process import BINARY

SCRIPTED_SERVER = BINARY.parent / "examples/scripted_server"
# A client's own patience; a turn takes a few seconds.
TURN_TIMEOUT_S = 120


def require() -> None:
    """Skips the module that calls this where the server is not built."""
    if not SCRIPTED_SERVER.is_file():
        pytest.skip("build the scripted server: see README.md", allow_module_level=True)


def says(text: str) -> str:
    """What a model writes that thinks and then says `text`."""
    return f"I think.<|END_THINKING|><|START_TEXT|>{text}<|END_TEXT|>"


def calls(name: str, **parameters: Any) -> str:
    """What a model writes that thinks and then calls a tool."""
    action = [{"tool_call_id": "0", "tool_name": name, "parameters": parameters}]
    return f"I look.<|END_THINKING|><|START_ACTION|>{json.dumps(action)}<|END_ACTION|>"


@contextmanager
def scripted_servers() -> Iterator[Callable[..., str]]:
    """Starts servers whose model gives these answers, one after the other; returns their address."""
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
