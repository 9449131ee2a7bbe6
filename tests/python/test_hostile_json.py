"""Bodies of few bytes that grow when they are parsed, and files that are none: the process keeps its memory and lives."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import chat

AT_ONCE = 8
BODY_BYTES = 30_000_000
# What eight such bodies may take together, above what the server takes without them: their bytes and those of their
# strings, and the budget of 512 MiB that counts parsed values.
GROWTH_BYTES_MAX = 1536 << 20

UNITS = {
    "arrays": b"[],",
    "objects": b'{"a":0},',
    "texts": b'"",',
    "numbers": b"0,",
    "nested": b"[" * 100 + b"]" * 100 + b",",
    "nested objects": b'{"":' * 100 + b"0" + b"}" * 100 + b",",
}


def in_tools(values: bytes) -> bytes:
    head = b'{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1,"tools":[{"type":"function","function":{"name":"f","parameters":{"x":'
    return head + values + b"}}}]}"


def in_arguments(values: bytes) -> bytes:
    text = json.dumps('{"x":' + values.decode() + "}").encode()
    head = b'{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":'
    return head + text + b'}}]},{"role":"user","content":"Hi"}],"max_tokens":1}'


def repeated(unit: bytes, size: int) -> bytes:
    return b"[" + unit * (size // len(unit)) + b"0]"


def keys(size: int) -> bytes:
    return b"{" + b",".join(b'"%x":0' % number for number in range(size // 9)) + b"}"


def bodies(size: int) -> Iterator[tuple[str, bytes]]:
    for name, unit in UNITS.items():
        yield name, in_tools(repeated(unit, size))
    yield "keys", in_tools(keys(size))
    yield "digits", in_tools(b"1" * size)
    yield "escapes", in_tools(b'"' + b"\\u0000" * (size // 6) + b'"')
    yield "depth", in_tools(b"[" * size)
    # Half of it: quotation marks are escaped.
    for name in ["arrays", "objects"]:
        yield f"{name} in a string", in_arguments(repeated(UNITS[name], size // 2))


def peak_bytes(server: BackstopProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def post(server: BackstopProcess, route: str, body: bytes) -> int:
    return httpx.post(server.root + route, content=body, timeout=REQUEST_TIMEOUT_S).status_code


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses", "/v1/completions", "/tokenize"])
def test_bodies_that_grow_do_not_take_the_servers_memory(start: Callable[..., BackstopProcess], route: str) -> None:
    server = start().wait_until_ready()
    before = peak_bytes(server)
    for name, body in bodies(BODY_BYTES):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = [pool.submit(post, server, route, body) for _ in range(AT_ONCE)]
            assert httpx.get(f"{server.root}/health", timeout=30).status_code == 200
            statuses = {answer.result() for answer in answers}
        assert statuses <= {400, 413, 429}, (name, statuses)
        grown = peak_bytes(server) - before
        print(f"{route} {name}: {statuses}, grown by {grown >> 20} MiB")
        assert grown < GROWTH_BYTES_MAX, (name, grown)
    assert httpx.post(f"{server.base_url}/chat/completions", json=chat(max_tokens=2), timeout=30).status_code == 200


def test_bodies_of_ten_times_the_size_are_not_read(start: Callable[..., BackstopProcess]) -> None:
    server = start().wait_until_ready()
    before = peak_bytes(server)
    body = in_tools(repeated(UNITS["arrays"], 10 * BODY_BYTES))

    def send(_: int) -> int | None:
        try:
            return post(server, "/v1/chat/completions", body)
        except httpx.TransportError:
            # Whoever sends on after the answer may find the connection closed.
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert set(pool.map(send, range(AT_ONCE))) <= {413, None}
    assert peak_bytes(server) - before < 256 << 20
    assert httpx.get(f"{server.root}/health", timeout=30).status_code == 200


LIMIT_S = 60


def refused(*arguments: str) -> str:
    """What `backstop serve` says when it ends by itself, as it must."""
    command = [str(BINARY), "serve", *arguments, "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKSTOP_")}
    started = time.monotonic()
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert ended.returncode not in (0, -6, -9, -11), (ended.returncode, ended.stderr)
    assert time.monotonic() - started < LIMIT_S
    return ended.stderr + ended.stdout


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The demo model, with links to its files."""
    directory = tmp_path / "model"
    directory.mkdir()
    for file in (REPOSITORY / "models/demo").iterdir():
        (directory / file.name).symlink_to(file)
    return directory


@pytest.mark.parametrize("kind", ["device", "pipe", "directory"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"])
def test_files_that_are_none_are_refused_at_once(checkpoint: Path, name: str, kind: str) -> None:
    file = checkpoint / name
    file.unlink(missing_ok=True)
    if kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    said = refused(str(checkpoint))
    # A directory without a proper config.json is no model.
    assert ("there is no model" if name == "config.json" else "not a regular file") in said, said


def test_a_file_without_end_is_refused_by_its_length(checkpoint: Path) -> None:
    file = checkpoint / "tokenizer.json"
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    said = refused(str(checkpoint))
    assert "longer than" in said, said


@pytest.mark.parametrize("flag", ["--api-key-file", "--config"])
def test_settings_are_read_from_regular_files_alone(flag: str) -> None:
    said = refused("demo", flag, "/dev/zero")
    assert "not a regular file" in said, said


@pytest.mark.parametrize(
    "template",
    ["{{ x" + " + x" * 100_000 + " }}", "{% if x %}" + "{% elif x %}" * 20_000 + "{% endif %}", "{{ 'a' * 99999999 }}", " " * (2 << 20)],
    ids=["long expression", "many branches", "product", "long"],
)
def test_templates_that_break_the_compiler_are_refused(checkpoint: Path, template: str) -> None:
    file = checkpoint / "chat_template.jinja"
    file.unlink(missing_ok=True)
    file.write_text(template)
    said = refused(str(checkpoint))
    assert "chat template cannot be parsed" in said, said


@pytest.mark.parametrize(
    "template",
    [
        "{% set x = namespace(s='ab') %}{% for i in range(100) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}",
        "{% set x = namespace(s=[]) %}{% for i in range(99999) %}{% set x.s = [x.s] %}{% endfor %}",
        "{% set n = 100000 %}{% for i in range(n) %}{{ 'a' * n }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
    ids=["doubled text", "nested lists", "long output", "recursion"],
)
def test_templates_without_bound_fail_their_requests_alone(
    start: Callable[..., BackstopProcess], checkpoint: Path, template: str
) -> None:
    file = checkpoint / "chat_template.jinja"
    file.unlink(missing_ok=True)
    file.write_text(template)
    server = start("--served-model-name", "demo,*", model=str(checkpoint)).wait_until_ready()
    before = peak_bytes(server)
    for _ in range(2):
        answer = httpx.post(f"{server.base_url}/chat/completions", json=chat(max_tokens=2), timeout=REQUEST_TIMEOUT_S)
        assert answer.status_code == 400, answer.text
    assert peak_bytes(server) - before < 768 << 20
    assert httpx.get(f"{server.root}/health", timeout=30).status_code == 200
