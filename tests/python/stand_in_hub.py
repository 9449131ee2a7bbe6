"""A stand-in for a Hugging Face hub: one repository, from a directory, on two ports as the real hub has them.

    stand_in_hub.py DIRECTORY ORG/REPO     # prints its address, for HF_ENDPOINT, and serves until it is interrupted
"""

import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Files of this size and more are kept outside of git.
LARGE_BYTES = 10_000


@dataclass(frozen=True)
class HubFile:
    """A file, and what a hub knows of it."""

    name: str
    path: Path

    @cached_property
    def bytes(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def is_large(self) -> bool:
        return self.bytes >= LARGE_BYTES

    @cached_property
    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def git(self) -> str:
        """Git's digest of the file itself, or of what lies in git in its place."""
        content = self.pointer if self.is_large else self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        lines = ["version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {self.bytes}", ""]
        return "\n".join(lines).encode()

    def listed(self) -> dict:
        entry: dict = {"rfilename": self.name, "size": self.bytes, "blobId": self.git}
        if self.is_large:
            entry["lfs"] = {"sha256": self.sha256, "size": self.bytes, "pointerSize": len(self.pointer)}
        return entry

    def in_tree(self) -> dict:
        """The same as newer versions of huggingface_hub ask for it."""
        entry: dict = {"type": "file", "path": self.name, "size": self.bytes, "oid": self.git}
        if self.is_large:
            entry["lfs"] = {"oid": self.sha256, "size": self.bytes, "pointerSize": len(self.pointer)}
        return entry


class Server(ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class StandInHub:
    """Serves while it is entered. `requests` has method, path and headers of all that was asked."""

    directory: Path
    repository: str
    token: str | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        paths = sorted(path for path in self.directory.rglob("*") if path.is_file())
        names = [path.relative_to(self.directory).as_posix() for path in paths]
        self.files = {name: HubFile(name, path) for name, path in zip(names, paths, strict=True)}
        self.servers = [Server(("127.0.0.1", 0), self.handler(of_hub)) for of_hub in (True, False)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].server_address[1]}"

    @property
    def elsewhere(self) -> str:
        """Where large files are: a host of its own, so that no token may go there."""
        return f"http://localhost:{self.servers[1].server_address[1]}"

    def __enter__(self) -> "StandInHub":
        for server in self.servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def handler(self, of_hub: bool) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
                if of_hub:
                    self.answer_as_hub(path)
                    return
                file = next((file for file in hub.files.values() if path == f"/{file.sha256}"), None)
                self.refuse(404, "") if file is None else self.send_file(file, {"ETag": f'"{file.sha256}"'})

            do_HEAD = do_GET

            def answer_as_hub(self, path: str) -> None:
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.refuse(401, "GatedRepo")
                elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                    self.answer_listing(match[1], match[2] or "main")
                elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
                    self.answer_tree(match[1], match[2])
                elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                    self.answer_file(match[1], match[2], match[3])
                else:
                    self.refuse(404, "")

            def answer_listing(self, repository: str, revision: str) -> None:
                self.answer_json(repository, revision, hub.listing())

            def answer_tree(self, repository: str, revision: str) -> None:
                self.answer_json(repository, revision, [file.in_tree() for file in hub.files.values()])

            def answer_json(self, repository: str, revision: str, content: dict | list) -> None:
                if repository != hub.repository:
                    self.refuse(401, "RepoNotFound")
                elif revision not in ("main", COMMIT):
                    self.refuse(404, "RevisionNotFound")
                else:
                    body = json.dumps(content).encode()
                    self.send_head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
                    if self.command == "GET":
                        self.wfile.write(body)

            def answer_file(self, repository: str, revision: str, name: str) -> None:
                file = hub.files.get(name)
                if repository != hub.repository or revision not in ("main", COMMIT) or file is None:
                    self.refuse(404, "EntryNotFound")
                    return
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{file.git}"'}
                if not file.is_large:
                    self.send_file(file, headers)
                    return
                headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.bytes)}
                location = f"{hub.elsewhere}/{file.sha256}?signature=secret"
                self.send_head(302, headers | {"Location": location, "Content-Length": "0"})

            def send_file(self, file: HubFile, headers: dict[str, str]) -> None:
                start, end, status = 0, file.bytes, 200
                if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                    start, status = int(match[1]), 206
                    end = min(end, int(match[2]) + 1) if match[2] else end
                    headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{file.bytes}"}
                self.send_head(status, headers | {"Accept-Ranges": "bytes", "Content-Length": str(end - start)})
                if self.command == "GET" and end > start:
                    with file.path.open("rb") as source:
                        self.send_range(source, start, end)

            def send_range(self, source: BinaryIO, start: int, end: int) -> None:
                self.wfile.flush()
                self.connection.sendfile(source, start, end - start)

            def refuse(self, status: int, code: str) -> None:
                self.send_head(status, {"X-Error-Code": code, "Content-Length": "0"})

            def send_head(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def listing(self) -> dict:
        return {
            "id": self.repository,
            "modelId": self.repository,
            "sha": COMMIT,
            "private": False,
            "gated": "auto" if self.token else False,
            "cardData": {"license": "apache-2.0"},
            "tags": [],
            "siblings": [file.listed() for file in self.files.values()],
        }


if __name__ == "__main__":
    with StandInHub(Path(sys.argv[1]), sys.argv[2]) as stand_in:
        print(stand_in.url, flush=True)
        threading.Event().wait()
