"""`backstop bench offline`: counts that add up, and the same prompts for the same seed."""

import json
import subprocess
from pathlib import Path

import pytest

from backstop_process import BINARY


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BINARY, "bench", "offline", "demo", "--device", "cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_all_tokens_are_counted_and_no_prompt_helps_another(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    ended = bench("--num-prompts", "6", "--input-len", "40", "--output-len", "5", "--output-json", str(out))
    assert ended.returncode == 0, ended.stderr
    numbers = json.loads(out.read_text())
    assert (numbers["num_requests"], numbers["total_prompt_tokens"]) == (6, 6 * 40)
    assert (numbers["total_output_tokens"], numbers["total_num_tokens"]) == (6 * 5, 6 * 45)
    assert numbers["cached_prompt_tokens"] == 0
    assert numbers["tokens_per_second"] == pytest.approx(6 * 45 / numbers["elapsed_time"])
    assert "6 requests" in ended.stdout


def test_what_does_not_fit_is_refused_and_says_what_to_change() -> None:
    ended = bench("--input-len", "4000", "--output-len", "4000", "--max-model-len", "512")
    assert ended.returncode == 1
    assert "--max-model-len" in ended.stderr
