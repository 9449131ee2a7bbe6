"""Clients that speak broken HTTP, slowly, or not at all."""

import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backstop_process import BackstopProcess, free_port
from requests_made import completion

POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
# Longer than the server waits for a head (10 s) or a body (60 s).
SLOW_LIMIT_S = 100
# Longer than any probe takes to be answered, however loaded the machine is.
ANSWER_LIMIT_S = 2


def connect(server: BackstopProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def exchange(server: BackstopProcess, data: bytes, then_leave: bool = True) -> bytes:
    """Everything that comes back until the server closes."""
    received = b""
    with connect(server) as connection:
        try:
            connection.sendall(data)
            if then_leave:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except OSError:
            pass
    return received


def check_alive(server: BackstopProcess) -> None:
    answer = httpx.post(f"{server.base_url}/completions", json=completion(max_tokens=2), timeout=30)
    assert answer.status_code == 200


BROKEN = {
    "nothing": b"",
    "no http": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
    "http/0.9": b"GET /health\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "endless line": b"GET /" + b"a" * 200_000,
    "long path": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "many headers": b"GET /health HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    "huge header": b"GET /health HTTP/1.1\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "nul in header": b"GET /health HTTP/1.1\r\nx: a\0b\r\n\r\n",
    "space before colon": b"GET /health HTTP/1.1\r\nx : a\r\n\r\n",
    "negative length": POST + b"content-length: -1\r\n\r\n{}",
    "immense length": POST + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "length and chunks": POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "bad chunk size": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "immense chunk": POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "odd encoding": POST + b"transfer-encoding: gzip, identity\r\n\r\n{}",
    "cut body": POST + b"content-length: 500\r\n\r\n{\"prompt\":",
    "absolute path": b"GET http://example.invalid/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "connect": b"CONNECT example.invalid:443 HTTP/1.1\r\nhost: example.invalid\r\n\r\n",
    "odd method": b"BREW /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bad escapes": b"GET /v1/models/%ff%fe%00%zz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "dots": b"GET /v1/models/../../../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_gets_a_4xx_or_a_closed_connection(server: BackstopProcess, name: str) -> None:
    received = exchange(server, BROKEN[name])
    if received:
        assert received.startswith(b"HTTP/1."), received[:100]
        status = int(received.split()[1])
        assert status < 500, received[:500]
    assert b"root:" not in received
    check_alive(server)


TWO_READINGS = {
    "bare line feeds": b"GET /health HTTP/1.1\nhost: a\n\n",
    "one bare line feed": b"GET /health HTTP/1.1\r\nhost: a\n\r\n",
    "two encodings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity and chunked": POST + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "equal lengths": POST + b"content-length: 0\r\ncontent-length: 0\r\n\r\n",
    "folded line": POST + b"x: a\r\n b\r\n\r\n",
    "http/1.0 chunked": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", TWO_READINGS)
def test_what_has_two_readings_is_a_400_and_the_last_that_is_read(server: BackstopProcess, name: str) -> None:
    smuggled = b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n"
    received = exchange(server, TWO_READINGS[name] + smuggled, then_leave=False)
    assert received.startswith(b"HTTP/1.1 400 "), received[:500]
    assert received.count(b"HTTP/1.1 ") == 1 and b"malformed_head" in received


@pytest.mark.parametrize(
    "data, status",
    [(b"GET /" + b"a" * 3_000_000, 414), (POST + b"x: " + b"y" * 3_000_000, 431), (POST + b"x: y\r\n" * 101, 431)],
    ids=["target", "field", "fields"],
)
def test_oversized_heads_are_answered_while_they_are_sent(server: BackstopProcess, data: bytes, status: int) -> None:
    assert exchange(server, data, then_leave=False).startswith(b"HTTP/1.1 %d " % status)


def test_pipelined_requests_are_answered_in_order(server: BackstopProcess) -> None:
    requests = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\nGET /version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    received = exchange(server, requests, then_leave=False)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b'"status"') < received.index(b'"version"')


def test_a_body_may_wait_for_its_permission(server: BackstopProcess) -> None:
    with connect(server) as connection:
        connection.sendall(POST + b"content-length: 39\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"prompt": "a", "max_tokens": 1}       ')
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_crowd_of_silent_connections_stands_in_nobodys_way(server: BackstopProcess) -> None:
    openings = [b"", b"P", POST, POST + b"content-length: 100\r\n\r\n", POST + b"content-length: 100\r\n\r\n{"]
    silent = [connect(server) for _ in range(300)]
    try:
        for index, connection in enumerate(silent):
            connection.sendall(openings[index % len(openings)])
        for _ in range(5):
            started = time.monotonic()
            check_alive(server)
            assert time.monotonic() - started < 10
    finally:
        for connection in silent:
            connection.close()
    server.wait_until_idle()


class Crowd:
    """Connections with unfinished requests, opened in the background and held until the end."""

    def __init__(self, port: int, count: int, addresses: list[str], opening: bytes):
        self.connections: list[socket.socket] = []
        self.errors: list[OSError] = []
        self.work = (port, count, addresses, opening)
        self.thread = threading.Thread(target=self.gather)

    def gather(self) -> None:
        port, count, addresses, opening = self.work
        for index in range(count):
            source = addresses[index % len(addresses)]
            try:
                connection = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
                self.connections.append(connection)
                connection.sendall(opening)
            except (BrokenPipeError, ConnectionResetError):
                pass  # It had to make room before it had said anything.
            except OSError as error:
                self.errors.append(error)
                return

    def __enter__(self) -> "Crowd":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        for connection in self.connections:
            connection.close()

    def is_gathering(self) -> bool:
        return self.thread.is_alive()


class Streams:
    """Streams of a key's holder, one after the other on one connection, which is there before the crowd."""

    def __init__(self, server: BackstopProcess):
        self.server = server
        self.finished = 0
        self.error: Exception | None = None
        self.begun, self.ending = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        body = completion(max_tokens=200, stream=True, ignore_eos=True)
        try:
            with httpx.Client(headers=KEY, timeout=60) as client:
                while not self.ending.is_set():
                    with client.stream("POST", f"{self.server.base_url}/completions", json=body) as answer:
                        self.begun.set()
                        assert list(answer.iter_lines())[-2:] == ["data: [DONE]", ""]
                    self.finished += 1
        except Exception as error:
            self.error = error

    def __enter__(self) -> "Streams":
        self.thread.start()
        assert self.begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()


KEY = {"authorization": "Bearer the-right-key"}
# What a test needs beside its crowd.
DESCRIPTORS_LEFT = 500
CROWDS = {
    "heads from one address": (4200, ["127.0.0.1"], POST),
    "heads from several addresses": (8000, [f"127.0.0.{last}" for last in range(2, 12)], POST),
    "many heads": (20_000, ["127.0.0.1", "127.0.0.2"], POST),
    "silence": (4200, ["127.0.0.1"], b""),
    "bodies without a key": (4200, ["127.0.0.1"], POST + b"content-length: 100\r\n\r\n{"),
    "bodies without a key from several addresses": (
        8000,
        [f"127.0.0.{last}" for last in range(2, 12)],
        POST + b"transfer-encoding: chunked\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", CROWDS)
def test_crowds_of_connections_delay_neither_probes_nor_holders_of_keys(
    start: Callable[..., BackstopProcess], tmp_path: Path, name: str
) -> None:
    count, addresses, opening = CROWDS[name]
    count = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_LEFT)
    keys = tmp_path / "keys"
    keys.write_text("the-right-key\n")
    probe_port = free_port()
    server = start("--api-key-file", str(keys), "--probe-address", f"127.0.0.1:{probe_port}").wait_until_ready()
    slowest: dict[str, float] = {}

    def ask(url: str, **options: Any) -> None:
        started = time.monotonic()
        answer = httpx.get(url, timeout=ANSWER_LIMIT_S, **options)
        assert answer.status_code == 200, answer.text
        slowest[url] = max(slowest.get(url, 0), time.monotonic() - started)

    with Streams(server) as streams, Crowd(server.port, count, addresses, opening) as crowd:
        after = 0
        while after < 10:
            ask(f"{server.root}/health")
            ask(f"{server.base_url}/models", headers=KEY)
            ask(f"http://127.0.0.1:{probe_port}/health")
            after += not crowd.is_gathering()
        before = streams.finished
        while streams.finished == before and streams.error is None:
            ask(f"{server.root}/ready")
        assert len(crowd.connections) > count // 2 and not crowd.errors, crowd.errors
        assert server.open_files() < 4096 + DESCRIPTORS_LEFT
    assert streams.error is None and max(slowest.values()) < ANSWER_LIMIT_S, (streams.error, slowest)
    print(f"{name}: slowest answers {slowest}")


def test_a_probe_address_that_is_taken_is_an_error_at_the_start(start: Callable[..., BackstopProcess]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = start("--probe-address", address)
        assert server.wait() == 1
        assert f"cannot listen on {address}" in server.log() and "--probe-address" in server.log()


def test_the_limit_of_open_files_is_raised_and_bounds_the_connections(start: Callable[..., BackstopProcess]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        server = start().wait_until_ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4] == str(hard)


@pytest.mark.slow
def test_slow_heads_and_bodies_are_given_up(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    half_head, half_body = connect(server), connect(server)
    with half_head, half_body:
        half_head.sendall(POST)
        half_body.sendall(POST + b"content-length: 100\r\n\r\n{")
        started = time.monotonic()
        received: dict[socket.socket, bytes] = {}
        for connection in (half_head, half_body):
            connection.settimeout(max(1.0, SLOW_LIMIT_S - (time.monotonic() - started)))
            received[connection] = connection.recv(65536)
        assert received[half_body].startswith(b"HTTP/1.1 408 ")
        assert received[half_head].startswith(b"HTTP/1.1 408 ")
    check_alive(server)


@pytest.mark.slow
def test_a_reader_that_stops_reading_does_not_stop_the_others(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    body = b'{"prompt": "a", "max_tokens": 2000, "n": 16, "stream": true, "ignore_eos": true, "logprobs": 20}'
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        server.wait_until_running(16)
        resident = server.resident_bytes()
        for _ in range(10):
            check_alive(server)
        time.sleep(5)
        assert server.resident_bytes() < resident + (256 << 20)
    server.wait_until_idle()
