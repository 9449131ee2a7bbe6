"""Checkpoints as tools leave them: what says nothing is named and passed over, what says something counts."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backstop_process import REPOSITORY, BackstopProcess

DEMO = REPOSITORY / "models/demo"
Start = Callable[..., BackstopProcess]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the demo model, without its manifest."""
    directory = tmp_path / "checkpoint"
    shutil.copytree(DEMO, directory)
    return directory


def change(file: Path, **fields: object) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **fields}))


def leave_behind(checkpoint: Path) -> None:
    change(checkpoint / "config.json", unsloth_version="2026.11", id2label={"0": "LABEL_0"}, pad_token_id=-1)
    change(checkpoint / "generation_config.json", num_beams=1, top_k=-1)


def test_what_tools_leave_behind_is_named_once(start: Start, checkpoint: Path) -> None:
    leave_behind(checkpoint)
    server = start(model=str(checkpoint)).wait_until_ready()
    assert "config.json: unsloth_version, id2label; generation_config.json: num_beams" in server.log()


def test_strict_config_refuses_it(start: Start, checkpoint: Path) -> None:
    leave_behind(checkpoint)
    server = start("--strict-config", model=str(checkpoint))
    assert server.wait() == 1
    assert "--strict-config is given: config.json: unsloth_version, id2label;" in server.log()


def test_what_would_change_the_result_is_refused(start: Start, checkpoint: Path) -> None:
    change(checkpoint / "config.json", is_causal=False)
    server = start(model=str(checkpoint))
    assert server.wait() == 1
    assert "is_causal = false is not understood" in server.log()


def test_probes_are_answered_before_a_large_tokenizer_is_read(start: Start, checkpoint: Path) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    first = 1 + max(
        *tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])
    )
    tokenizer["model"]["vocab"].update({f"word{index}": first + index for index in range(300_000)})
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    server = start(model=str(checkpoint))
    while True:
        assert server.is_running(), server.log()
        try:
            answer = httpx.get(f"{server.root}/health", timeout=10)
            break
        except httpx.ConnectError:
            time.sleep(0.001)
    assert (answer.status_code, answer.json()["status"]) == (503, "loading")
    assert "loading checkpoint" not in server.log()
    server.wait_until_ready()
    assert "loading checkpoint" in server.log()
