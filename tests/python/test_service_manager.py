"""What systemd is told: when the server is ready, what it does, and that it is alive, for as long as it is."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backstop_process import BackstopProcess
from frozen_thread import frozen_thread
from service_manager import service_manager

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is a matter of Linux")
WATCHDOG_S = 2
EXIT_STALLED = 71


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_life_is_told_from_its_beginning_to_its_end(
    start: Callable[..., BackstopProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    address = tmp_path / "notify" if kind == "path" else f"@backstop-test-{tmp_path.name}-{id(tmp_path)}"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_S * 1_000_000))
    with service_manager(address) as manager:
        server = start()
        ready = manager.wait_for("READY=1")
        assert httpx.get(f"{server.root}/ready").status_code == 200
        assert ready["STATUS"] == "ready, 0 requests in flight"
        before = manager.told[:-1]
        assert before[0]["STATUS"].startswith("loading")
        assert not any("WATCHDOG" in told or "READY" in told for told in before)
        # It is idle, and alive.
        for _ in range(3):
            assert manager.wait_for("WATCHDOG=1", timeout_s=WATCHDOG_S)

        # There is no file of keys, and a reload does not end the server all the same.
        server.process.send_signal(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING=1")
        assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        manager.wait_for("READY=1")

        server.terminate()
        manager.wait_for("STOPPING=1")
        assert server.wait() == 0, server.log()
        assert "cannot tell" not in server.log()


def test_a_server_that_cannot_start_is_never_ready(
    start: Callable[..., BackstopProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with service_manager(tmp_path / "notify") as manager:
        server = start(model="no-such-model")
        assert server.wait() == 1, server.log()
        while manager.receive(0.1):
            pass
        assert not any("READY" in told for told in manager.told)


def test_a_manager_that_cannot_be_told_costs_nothing_but_a_warning(
    start: Callable[..., BackstopProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    server = start().wait_until_ready()
    assert "the service manager is told nothing" in server.log()


def test_an_engine_that_hangs_gives_no_sign_of_life_and_the_process_ends(
    start: Callable[..., BackstopProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_S * 1_000_000))
    with service_manager(tmp_path / "notify") as manager:
        server = start("--watchdog-timeout", "6s")
        manager.wait_for("READY=1")
        body = {"prompt": "Go on.", "max_tokens": 4000, "n": 8, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.base_url}/completions", json=body, timeout=300) as answer:
            pieces = answer.iter_bytes()
            next(pieces)
            with frozen_thread(server.process.pid, "engine") as engine:
                # Busy is not dead.
                for _ in range(3):
                    manager.wait_for("WATCHDOG=1", timeout_s=2 * WATCHDOG_S)
                last = manager.wait_for("STOPPING=1")
                assert "WATCHDOG" not in last
                assert last["STATUS"].startswith("failed: the engine has work"), last
                engine.wait_for_end(60)
            assert server.wait() == EXIT_STALLED, server.log()
            assert b"engine_unavailable" in b"".join(pieces)
        assert manager.receive(0.1) is None, "a sign of life of a process that hangs"
