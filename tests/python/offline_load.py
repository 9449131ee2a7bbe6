"""A server with all that it serves, and clients that ask it for everything at once.

As a program, it does so in the network namespace that it is started in, whose loopback interface it brings up:

    unshare --net python offline_load.py
"""

import errno
import fcntl
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from backstop_process import REPOSITORY, REQUEST_TIMEOUT_S, BackstopProcess, free_port
from requests_made import WEATHER_TOOL, chat, completion

KEY = "the-right-key"
ENCODERS = REPOSITORY / "tests/goldens/encoders"
EMBEDDINGS, SCORES = "bert_mean", "bert_reranker"
ENCODER_SETTINGS = ("--embedding-model", str(ENCODERS / EMBEDDINGS), "--reranker-model", str(ENCODERS / SCORES))
THREADS, ROUNDS = 4, 2
# An address of documentation, at which there is nobody.
ELSEWHERE = "192.0.2.1"

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}},
    "required": ["city"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}
# What other servers would fetch.
PICTURE = {"type": "image_url", "image_url": {"url": f"http://{ELSEWHERE}/picture.png"}}
FOREIGN_TOOL = {"type": "mcp", "server_label": "elsewhere", "server_url": f"http://{ELSEWHERE}/mcp"}

Request = tuple[str, str, dict[str, Any] | None, set[int]]


def requests(thread: int) -> Iterator[Request]:
    """Method, path, body and the answers' statuses: every kind there is, with grammars of this thread's own."""
    messages = chat()["messages"]
    yield "POST", "/v1/chat/completions", chat(), {200}
    yield "POST", "/v1/chat/completions", chat(stream=True), {200}
    yield "POST", "/v1/chat/completions", chat(response_format=JSON_SCHEMA, reasoning_effort="none"), {200}
    yield "POST", "/v1/chat/completions", chat(tools=[WEATHER_TOOL], tool_choice="required"), {200}
    for source in ({"regex": f"[a-z]{{{thread + 3}}}"}, {"grammar": f'start: "{thread}" /[a-z]/'}):
        yield "POST", "/v1/chat/completions", chat(structured_outputs=source, reasoning_effort="none"), {200}
    yield "POST", "/v1/chat/completions", chat(structured_outputs={"grammar": "start: nothing"}), {400}
    picture = [{"role": "user", "content": [PICTURE]}]
    yield "POST", "/v1/chat/completions", chat() | {"messages": picture}, {400}
    yield "POST", "/v1/chat/completions", {"messages": 1}, {400}
    yield "POST", "/v1/completions", completion(), {200}
    yield "POST", "/v1/responses", {"input": "Hello", "max_output_tokens": 24}, {200}
    yield "POST", "/v1/responses", {"input": "Hello", "max_output_tokens": 24, "tools": [FOREIGN_TOOL]}, {200, 400}
    yield "POST", "/v1/messages", {"model": "demo", "messages": messages, "max_tokens": 24}, {200}
    yield "POST", "/api/chat", {"model": "demo", "messages": messages, "options": {"num_predict": 24}}, {200}
    yield "POST", "/v1/embeddings", {"model": EMBEDDINGS, "input": ["A cat sat.", "The market fell."]}, {200}
    yield "POST", "/v1/rerank", {"model": SCORES, "query": "cats", "documents": ["A cat sat.", "The market fell."]}, {200}
    yield "POST", "/tokenize", {"prompt": "def add(a, b):"}, {200}
    for path in ("/health", "/ready", "/metrics", "/version", "/v1/models", "/openapi.json", "/api/tags"):
        yield "GET", path, None, {200}
    yield "GET", "/nowhere", None, {404}


@contextmanager
def whole_server(*arguments: str, under: tuple[str, ...] = ()) -> Iterator[BackstopProcess]:
    """One that serves everything, with keys, and with probes on a port of their own."""
    with tempfile.TemporaryDirectory(prefix="backstop-test-") as directory:
        keys = Path(directory) / "keys"
        keys.write_text(f"{KEY}\n")
        probes = f"127.0.0.1:{free_port()}"
        settings = (*ENCODER_SETTINGS, "--api-key-file", str(keys), "--probe-address", probes)
        process = BackstopProcess(*settings, *arguments, under=under)
        try:
            yield process.wait_until_ready()
        finally:
            process.kill()


def ask_for_everything(server: BackstopProcess) -> None:
    """From several threads at once; the keys are read again meanwhile."""
    failures: list[str] = []

    def ask(thread: int) -> None:
        try:
            for _ in range(ROUNDS):
                ask_one_after_another(server, thread)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    server.process.send_signal(signal.SIGHUP)
    for thread in threads:
        thread.join()
    assert failures == []


def ask_one_after_another(server: BackstopProcess, thread: int) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.root, headers=headers, timeout=REQUEST_TIMEOUT_S) as client:
        for method, path, body, statuses in requests(thread):
            answer = client.request(method, path, json=body)
            assert answer.status_code in statuses, f"{path} {body}: {answer.status_code} {answer.text}"


def bring_up_loopback() -> None:
    """As `ip link set lo up`, which not every machine has."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, get_flags, request))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def packets_without_route() -> int:
    """Packets and connections of this namespace that led nowhere."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"])


def try_to_leave() -> None:
    """Shows that there is no way out of here, and that those who look for one are counted."""
    before = packets_without_route()
    with socket.socket() as leaving:
        assert leaving.connect_ex((ELSEWHERE, 80)) == errno.ENETUNREACH
    assert packets_without_route() == before + 1


def main() -> None:
    bring_up_loopback()
    try_to_leave()
    before = packets_without_route()
    with whole_server() as server:
        ask_for_everything(server)
        server.stop()
    assert packets_without_route() == before, "somebody looked for a way out"


if __name__ == "__main__":
    main()
