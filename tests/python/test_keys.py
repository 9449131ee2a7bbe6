"""Keys: made by the binary, limited one by one, and changed while the server runs."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import RateLimitError

from backstop_process import BINARY, BackstopProcess, eventually
from conftest import sdk
from requests_made import chat


def make_key(*arguments: str) -> str:
    done = subprocess.run([BINARY, "key", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def status(server: BackstopProcess, key: str) -> int:
    return httpx.get(f"{server.base_url}/models", headers={"authorization": f"Bearer {key}"}).status_code


def test_a_new_key_is_nowhere_but_in_the_answer(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    first = make_key("--name", "gateway", "--requests-per-minute", "2", "--append", str(keys))
    second = make_key("--name", "nightly", "--lane", "batch", "--may-see-all-keys", "--append", str(keys))
    assert first != second and first.startswith("sk-backstop-") and len(first) > 60
    assert keys.stat().st_mode & 0o077 == 0
    assert first not in keys.read_text() and second not in keys.read_text()
    server = start("--api-key-file", str(keys)).wait_until_ready()
    with sdk(server, first) as client:
        for _ in range(2):
            client.chat.completions.create(**chat(max_tokens=4))
        with pytest.raises(RateLimitError) as caught:
            client.chat.completions.create(**chat(max_tokens=4))
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "2"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    with sdk(server, second) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    metrics = httpx.get(f"{server.root}/metrics", headers={"x-api-key": second}).text
    assert 'backstop:key_requests_total{key="gateway"} 2' in metrics
    own = httpx.get(f"{server.root}/metrics", headers={"x-api-key": first}).text
    assert 'backstop:key_requests_total{key="gateway"} 2' in own and "nightly" not in own
    assert first not in server.log() and second not in server.log()
    assert "too open" not in server.log()


def test_keys_change_while_the_server_runs(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    old = make_key("--append", str(keys))
    server = start("--api-key-file", str(keys)).wait_until_ready()
    new = make_key("--append", str(keys))
    eventually(lambda: status(server, new) == 200)
    assert status(server, old) == 200
    keys.write_text("broken\n")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "not accepted" in server.log())
    assert status(server, old) == 200
    keys.unlink()
    assert status(server, old) == 200
    keys.write_text(f"{new}\n")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: status(server, old) == 401)
    assert status(server, new) == 200


def test_a_key_file_that_others_can_read_is_warned_of(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make_key("--append", str(keys))
    keys.chmod(0o644)
    server = start("--api-key-file", str(keys)).wait_until_ready()
    assert "permissions 0644 are too open" in server.log()


def test_signals_switch_the_admission_profile(start: Callable[..., BackstopProcess]) -> None:
    server = start("--admission-profile", "outage").wait_until_ready()

    def profile() -> str:
        text = httpx.get(f"{server.root}/metrics").text
        names = [name for name in ("normal", "outage") if f'admission_profile{{profile="{name}"}} 1' in text]
        return ",".join(names)

    assert profile() == "outage"
    server.process.send_signal(signal.SIGUSR2)
    eventually(lambda: profile() == "normal")
    server.process.send_signal(signal.SIGUSR1)
    eventually(lambda: profile() == "outage")


@pytest.mark.parametrize(
    "arguments",
    [["--name", "two words"], ["--requests-per-minute", "0"], ["--lane", "fast"], ["--append", "/nowhere/keys"]],
)
def test_a_key_with_impossible_settings_is_not_made(arguments: list[str]) -> None:
    done = subprocess.run([BINARY, "key", *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    assert "sk-backstop-" not in done.stdout + done.stderr


def test_doctor_checks_a_key_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make_key("--name", "a", "--append", str(keys))
    keys.chmod(0o644)
    command = [BINARY, "doctor", "--api-key-file", str(keys)]
    good = subprocess.run(command, capture_output=True, text=True)
    assert "1 keys, 1 names; others than its owner can read it" in good.stdout and "0644" in good.stdout
    keys.write_text("short\n")
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode != 0 and "line 1" in bad.stdout and "short" not in bad.stdout
