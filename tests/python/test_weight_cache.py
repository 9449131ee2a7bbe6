"""Weights that are kept in a file for the next start."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backstop_process import BackstopProcess
from requests_made import completion

KEPT = "weights are kept in"
READ = "weights are read as they were kept in"


def wait_for_log(server: BackstopProcess, text: str) -> str:
    deadline = time.monotonic() + 60
    while text not in server.log():
        assert server.is_running() and time.monotonic() < deadline, server.log()
        time.sleep(0.05)
    return server.log()


def answer(server: BackstopProcess) -> list[str]:
    body = completion("def main():", max_tokens=24, temperature=0, logprobs=3)
    choice = httpx.post(f"{server.base_url}/completions", json=body, timeout=60).json()["choices"][0]
    return [choice["text"], *map(str, choice["logprobs"]["token_logprobs"])]


def test_later_starts_read_what_the_first_one_kept(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    directory = tmp_path / "not there yet"
    first = start("--weight-cache", str(directory)).wait_until_ready()
    log = wait_for_log(first, KEPT)
    assert READ not in log
    [file] = directory.iterdir()
    assert str(file) in log
    expected = answer(first)
    first.stop()

    second = start("--weight-cache", str(directory)).wait_until_ready()
    assert READ in second.log()
    assert answer(second) == expected
    parts = httpx.get(f"{second.root}/ready", timeout=10).json()["timeline"]
    assert "arranging" not in [part["phase"] for part in parts]
    assert KEPT not in second.log() and list(directory.iterdir()) == [file]
    second.stop()

    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    third = start("--weight-cache", str(directory)).wait_until_ready()
    assert answer(third) == expected
    log = wait_for_log(third, KEPT)
    assert "is passed over, and will be written anew: it is damaged: the checksum" in log
    assert file.read_bytes() == whole
    third.stop()


def test_two_servers_may_start_with_one_directory(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    servers = [start("--weight-cache", str(tmp_path)) for _ in range(2)]
    answers = [answer(server.wait_until_ready()) for server in servers]
    assert answers[0] == answers[1]
    deadline = time.monotonic() + 60
    while not any(KEPT in server.log() for server in servers):
        assert time.monotonic() < deadline, servers[0].log()
        time.sleep(0.05)
    for server in servers:
        server.stop()
    last = start("--weight-cache", str(tmp_path)).wait_until_ready()
    assert READ in last.log()
    assert answer(last) == answers[0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["demo", "--load-format", "synthetic"], "made-up weights are not worth keeping"),
        (["demo", "--verify"], "--verify and --require-signature say what the model's files are"),
        (["demo", "--device", "candle"], "go from the model's files straight to"),
    ],
)
def test_where_nothing_is_gained_it_is_refused(
    start: Callable[..., BackstopProcess], tmp_path: Path, arguments: list[str], reason: str
) -> None:
    model, *rest = arguments
    server = start("--weight-cache", str(tmp_path), *rest, model=model)
    assert server.process.wait(60) == 1
    assert reason in server.log() and "leave it out" in server.log()
    assert not list(tmp_path.iterdir())
