"""A provider that fails on command. The first part of the path says how: `/status-503/v1/chat/completions`."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The text that stands in a stream before it is cut.
CUT_TEXT = "Here is a function"

FAILURE = {"message": "The fake provider fails.", "type": "server_error", "param": None, "code": None}
CONTEXT_ERROR = {
    "message": "This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
POLICY_ERROR = {
    "message": "Your request was rejected as a result of the safety system.",
    "type": "invalid_request_error",
    "param": None,
    "code": "content_policy_violation",
}


def chunk(delta: dict[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice]}
    return f"data: {json.dumps(data)}\n\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FakePrimary"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        fault = self.path.split("/")[1].split(".")[0]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.hits[fault] += 1
        self.close_connection = True
        kind, _, detail = fault.partition("-")
        match kind:
            case "status":
                self.fail(int(detail))
            case "busy":
                self.fail(429, retry_after_s=int(detail))
            case "context":
                self.fail(400, CONTEXT_ERROR)
            case "policy":
                self.fail(400, POLICY_ERROR)
            case "hang":
                self.server.closing.wait(60)
            case "cut":
                self.cut(streamed=body.get("stream", False), has_content=detail == "after")
            case "late":
                self.fail_late()
            case _:
                self.fail(404)

    def fail_late(self) -> None:
        """Says that all is well, and then that it is not."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b"  " + json.dumps({"error": FAILURE}).encode())

    def fail(self, status: int, error: dict[str, Any] | None = None, retry_after_s: int | None = None) -> None:
        error = error or FAILURE
        payload = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        if retry_after_s is not None:
            self.send_header("retry-after", str(retry_after_s))
        self.end_headers()
        self.wfile.write(payload)

    def cut(self, streamed: bool, has_content: bool) -> None:
        """Promises more than it sends: the connection closes within the body."""
        self.send_response(200)
        if streamed:
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            pieces = [chunk({"role": "assistant", "content": ""})]
            if has_content:
                pieces += [chunk({"content": word}) for word in ("Here is", " a function")]
        else:
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "4096")
            pieces = [b'{"choices": [' if has_content else b""]
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if streamed else piece)
            self.wfile.flush()


class FakePrimary(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hits: Counter[str] = Counter()
        self.closing = threading.Event()

    def url(self, fault: str, group: str = "") -> str:
        """Where `fault` happens. `group` only makes the address another one."""
        return f"http://127.0.0.1:{self.server_port}/{fault}.{group}/v1"


@contextmanager
def fake_primary() -> Iterator[FakePrimary]:
    server = FakePrimary()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
