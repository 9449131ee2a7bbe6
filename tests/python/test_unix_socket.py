"""Several addresses and a Unix socket: who may open it, and what becomes of it."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from backstop_process import BackstopProcess, eventually, free_port
from requests_made import chat


@pytest.fixture
def path() -> Path:
    """Where a socket can be: paths of sockets must be short."""
    directory = Path(f"/tmp/backstop-{os.getpid()}-{free_port()}")
    directory.mkdir(mode=0o700)
    yield directory / "socket"
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def over(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=60)


def is_ready(path: Path) -> bool:
    with over(path) as client:
        try:
            return client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False


def test_the_vendor_s_client_asks_over_a_socket_of_its_own_user(
    start: Callable[..., BackstopProcess], path: Path
) -> None:
    server = start("--uds", str(path))
    eventually(lambda: is_ready(path) or not server.is_running(), patience_s=60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with OpenAI(base_url="http://localhost/v1", api_key="unused", http_client=over(path), max_retries=0) as client:
        assert client.chat.completions.create(**chat(max_tokens=4)).usage.completion_tokens == 4
        stream = client.chat.completions.create(**chat(max_tokens=4), stream=True)
        assert [chunk for chunk in stream][-1].choices[0].finish_reason == "length"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.root}/health")
    assert f"listening on unix:{path}\n" in server.log()
    assert f"curl --unix-socket {path} http://localhost/v1/chat/completions" in server.log()
    assert "client=unix" in server.log()
    server.stop()
    assert not path.exists()


def test_several_addresses_and_a_socket_are_served_at_once(start: Callable[..., BackstopProcess], path: Path) -> None:
    ports = [free_port(), free_port()]
    server = start(
        *[f"--listen=127.0.0.1:{port}" for port in ports], "--uds", str(path), "--uds-mode", "0660"
    )
    server.port = ports[0]
    server.wait_until_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert is_ready(path)
    for port in ports:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200
    assert f"listening on http://127.0.0.1:{ports[0]}, http://127.0.0.1:{ports[1]}, unix:{path}" in server.log()


def test_what_a_dead_server_left_is_replaced(start: Callable[..., BackstopProcess], path: Path) -> None:
    first = start("--uds", str(path))
    eventually(lambda: is_ready(path), patience_s=60)
    left = path.stat().st_ino
    first.kill()
    assert path.stat().st_ino == left
    second = start("--uds", str(path))
    eventually(lambda: is_ready(path), patience_s=60)
    assert "at which nobody listens" in second.log()


def test_a_live_server_keeps_its_socket(start: Callable[..., BackstopProcess], path: Path) -> None:
    start("--uds", str(path))
    eventually(lambda: is_ready(path), patience_s=60)
    second = start("--uds", str(path))
    assert second.wait() == 1
    assert f"cannot listen on --uds {path}: another server listens there" in second.log()
    assert is_ready(path)


def test_a_full_queue_of_connections_is_a_live_server(start: Callable[..., BackstopProcess], path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        for _ in range(3):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            one.connect_ex(str(path))
            waiting.append(one)
        server = start("--uds", str(path))
        assert server.wait() == 1
        assert "another server listens there" in server.log()
        for one in waiting:
            one.close()


def test_files_that_are_no_sockets_are_left_alone(start: Callable[..., BackstopProcess], path: Path) -> None:
    path.write_text("precious")
    server = start("--uds", str(path))
    assert server.wait() == 1
    assert "which is no socket" in server.log()
    assert path.read_text() == "precious"
