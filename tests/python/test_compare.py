"""`backstop compare`: a model on two devices."""

import json
import subprocess

from backstop_process import BINARY, MODEL


def compare(*arguments: str) -> tuple[int, dict]:
    command = [BINARY, "compare", MODEL, "--device", "cpu", "--max-tokens", "8", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout)


def test_a_device_agrees_with_itself_to_the_last_bit() -> None:
    status, report = compare("--with", "cpu", "--tolerance", "0")
    assert status == 0
    assert (report["mean"], report["largest"]) == (0, 0)
    for text in report["texts"]:
        assert text["same_greedy"] == text["positions"] == text["prompt_tokens"] + 8
        assert text["first_other_token"] is None
        assert all(layer["relative"] == 0 for layer in text["residuals"])


def test_two_devices_agree_within_a_tolerance_and_one_that_is_exceeded_fails() -> None:
    status, report = compare("--with", "candle")
    assert status == 0
    assert 0 < report["mean"] < 0.05
    last = report["texts"][0]["residuals"][-1]
    assert last["before"] == "model.norm.weight"
    assert 0 < last["relative"] < 0.2
    assert compare("--with", "candle", "--tolerance", "0")[0] == 1


def test_a_second_device_that_is_not_there_is_an_error_before_anything_is_loaded() -> None:
    command = [BINARY, "compare", MODEL, "--device", "cpu", "--with", "cuda:1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "--device cuda:1000: " in done.stderr
    assert done.stdout == ""
