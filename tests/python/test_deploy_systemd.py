"""The unit of scripts/deploy/systemd: what systemd itself says of it, and whether a server lives with what it allows."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from requests_made import chat

SYSTEMD = REPOSITORY / "scripts/deploy/systemd"
DROP_INS = sorted((SYSTEMD / "drop-ins").glob("*.conf"))
# At most, of 10, as `systemd-analyze security` counts (252, 257). A GPU's driver wants devices and writable code.
EXPOSURE = {"plain": 1.1, "gpu.conf": 1.5}

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def unit(directory: Path, *drop_ins: Path) -> Path:
    """The unit with some drop-ins, of a program that is here."""
    text = (SYSTEMD / "backstop.service").read_text()
    assert "ExecStart=/usr/local/bin/backstop serve" in text
    path = directory / "backstop.service"
    path.write_text(text.replace("/usr/local/bin/backstop", str(BINARY)))
    for drop_in in drop_ins:
        (directory / "backstop.service.d").mkdir(exist_ok=True)
        shutil.copy(drop_in, directory / "backstop.service.d")
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda drop_in: drop_in.name if drop_in else "plain")
def test_systemd_understands_the_unit(tmp_path: Path, drop_in: Path | None) -> None:
    verified = analyze("verify", "--man=no", unit(tmp_path, *filter(None, [drop_in])))
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
def test_systemd_understands_the_monthly_drill(tmp_path: Path) -> None:
    for name in ("backstop-drill.service", "backstop-drill.timer"):
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/bin/backstop", str(BINARY)))
    verified = analyze("verify", "--man=no", tmp_path / "backstop-drill.timer", tmp_path / "backstop-drill.service")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_drill_understands_its_command_line() -> None:
    """A command line that is wrong ends with 2. This one ends with 1, for there is no such configuration here."""
    [arguments] = re.findall(r"^ExecStart=/usr/local/bin/backstop (.+)$", (SYSTEMD / "backstop-drill.service").read_text(), re.M)
    started = subprocess.run([BINARY, *arguments.split()], capture_output=True, text=True, timeout=60, check=False)
    assert started.returncode == 1 and "/etc/litellm/config.yaml" in started.stderr, started.stderr


@needs_systemd
@pytest.mark.parametrize("name", EXPOSURE)
def test_the_exposure_is_no_greater_than_said(tmp_path: Path, name: str) -> None:
    drop_ins = [drop_in for drop_in in DROP_INS if drop_in.name == name]
    rated = analyze("security", "--offline=yes", unit(tmp_path, *drop_ins))
    found = re.search(r"Overall exposure level for backstop.service: ([\d.]+)", rated.stdout)
    assert found, rated.stderr
    assert float(found[1]) <= EXPOSURE[name], rated.stdout


@cache
def group(name: str) -> frozenset[str]:
    """The calls of one of systemd's groups."""
    lines = analyze("syscall-filter", name).stdout.splitlines()
    members = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")]
    return frozenset().union(*({member} if member[0] != "@" else group(member) for member in members))


def allowed() -> frozenset[str]:
    """The calls that the unit's SystemCallFilter lines let through, the later ones taking from what the earlier ones gave."""
    calls: frozenset[str] = frozenset()
    for line in re.findall(r"^SystemCallFilter=(.+)$", (SYSTEMD / "backstop.service").read_text(), re.MULTILINE):
        named = [group(name) if name[0] == "@" else frozenset([name]) for name in line.removeprefix("~").split()]
        named = frozenset().union(*named)
        calls = calls - named if line.startswith("~") else calls | named
    return calls


@needs_systemd
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_a_server_lives_with_the_calls_that_the_unit_allows(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    trace, keys, log = tmp_path / "trace", tmp_path / "keys", tmp_path / "log"
    keys.write_text("the-right-key\n")
    os.chmod(keys, 0o600)
    log.mkdir()
    arguments = ["--api-key-file", str(keys), "--audit-log", str(log / "audit.jsonl")]
    server = start(*arguments, under=("strace", "-f", "-qq", "-o", str(trace))).wait_until_ready()
    # A schema is tried in a process of its own.
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    headers = {"authorization": "Bearer the-right-key"}
    body = chat(response_format=wanted)
    answer = httpx.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    [child] = server.children()
    # Where its threads are, for the log.
    os.kill(child, signal.SIGQUIT)
    deadline = time.monotonic() + 60
    while "stacks of all" not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)
    os.kill(child, signal.SIGTERM)
    assert server.wait() == 0, server.log()
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"execve", "accept4", "landlock_restrict_self", "seccomp"} <= made
    assert made <= allowed() | {"execve"}, sorted(made - allowed())
