"""Loading, overload, draining and the end of the process."""

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import RateLimitError

from backstop_process import BackstopProcess
from conftest import sdk
from large_checkpoint import write_large_checkpoint
from requests_made import chat, collect, completion

LONG = {"ignore_eos": True}


def test_while_loading_everything_is_a_503_that_says_when_to_come_back(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    # The demo model itself is loaded before a client can ask.
    server = start("--served-model-name", "demo", model=str(write_large_checkpoint(tmp_path)))
    seen: dict[str, list[httpx.Response]] = {"/ready": [], "/health": [], "/v1/models": [], "/v1/chat/completions": []}
    with httpx.Client(base_url=server.root, timeout=10) as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all_ready(seen):
            for path, answers in seen.items():
                try:
                    answers.append(client.post(path, json=chat()) if "chat" in path else client.get(path))
                except httpx.ConnectError:
                    assert server.is_running(), server.log()
                    time.sleep(0.0005)
    loading = [answer for answers in seen.values() for answer in answers if answer.status_code != 200]
    assert loading, "the server was ready before the first request"
    for answer in loading:
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        if answer.url.path.startswith("/v1/"):
            error = answer.json()["error"]
            assert error["code"] == "model_loading"
            assert error["type"] != "invalid_request_error"


def test_the_start_says_what_it_took_its_time_for(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    parts = httpx.get(f"{server.root}/ready", timeout=10).json()["timeline"]
    took = {part["phase"]: part["seconds"] for part in parts}
    assert list(took)[:2] == ["settings", "listening"]
    assert list(took)[-2:] == ["engine", "warm_up"]
    assert {"texts", "planning", "weights", "memory"} < set(took)
    metrics = httpx.get(f"{server.root}/metrics", timeout=10).text
    told = dict(re.findall(r'^backstop:startup_phase_seconds\{phase="(\w+)"\} (\S+)$', metrics, re.MULTILINE))
    assert {phase: float(seconds) for phase, seconds in told.items()} == pytest.approx(took)
    line = re.search(r"start: (.*)$", server.log(), re.MULTILINE)
    assert line is not None, server.log()
    assert re.fullmatch(r"([a-z-]+ \d+\.\d\d s(, )?)+", line[1]), line[1]
    ready = re.search(r"ready after (\S+) s", server.log())
    assert ready is not None and float(ready[1]) == pytest.approx(sum(took.values()), abs=0.06)


def all_ready(seen: dict[str, list[httpx.Response]]) -> bool:
    return all(answers and answers[-1].status_code == 200 for answers in seen.values())


def test_a_full_queue_is_a_429_that_says_when_to_come_back(start: Callable[..., BackstopProcess]) -> None:
    server = start("--max-num-seqs", "1", "--max-num-queued-reqs", "2").wait_until_ready()
    with sdk(server) as client, ThreadPoolExecutor(12) as pool:

        def ask(index: int) -> int:
            try:
                body = completion(f"prompt {index}", max_tokens=150)
                return client.completions.create(**body, extra_body=LONG).usage.completion_tokens
            except RateLimitError as error:
                assert error.code == "queue_full"
                assert 1 <= int(error.response.headers["retry-after"]) <= 60
                return 0

        results = list(pool.map(ask, range(12)))
    assert results.count(0) >= 1, "nothing was refused"
    assert results.count(150) >= 3, "what was accepted is answered in full"
    assert set(results) == {0, 150}
    server.wait_until_idle()


def test_waiting_too_long_is_a_503(start: Callable[..., BackstopProcess]) -> None:
    server = start("--max-num-seqs", "1", "--queue-timeout", "1s").wait_until_ready()
    with sdk(server) as client:
        with client.completions.create(**completion(max_tokens=3000), stream=True, extra_body=LONG) as stream:
            next(iter(stream))
            started = time.monotonic()
            answer = httpx.post(f"{server.base_url}/completions", json=completion(), timeout=30)
            # The long answer may have ended on a fast machine.
            if answer.status_code != 200:
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "deadline_exceeded"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert time.monotonic() - started < 10
    server.wait_until_idle()


def test_sigterm_lets_streams_finish_and_refuses_new_ones(start: Callable[..., BackstopProcess]) -> None:
    server = start("--shutdown-timeout", "55s").wait_until_ready()
    body = chat("Tell me a long story.", max_tokens=300)
    with sdk(server) as client:
        alone = collect(client.chat.completions.create(**body, stream=True, extra_body=LONG))[0]
        stream = client.chat.completions.create(**body, stream=True, extra_body=LONG)
        chunks = iter(stream)
        first = [next(chunks), next(chunks)]
        server.terminate()
        refused = refusal_while_draining(server)
        streamed = collect([*first, *chunks])[0]
    assert (streamed.reasoning, streamed.content) == (alone.reasoning, alone.content)
    assert streamed.finish_reason == "length"
    if refused is not None:
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_draining"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert server.wait() == 0, server.log()


def refusal_while_draining(server: BackstopProcess) -> httpx.Response | None:
    """The first answer that is no success; `None` if the server was gone before it."""
    for _ in range(200):
        try:
            answer = httpx.post(f"{server.base_url}/completions", json=completion(max_tokens=1), timeout=10)
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            return answer
        time.sleep(0.01)
    raise AssertionError("requests are still answered after SIGTERM")


def test_the_drain_is_bounded(start: Callable[..., BackstopProcess]) -> None:
    server = start("--shutdown-timeout", "1s").wait_until_ready()
    body = completion(max_tokens=4000, n=16, stream=True, **LONG)
    ended = threading.Event()

    def read() -> None:
        try:
            with httpx.stream("POST", f"{server.base_url}/completions", json=body, timeout=60) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data: {"):
                        # Whatever ends the stream, it is no made-up finish reason.
                        choices = json.loads(line[6:]).get("choices", [])
                        assert all(choice["finish_reason"] in (None, "length") for choice in choices)
        except httpx.TransportError:
            pass
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    server.wait_until_running(16)
    started = time.monotonic()
    server.terminate()
    assert server.wait() == 0, server.log()
    assert time.monotonic() - started < 20
    assert ended.wait(30)
    reader.join()


def test_an_idle_server_stops_at_once(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    with httpx.Client(base_url=server.root) as kept_alive:
        kept_alive.get("/health")
        started = time.monotonic()
        server.terminate()
        assert server.wait() == 0, server.log()
        assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-model-len", "0"],
        ["--max-num-queued-reqs", "0"],
        ["--max-num-seqs", "0"],
        ["--response-keep-alive", "1ms"],
        ["--allowed-origins", '["https://chat.example/"]'],
        ["--allowed-origins", "https://chat.example"],
        ["--allowed-origins", '["*"]', "--allow-credentials"],
        ["--allowed-methods", '["GET"]'],
    ],
)
def test_bad_settings_end_the_process_with_an_explanation(
    start: Callable[..., BackstopProcess], arguments: list[str]
) -> None:
    server = start(*arguments)
    assert server.wait() not in (0, -6, 101), server.log()
    assert arguments[0].lstrip("-") in server.log() or arguments[1] in server.log()
