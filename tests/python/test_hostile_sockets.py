"""Clients that speak broken HTTP, slowly, or not at all."""

import socket
import time
from collections.abc import Callable

import httpx
import pytest

from backstop_process import BackstopProcess
from requests_made import completion

POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
# Longer than the server waits for a head (75 s) or a body (60 s).
SLOW_LIMIT_S = 100


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


@pytest.mark.slow
def test_slow_heads_and_bodies_are_given_up(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    half_head, half_body = connect(server), connect(server)
    with half_head, half_body:
        half_head.sendall(POST)
        half_body.sendall(POST + b"content-length: 100\r\n\r\n{")
        started = time.monotonic()
        received: dict[socket.socket, bytes] = {}
        for connection in (half_body, half_head):
            connection.settimeout(max(1.0, SLOW_LIMIT_S - (time.monotonic() - started)))
            received[connection] = connection.recv(65536)
        assert received[half_body].startswith(b"HTTP/1.1 408 ")
        assert received[half_head] == b"" or received[half_head].startswith(b"HTTP/1.1 408 ")
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
