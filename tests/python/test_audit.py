"""The audit log of the real binary: every request once, whatever became of it, in a chain that outlasts a killed process."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from backstop_process import BINARY, REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import chat, completion

KEY = "the-right-key"
LONG = {"ignore_eos": True}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "audit"
    directory.mkdir()
    return directory / "audit.jsonl"


def entries(log: Path, kind: str = "request") -> list[dict[str, Any]]:
    """What lines that are whole say."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return [entry for entry in found if entry["kind"] == kind]


def entry_of(log: Path, request_id: str) -> dict[str, Any]:
    """The only entry of a request, which may be written a moment after its answer."""
    deadline = time.monotonic() + 30
    while not (found := [entry for entry in entries(log) if entry["request_id"] == request_id]):
        assert time.monotonic() < deadline, f"{request_id} is not in the log"
        time.sleep(0.01)
    assert len(found) == 1, found
    return found[0]


def audit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BINARY, "audit", *arguments], capture_output=True, text=True, timeout=60)


def verified(*arguments: str | Path) -> dict[str, Any]:
    result = audit("verify", "--json", *arguments)
    report: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode == 0) == report["holds"], result
    return report


def stopped(server: BackstopProcess) -> str:
    """What a server that ends has logged."""
    server.terminate()
    assert server.wait() == 0
    return server.log()


def named(request_id: str, **headers: str) -> dict[str, str]:
    return {"x-request-id": request_id, **headers}


def test_every_request_is_one_line_however_it_ends(
    start: Callable[..., BackstopProcess], log: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} name=gateway\nother-key-2 name=hasty requests-per-minute=1\n")
    server = start("--audit-log", str(log), "--api-key-file", str(keys)).wait_until_ready()
    with OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=REQUEST_TIMEOUT_S) as client:
        why = named("whole", **{"x-backstop-reason": "the primary\ttimed out"})
        whole = client.chat.completions.create(**chat(), extra_headers=why)
        streamed = client.chat.completions.create(
            **chat(), stream=True, stream_options={"include_usage": True}, extra_headers=named("streamed")
        )
        *_, last = streamed
        with client.completions.create(
            **completion(max_tokens=3000), stream=True, extra_body=LONG, extra_headers=named("aborted")
        ) as aborted:
            next(iter(aborted))
    url = f"{server.base_url}/chat/completions"
    right = {"authorization": f"Bearer {KEY}"}
    hasty = {"authorization": "Bearer other-key-2"}
    httpx.post(url, json=chat(), headers=named("unknown", authorization="Bearer wrong"))
    httpx.post(url, json=chat(model="another"), headers=named("not-found", **right))
    httpx.post(url, content=b"{", headers=named("broken", **right))
    httpx.post(url, json=chat(max_tokens=1), headers=named("first", **hasty), timeout=REQUEST_TIMEOUT_S)
    httpx.post(url, json=chat(max_tokens=1), headers=named("too-many", **hasty))
    httpx.get(f"{server.root}/metrics", headers=named("no-scrape", authorization="Bearer wrong"))
    for path in ("/health", "/ready", "/metrics", "/backstop/status"):
        httpx.get(f"{server.root}{path}", headers=named("probe", **right))
    server.stop()

    entry = entry_of(log, "whole")
    usage = whole.usage
    assert usage is not None
    assert (entry["key"], entry["route"], entry["status"]) == ("gateway", "/v1/chat/completions", 200)
    assert entry["headers"]["x-backstop-reason"] == "the primarytimed out"
    assert "OpenAI" in entry["headers"]["user-agent"]
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert entry["finish_reasons"] == [whole.choices[0].finish_reason]
    assert (entry["outcome"], entry["streamed"], entry["address"]) == ("complete", False, "127.0.0.1")
    assert 0 < entry["queued_s"] <= entry["first_token_s"] <= entry["total_s"]
    assert entry["model"].startswith("demo@")
    entry = entry_of(log, "streamed")
    assert entry["completion_tokens"] == last.usage.completion_tokens
    assert entry["cached_tokens"] == last.usage.prompt_tokens_details.cached_tokens
    assert (entry["outcome"], entry["streamed"]) == ("complete", True)
    entry = entry_of(log, "aborted")
    assert (entry["outcome"], entry["status"]) == ("aborted", 200)
    assert 0 < entry["completion_tokens"] < 3000
    assert "finish_reasons" not in entry
    refused = {
        "unknown": (401, "invalid_api_key"),
        "not-found": (404, "model_not_found"),
        "broken": (400, "invalid_json"),
        "too-many": (429, "rate_limit_exceeded"),
        "no-scrape": (401, "invalid_api_key"),
    }
    for request_id, expected in refused.items():
        entry = entry_of(log, request_id)
        assert (entry["status"], entry["error"]) == expected
    assert entry_of(log, "too-many")["key"] == "hasty"
    assert "key" not in entry_of(log, "unknown")
    ids = [entry["request_id"] for entry in entries(log)]
    assert len(ids) == len(set(ids))
    assert "probe" not in ids
    assert verified(log)["holds"]


def test_a_gateway_says_why_a_request_comes(start: Callable[..., BackstopProcess], log: Path) -> None:
    litellm = pytest.importorskip("litellm")
    server = start("--audit-log", str(log)).wait_until_ready()
    deployment = {
        "model": "hosted_vllm/demo",
        "api_base": server.base_url,
        "extra_headers": {"x-backstop-reason": "last link of the group chat"},
    }
    router = litellm.Router([{"model_name": "chat", "litellm_params": deployment}])
    router.completion(**chat(model="chat"))
    server.stop()
    (entry,) = entries(log)
    assert entry["headers"]["x-backstop-reason"] == "last link of the group chat"
    assert entry["status"] == 200


def test_the_chain_is_what_the_manual_says(start: Callable[..., BackstopProcess], log: Path) -> None:
    server = start("--audit-log", str(log)).wait_until_ready()
    httpx.post(f"{server.base_url}/completions", json=completion(), timeout=REQUEST_TIMEOUT_S)
    server_log = stopped(server)
    previous = "0" * 64
    for number, line in enumerate(log.read_text().splitlines(), 1):
        text, _, given = line.rpartition(',"hash":"')
        digest = hashlib.sha256((previous + text).encode()).hexdigest()
        assert given == f'{digest}"}}'
        assert json.loads(line)["sequence"] == number
        previous = digest
    first, *_ = entries(log, "start")
    assert (first["required"], first["prompts"]) == (False, False)
    (ready,) = entries(log, "ready")
    assert ready["models"][0]["fingerprint"].startswith("backstop-")
    assert audit("head", log).stdout.split()[1] == previous
    assert f", {previous}" in server_log, "the log says it as well, at the end"
    assert verified(log, "--expect", previous)["holds"]
    changed = log.read_text().replace('"status":200', '"status":500', 1)
    log.write_text(changed)
    assert not verified(log)["holds"]
    assert "BROKEN" in audit("verify", log).stdout


def test_prompts_and_answers_are_written_down_only_if_asked_for(
    start: Callable[..., BackstopProcess], log: Path
) -> None:
    secret = "the harvest of 1911"
    for asked in (False, True):
        server = start("--audit-log", str(log), *["--audit-log-prompts"] * asked).wait_until_ready()
        answer = httpx.post(f"{server.base_url}/chat/completions", json=chat(secret), timeout=REQUEST_TIMEOUT_S)
        assert secret not in stopped(server)
        assert (secret in log.read_text()) == asked
    entry = [entry for entry in entries(log) if "request" in entry][0]
    assert json.loads(entry["request"])["messages"][0]["content"] == secret
    message = answer.json()["choices"][0]["message"]
    assert entry["answers"][0]["content"] == message["content"]
    assert entry["texts_cut"] is False


def test_a_killed_server_leaves_a_log_that_the_next_one_continues(
    start: Callable[..., BackstopProcess], log: Path
) -> None:
    answered: list[str] = []
    written: set[str] = set()
    kills = 3
    for round_ in range(kills):
        server = start("--audit-log", str(log)).wait_until_ready()
        stopping = threading.Event()

        def ask(name: str, server: BackstopProcess = server, stopping: threading.Event = stopping) -> None:
            with httpx.Client(timeout=REQUEST_TIMEOUT_S) as client:
                for number in range(10_000):
                    request_id = f"{name}-{number}"
                    body = chat(max_tokens=4, stream=number % 2 == 0)
                    try:
                        client.post(f"{server.base_url}/chat/completions", json=body, headers=named(request_id))
                    except httpx.HTTPError:
                        return
                    answered.append(request_id)

        clients = [threading.Thread(target=ask, args=(f"{round_}-{client}",)) for client in range(4)]
        for client in clients:
            client.start()
        while len(answered) < 40 * (round_ + 1):
            assert server.is_running(), server.log()
            time.sleep(0.01)
        written.update(entry["request_id"] for entry in entries(log))
        os.kill(server.process.pid, signal.SIGKILL)
        for client in clients:
            client.join()
        server.process.wait()
        report = verified(log)
        assert report["holds"], report
    server = start("--audit-log", str(log)).wait_until_ready()
    server.stop()
    report = verified(log)
    assert report["holds"], report
    assert len(report["torn"]) <= kills
    ids = [entry["request_id"] for entry in entries(log)]
    assert len(ids) == len(set(ids))
    assert written <= set(ids), "what was written stays"


def test_files_are_put_aside_under_the_sandbox(start: Callable[..., BackstopProcess], log: Path) -> None:
    server = start("--audit-log", str(log), "--audit-log-max-size", "1MiB", "--audit-log-prompts").wait_until_ready()
    assert "--no-sandbox" not in server.log()
    body = {"model": "demo", "prompt": "word " * 10_000}
    for _ in range(24):
        assert httpx.post(f"{server.base_url}/completions", json={**body, "max_tokens": 1}).status_code == 400
    server.stop()
    names = sorted(path.name for path in log.parent.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.000001"]
    report = verified(log)
    assert report["holds"], report
    assert (report["requests"], len(report["files"])) == (24, 2)


def test_settings_that_cannot_be_kept_are_refused(start: Callable[..., BackstopProcess], log: Path) -> None:
    log.write_text("some other file\n")
    wrong = {
        ("--audit-log", str(log)): "no entry of an audit log",
        ("--audit-log", str(log.parent)): "not a regular file",
        ("--audit-log", str(log.parent / "nowhere" / "log")): "No such file or directory",
        ("--audit-log-prompts",): "--audit-log names none",
        ("--audit-log", str(log), "--audit-log-max-size", "5"): "must be 1MiB or more",
    }
    for arguments, expected in wrong.items():
        server = start(*arguments)
        assert server.process.wait(60) == 1
        assert expected in server.log()
    assert log.read_text() == "some other file\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A directory on a disk of 256 KiB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can make a small disk")
    directory = tmp_path / "disk"
    directory.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", directory], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"no small disk here: {made.stderr!r}")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> Path:
    """Takes all room that a disk has."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


def wait_for_writable(server: BackstopProcess, writable: bool) -> None:
    line = f"backstop:audit_writable {float(writable)}"
    deadline = time.monotonic() + 30
    while line not in httpx.get(f"{server.root}/metrics").text:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)


def test_a_full_disk_stops_nothing_and_nothing_is_lost_that_could_wait(
    start: Callable[..., BackstopProcess], small_disk: Path
) -> None:
    log = small_disk / "audit.jsonl"
    server = start("--audit-log", str(log)).wait_until_ready()
    filler = fill(small_disk)
    url = f"{server.base_url}/chat/completions"
    for number in range(40):
        answer = httpx.post(url, json=chat(max_tokens=2), headers=named(f"request-{number}"), timeout=REQUEST_TIMEOUT_S)
        assert answer.status_code == 200
    wait_for_writable(server, False)
    assert httpx.get(f"{server.root}/ready").status_code == 200
    filler.unlink()
    wait_for_writable(server, True)
    for number in range(40):
        entry_of(log, f"request-{number}")
    assert "the audit log cannot be written" in stopped(server)
    report = verified(log)
    assert (report["holds"], report["lost"]) == (True, 0), report


def test_a_required_log_that_cannot_be_written_is_a_503_until_it_can(
    start: Callable[..., BackstopProcess], small_disk: Path
) -> None:
    log = small_disk / "audit.jsonl"
    server = start("--audit-log", str(log), "--audit-log-required").wait_until_ready()
    filler = fill(small_disk)
    url = f"{server.base_url}/chat/completions"

    def ask(number: int) -> httpx.Response:
        return httpx.post(url, json=chat(max_tokens=2), headers=named(f"request-{number}"), timeout=REQUEST_TIMEOUT_S)

    numbers = iter(range(10_000))
    while (answer := ask(next(numbers))).status_code == 200:
        assert server.is_running()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "audit_log_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    ready = httpx.get(f"{server.root}/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "The audit log cannot be written. Please retry later.")
    assert httpx.get(f"{server.root}/health").status_code == 200
    filler.unlink()
    wait_for_writable(server, True)
    assert ask(next(numbers)).status_code == 200
    server.stop()
    report = verified(log)
    assert (report["holds"], report["lost"], report["requests"]) == (True, 0, next(numbers)), report
