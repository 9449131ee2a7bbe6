"""A server that waits for its turn: sleeping, waking, proving itself, and the commands of its operator."""

import json
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from conftest import sdk
from large_checkpoint import write_large_checkpoint
from requests_made import chat, completion

DEMO = REPOSITORY / "models/demo"
GREEDY = {"temperature": 0, "logprobs": 2, "seed": 1}


def command(socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [str(BINARY), arguments[0], "--control-socket", str(socket), *arguments[1:]]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def done(socket: Path, *arguments: str) -> str:
    result = command(socket, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def status(socket: Path) -> dict:
    return json.loads(command(socket, "status", "--json").stdout)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "control"


def answer(server: BackstopProcess) -> tuple[str, list[float]]:
    body = completion("def fibonacci(n):\n", max_tokens=24, **GREEDY)
    response = httpx.post(f"{server.base_url}/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def test_the_socket_is_its_users_alone_and_ends_a_server(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket)).wait_until_ready()
    assert stat.S_IMODE(os.stat(socket).st_mode) == 0o600
    told = done(socket, "status")
    assert "state name" in told and "ready" in told and "demo@" in told
    assert status(socket)["process"]["id"] == server.process.pid
    second = start("--control-socket", str(socket))
    assert second.process.wait(30) == 1
    assert "another server listens" in second.log()
    assert "drained" in done(socket, "drain")
    assert server.wait() == 0
    nobody = command(socket, "status")
    assert nobody.returncode == 1 and "no server answers" in nobody.stderr
    # What a server leaves that was killed is in nobody's way.
    again = start("--control-socket", str(socket)).wait_until_ready()
    again.kill()
    assert socket.exists()
    start("--control-socket", str(socket)).wait_until_ready()
    assert status(socket)["state"]["name"] == "ready"


def test_draining_lets_requests_end(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket)).wait_until_ready()
    with ThreadPoolExecutor(8) as pool, sdk(server) as client:
        bodies = [completion(f"{index}", max_tokens=150) for index in range(8)]
        ask = lambda body: client.completions.create(**body, extra_body={"ignore_eos": True})  # noqa: E731
        answers = [pool.submit(ask, body) for body in bodies]
        server.wait_until_running(8)
        done(socket, "drain")
        assert [one.result().usage.completion_tokens for one in answers] == [150] * 8
    assert server.wait() == 0


@pytest.mark.parametrize("level", ["1", "2"])
def test_what_slept_gives_the_same_answers(start: Callable[..., BackstopProcess], socket: Path, level: str) -> None:
    server = start("--control-socket", str(socket)).wait_until_ready()
    before = answer(server)
    assert "asleep" in done(socket, "sleep", "--level", level)
    asleep = status(socket)["state"]
    assert (asleep["name"], asleep["sleep_level"]) == ("sleeping", int(level))
    assert command(socket, "status").returncode == 1
    assert httpx.get(f"{server.root}/ready").status_code == 503
    # A supervisor that started it again would not help.
    assert httpx.get(f"{server.root}/health").status_code == 200
    refused = httpx.post(f"{server.base_url}/chat/completions", json=chat())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_sleeping")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert command(socket, "sleep").returncode == 1
    assert "awake" in done(socket, "wake")
    assert answer(server) == before
    names = [change["name"] for change in status(socket)["states"]]
    assert names[-4:] == ["sleeping", "loading", "warming", "ready"] or names[-3:] == ["sleeping", "warming", "ready"]


def test_a_server_that_is_busy_stays_awake(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket), "--max-num-seqs", "1").wait_until_ready()
    with server.occupied():
        refused = command(socket, "sleep", "--timeout", "200ms")
        assert refused.returncode == 1 and "still run" in refused.stderr
        assert status(socket)["state"]["name"] == "ready"
    server.wait_until_idle()
    done(socket, "sleep")


def test_a_request_wakes_a_server_if_it_may(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket), "--wake-on-request").wait_until_ready()
    before = answer(server)
    done(socket, "sleep", "--level", "2")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: answer(server), range(8))) == [before] * 8
    assert status(socket)["state"]["name"] == "ready"
    done(socket, "sleep")
    # To look at it wakes nobody.
    for path in ["/ready", "/v1/models", "/metrics"]:
        httpx.get(f"{server.root}{path}")
    assert status(socket)["state"]["name"] == "sleeping"


def test_only_who_may_call_wakes_a_server(start: Callable[..., BackstopProcess], socket: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-somebody\n")
    server = start("--control-socket", str(socket), "--wake-on-request", "--api-key-file", str(keys)).wait_until_ready()
    done(socket, "sleep")
    refused = httpx.post(f"{server.base_url}/chat/completions", json=chat(), headers={"authorization": "Bearer no"})
    assert refused.status_code == 503
    assert status(socket)["state"]["name"] == "sleeping"
    with sdk(server, "a-key-of-somebody") as client:
        assert client.chat.completions.create(**chat(max_tokens=4)).choices
    keys.write_text("another-key\nand-one-more\n")
    assert "read 2 keys" in done(socket, "reload")


def test_sleeping_again_and_again_under_load_loses_nothing(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket), "--wake-on-request").wait_until_ready()
    before = answer(server)
    stop = threading.Event()

    def ask() -> list[tuple[str, list[float]]]:
        answers = []
        while not stop.is_set():
            answers.append(answer(server))
        return answers

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for turn in range(50):
                done(socket, "sleep", "--level", str(1 + turn % 2))
                # The next request does so as well.
                done(socket, "wake")
        finally:
            stop.set()
        answers = [one for client in clients for one in client.result()]
    assert len(answers) >= 50
    assert all(one == before for one in answers)
    server.wait_until_idle()


def copied(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    return model


def test_the_first_good_start_records_what_later_ones_must_give(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    model = copied(tmp_path)
    recorded = model / "backstop-canary.toml"
    first = start(model=str(model)).wait_until_ready()
    assert "recorded this start's answer" in first.log()
    first.stop()
    text = recorded.read_text()
    assert text.count("[[canary]]") == 1
    second = start(model=str(model)).wait_until_ready()
    assert "comparing with the canary" in second.log()
    second.stop()
    assert recorded.read_text() == text
    lines = [line for line in text.splitlines() if line.startswith("tokens")]
    recorded.write_text(text.replace(lines[0], lines[0].replace("[", "[1, ", 1).rsplit(",", 1)[0] + "]"))
    third = start(model=str(model))
    assert third.process.wait(60) == 70
    assert "differs from the recorded one" in third.log()


def test_a_directory_that_cannot_be_written_costs_nothing(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    model = copied(tmp_path)
    missing = tmp_path / "nowhere"
    server = start("--canary-directory", str(missing), model=str(model)).wait_until_ready()
    assert "is not kept for the next" in server.log()
    assert not (model / "backstop-canary.toml").exists()


def test_the_model_proves_itself_again_and_again(start: Callable[..., BackstopProcess], socket: Path) -> None:
    server = start("--control-socket", str(socket), "--canary-interval", "100ms").wait_until_ready()
    deadline = time.monotonic() + 60
    while (canary := status(socket)["canary"])["runs"] < 5:
        assert time.monotonic() < deadline, canary
        time.sleep(0.1)
    assert canary["failures"] == 0
    assert server.metrics()["backstop:canary_failures_total"] == 0


def test_weights_that_went_bad_are_noticed_and_good_ones_are_trusted_again(
    start: Callable[..., BackstopProcess], socket: Path, tmp_path: Path
) -> None:
    model = copied(tmp_path)
    weights = model / "model.safetensors"
    good = weights.read_bytes()
    arguments = ["--control-socket", str(socket), "--served-model-name", "demo"]
    server = start(*arguments, model=str(model)).wait_until_ready()
    before = answer(server)
    # The same tensors in the same places, with coarser numbers.
    header = 8 + int.from_bytes(good[:8], "little")
    bad = bytearray(good)
    for place in range(header, len(bad), 2):
        bad[place] &= 0xF0
    weights.write_bytes(bad)
    refused = command(socket, "reload", "--weights")
    assert refused.returncode == 1 and "canary" in refused.stderr
    state = status(socket)["state"]
    assert state["name"] == "suspect" and "differs" in state["reason"]
    assert httpx.get(f"{server.root}/ready").status_code == 503
    assert httpx.get(f"{server.root}/health").status_code == 200
    asked = httpx.post(f"{server.base_url}/chat/completions", json=chat())
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "model_unproven")
    assert server.metrics()["backstop:canary_failures_total"] == 1
    weights.write_bytes(good)
    assert "proved the weights" in done(socket, "reload", "--weights")
    assert answer(server) == before


def resident_bytes(server: BackstopProcess) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_sleeping_gives_the_memory_back(
    start: Callable[..., BackstopProcess], socket: Path, tmp_path: Path
) -> None:
    directory = write_large_checkpoint(tmp_path)
    size = (directory / "model.safetensors").stat().st_size
    server = start("--control-socket", str(socket), model=str(directory)).wait_until_ready()
    awake = resident_bytes(server)
    assert awake > size
    done(socket, "sleep", "--level", "2")
    assert resident_bytes(server) < awake - size // 2
    done(socket, "wake")
    assert resident_bytes(server) > size
