"""The server connects to nobody: as its system calls show, where there is nobody, and, as far as the kernel can, because
it may not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from offline_load import ask_for_everything, whole_server
from requests_made import chat

LOAD = Path(__file__).with_name("offline_load.py")
PATIENCE_S = 30
INTERNET = ("AF_INET,", "AF_INET6,")


def is_permitted(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


needs_strace = pytest.mark.skipif(
    not is_permitted("strace", "-f", "-o", os.devnull, "true"), reason="strace is not installed, or may not trace"
)
needs_namespace = pytest.mark.skipif(
    not is_permitted("unshare", "--net", "true"), reason="network namespaces are for root, and for those who have unshare"
)


def knows(setting: str) -> bool:
    done = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, timeout=60)
    return setting in done.stdout


# These wait for a binary that confines itself.
needs_sandbox = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not BINARY.is_file() or not knows("--no-sandbox"),
    reason="this binary does not confine itself, or not on this system",
)


# What the system calls show.


@dataclass
class Call:
    """A system call, as strace writes it when it begins."""

    process: str
    name: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.process} {self.name}({self.arguments}"


def calls(trace: Path) -> list[Call]:
    begun = (re.match(r"(\d+) +(\w+)\((.*)", line) for line in trace.read_text().splitlines())
    return [Call(*found.groups()) for found in begun if found]


def wait_for_the_end(trace: Path, process: int) -> None:
    """The tracer writes the last lines after the server has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(rf"^{process} +\+\+\+ exited with 0", trace.read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, "strace has not seen the end"
        time.sleep(0.05)


def leads_out(call: Call) -> bool:
    """Whether it connects, or sends to an address. Contents are not in the trace."""
    match call.name:
        case "connect" | "sendmmsg" | "io_uring_setup":
            return True
        case "sendto":
            return "sa_family" in call.arguments or "MSG_FASTOPEN" in call.arguments
        case "sendmsg":
            return "msg_name=NULL" not in call.arguments or "MSG_FASTOPEN" in call.arguments
        case "socket":
            return not call.arguments.startswith((*INTERNET, "AF_UNIX,"))
        case _:
            return False


def is_of_the_internet(call: Call) -> bool:
    return call.name == "socket" and call.arguments.startswith(INTERNET)


@needs_strace
def test_no_system_call_of_a_server_s_life_leads_out(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    # The tracer is no parent, so that the server gets the signals; no contents of messages, which could look like calls.
    tracer = ("strace", "-D", "-f", "-q", "-s", "0", "-o", str(trace), "-e", "trace=%network,io_uring_setup,execve")
    with whole_server(under=(*tracer, "-e", "signal=none", "--")) as server:
        ask_for_everything(server)
        server.stop()
        wait_for_the_end(trace, server.process.pid)
    seen = calls(trace)
    assert [str(call) for call in seen if leads_out(call)] == []
    # Sockets of the internet are those that listen, for requests and for probes.
    listens = [index for index, call in enumerate(seen) if call.name == "listen"]
    sockets = [index for index, call in enumerate(seen) if is_of_the_internet(call)]
    assert len(listens) == len(sockets) == 2
    assert max(sockets) < max(listens)
    # It did what it was to do, and ran nothing but itself: to try grammars.
    assert sum(call.name in ("accept", "accept4") for call in seen) > 2
    executed = [call.arguments.split(",")[0] for call in seen if call.name == "execve"]
    assert executed[0] == f'"{BINARY}"'
    assert set(executed[1:]) == {'"/proc/self/exe"'}


@needs_strace
def test_the_trace_would_show_what_leads_out(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    program = (
        "import socket\n"
        "stream, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)\n"
        "stream.connect_ex(('127.0.0.1', 9))\n"
        "datagram.sendto(b'hello', ('127.0.0.1', 9))\n"
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\n"
    )
    tracer = ["strace", "-f", "-qq", "-s", "0", "-o", str(trace), "-e", "trace=%network"]
    subprocess.run([*tracer, sys.executable, "-c", program], check=True, timeout=60)
    assert [call.name for call in calls(trace) if leads_out(call)] == ["connect", "sendto", "socket"]


# Where there is nobody.


@needs_namespace
def test_everything_is_served_where_there_is_no_network() -> None:
    done = subprocess.run(["unshare", "--net", sys.executable, LOAD], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# What the kernel forbids. To be run once the binary has `--no-sandbox` and says at the start what is enforced:
# "confined: files: …; calls: …".


def statuses(process: int) -> list[dict[str, str]]:
    """What each thread's status says."""
    files = Path(f"/proc/{process}/task").glob("*/status")
    return [dict(re.split(r":\s*", line, maxsplit=1) for line in file.read_text().splitlines()) for file in files]


def filters(status: dict[str, str]) -> int:
    return int(status["Seccomp_filters"])


def enforced(server: BackstopProcess) -> tuple[str, str]:
    found = re.search(r"confined: files: (.*); calls: (.*)", server.log())
    assert found, server.log()
    return found[1], found[2]


@needs_sandbox
def test_the_log_says_what_is_enforced(start: Callable[..., BackstopProcess]) -> None:
    files, calls = enforced(start().wait_until_ready())
    assert calls == "enforced (seccomp)"
    # Older kernels have less of it, or none; here is what they say.
    assert re.fullmatch(r"(enforced|not enforced).*(Landlock).*", files), files


@needs_sandbox
def test_all_threads_and_the_processes_that_try_grammars_are_confined() -> None:
    own = statuses(os.getpid())[0]
    with whole_server() as server:
        ask_for_everything(server)
        workers = server.children()
        assert workers
        for process in (server.process.pid, *workers):
            for status in statuses(process):
                assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status
                assert filters(status) > filters(own)
        server.stop()


@needs_sandbox
def test_without_a_sandbox_nothing_is_confined(start: Callable[..., BackstopProcess]) -> None:
    server = start("--no-sandbox").wait_until_ready()
    own = statuses(os.getpid())[0]
    for status in statuses(server.process.pid):
        assert (status["NoNewPrivs"], filters(status)) == (own["NoNewPrivs"], filters(own))
    assert "confined: " not in server.log()


@needs_sandbox
def test_a_key_file_that_another_took_the_place_of_is_read(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    keys, new = tmp_path / "keys", tmp_path / "new"
    keys.write_text("the-old-key\n")
    server = start("--api-key-file", str(keys)).wait_until_ready()

    def status(key: str) -> int:
        return httpx.get(f"{server.base_url}/models", headers={"authorization": f"Bearer {key}"}).status_code

    assert (status("the-old-key"), status("the-new-key")) == (200, 401)
    new.write_text("the-new-key\n")
    new.rename(keys)
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_S
    while status("the-new-key") != 200:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)
    assert status("the-old-key") == 401


@needs_sandbox
def test_checkpoints_of_links_are_served(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    # As Hugging Face's cache has them.
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    shutil.copytree(REPOSITORY / "models" / "demo", blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    server = start(model=str(snapshot)).wait_until_ready()
    body = chat(model=snapshot.name)
    assert httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60).status_code == 200
