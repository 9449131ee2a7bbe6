"""A server whose engine hangs says so, answers everybody with an error, shows what its threads do, and ends with 71."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from backstop_process import BackstopProcess
from frozen_thread import frozen_thread
from requests_made import chat

EXIT_STALLED = 71
TIMEOUT_S = 3


def last_event(server: BackstopProcess, body: dict[str, Any], seen: list[str], began: threading.Event) -> None:
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(line.removeprefix("data: "))
                began.set()


@pytest.mark.skipif(sys.platform != "linux", reason="stops a thread by ptrace")
def test_a_hung_engine_ends_the_process_after_everybody_has_heard(start: Callable[..., BackstopProcess]) -> None:
    server = start("--watchdog-timeout", f"{TIMEOUT_S}s").wait_until_ready()
    seen: list[str] = []
    began = threading.Event()
    body = chat("Go on.", max_tokens=4000, stream=True, ignore_eos=True, n=8)
    reader = threading.Thread(target=last_event, args=(server, body, seen, began))
    reader.start()
    assert began.wait(60)
    whole: list[httpx.Response] = []
    asked = threading.Thread(target=lambda: whole.append(httpx.post(f"{server.base_url}/chat/completions", json=chat(), timeout=60)))
    with frozen_thread(server.process.pid, "engine") as engine:
        stopped = time.monotonic()
        asked.start()
        engine.wait_for_end(TIMEOUT_S + 50)
        assert time.monotonic() - stopped >= TIMEOUT_S
    assert server.wait() == EXIT_STALLED, server.log()
    reader.join()
    asked.join()
    # The stream ends with an error, and not as if all were well.
    assert json.loads(seen[-1])["error"]["code"] == "engine_unavailable", seen[-1]
    assert whole[0].status_code == 503
    assert whole[0].json()["error"]["code"] == "engine_unavailable"
    log = server.log()
    assert "the engine has work and has finished no step" in log, log
    # The engine itself is stopped, and cannot answer; others can.
    assert "thread engine" in log and "stopped by a debugger: does not answer" in log, log
    assert "thread watchdog" in log and "watchdog.rs" in log, log


@pytest.mark.skipif(sys.platform != "linux", reason="there are stacks on Linux alone")
def test_stacks_are_shown_on_request_and_nothing_ends(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    server.process.send_signal(signal.SIGQUIT)
    deadline = time.monotonic() + 60
    # The last thread to be started is told last.
    while "thread grammar-trial" not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)
    log = server.log()
    engine = log[log.index("thread engine") :]
    assert "inbox.rs:" in engine.split("thread ")[1], engine
    assert httpx.post(f"{server.base_url}/chat/completions", json=chat()).status_code == 200


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(start: Callable[..., BackstopProcess], second: signal.Signals) -> None:
    server = start("--shutdown-timeout", "10m").wait_until_ready()
    with server.occupied():
        server.terminate()
        deadline = time.monotonic() + 30
        while "draining" not in server.log():
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        server.process.send_signal(second)
        assert server.wait() == 128 + second, server.log()


def test_a_timeout_that_is_none_is_refused(start: Callable[..., BackstopProcess]) -> None:
    server = start("--watchdog-timeout", "0s")
    assert server.wait() == 1, server.log()
    assert "--watchdog-timeout must lie between 1s and" in server.log()
