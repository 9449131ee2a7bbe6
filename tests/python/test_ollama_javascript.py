"""Ollama's API as its own JavaScript package sees it. Skipped where that is not installed."""

import json
import subprocess
from typing import Any

import pytest

from backstop_process import BackstopProcess
from javascript import DIRECTORY, require_package
from requests_made import MODEL_NAME

NODE = require_package("ollama")


@pytest.fixture(scope="module")
def got(server: BackstopProcess) -> dict[str, Any]:
    """What the script got."""
    command = [NODE, "ollama.mjs", server.root, MODEL_NAME, "def add(a, b):"]
    done = subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # What it cannot parse, the package only warns of.
    assert "invalid json" not in done.stderr
    return json.loads(done.stdout)


def test_streams_add_up_to_the_whole(got: dict[str, Any]) -> None:
    chat, generated = got["chat"], got["generated"]
    assert chat["whole"] == chat["streamed"]
    assert chat["whole"][3] in ("stop", "length") and chat["whole"][4] > 0
    assert generated["whole"] == generated["streamed"] != ""


def test_a_stream_that_is_broken_off_frees_its_place(got: dict[str, Any], server: BackstopProcess) -> None:
    assert got["aborted"] == "AbortError"
    server.wait_until_idle()


def test_models_are_listed_and_shown(got: dict[str, Any]) -> None:
    assert got["models"] == [f"{MODEL_NAME}:latest"]
    assert "tools" in got["capabilities"]


def test_what_is_refused_says_why(got: dict[str, Any]) -> None:
    assert got["pull"]["status"] == got["embed"]["status"] == 400
    assert "outbound connection" in got["pull"]["message"]
    assert "does not support embeddings" in got["embed"]["message"]
