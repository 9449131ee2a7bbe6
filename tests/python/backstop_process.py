"""One running `backstop serve`: starts it, watches it, stops it."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("BACKSTOP_BINARY", REPOSITORY / "target/debug/backstop")).resolve()
MODEL = os.environ.get("BACKSTOP_TEST_MODEL", "demo")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
# What is about to happen has happened by then.
PATIENCE_S = 20
# A request that takes longer than this hangs, on the slowest machine that runs these tests.
REQUEST_TIMEOUT_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class BackstopProcess:
    """A server process on a port of its own; `stop` checks that it ends as it should. `under` is a command that runs it,
    and that becomes it."""

    def __init__(
        self,
        *arguments: str,
        model: str | None = MODEL,
        models_dir: Path | None = None,
        under: tuple[str, ...] = (),
        port: int | None = None,
    ):
        self.port = port or free_port()
        self.last_log: str | None = None
        self.log_file = tempfile.NamedTemporaryFile(prefix="backstop-test-", suffix=".log")
        models = [] if model is None else [model]
        command = [*under, str(BINARY), "serve", *models, "--port", str(self.port), *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKSTOP_")}
        if models_dir:
            environment["BACKSTOP_MODELS_DIR"] = str(models_dir)
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log_file,
            stderr=self.log_file,
        )

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    def log(self) -> str:
        """What it has logged, also after it was stopped."""
        if self.last_log is not None:
            return self.last_log
        text = Path(self.log_file.name).read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self) -> "BackstopProcess":
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.is_running():
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            try:
                if httpx.get(f"{self.root}/ready", timeout=2).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_TIMEOUT_S} s:\n{self.log()}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_TIMEOUT_S} s after SIGTERM:\n{self.log()}") from None

    def stop(self) -> None:
        """Ends the server; it must not have ended by itself, and has to leave with 0."""
        assert self.is_running(), f"the server ended with {self.process.returncode}:\n{self.log()}"
        self.terminate()
        code = self.wait()
        log = self.last_log = self.log()
        self.log_file.close()
        assert code == 0, f"exit code {code}:\n{log}"
        assert "panicked" not in log, log

    def kill(self) -> None:
        """Ends the server after a failed test, whatever state it is in."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keeps a server with one place busy, for longer than a client of a test waits."""
        message = {"role": "user", "content": "Go on."}
        body = {"messages": [message], "n": 16, "temperature": 1, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{self.base_url}/chat/completions", json=body, timeout=60) as stream:
            assert stream.status_code == 200, stream.read()
            # Dropped, it would close the stream.
            pieces = stream.iter_bytes()
            next(pieces)
            yield

    # What the process says about itself.

    def metrics(self) -> dict[str, float]:
        """All samples whose name needs no labels, by name; equal names add up."""
        text = httpx.get(f"{self.root}/metrics", timeout=10).text
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
        return samples

    def wait_until_idle(self, timeout_s: float = 60) -> None:
        """Waits until nothing runs or waits and no KV block is referenced."""
        names = ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]
        deadline = time.monotonic() + timeout_s
        while True:
            metrics = self.metrics()
            busy = {name: metrics[name] for name in names if metrics[name] != 0}
            if not busy:
                return
            assert time.monotonic() < deadline, f"not idle after {timeout_s} s: {busy}"
            time.sleep(0.05)

    def wait_until_running(self, sequences: int, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while self.metrics()["vllm:num_requests_running"] < sequences:
            assert time.monotonic() < deadline, f"{sequences} sequences never ran at once"
            time.sleep(0.01)

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def peak_resident_bytes(self) -> int:
        """The most memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) << 10

    def children(self) -> list[int]:
        """The processes that it has started and that still run."""
        ids = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(child) for file in ids for child in file.read_text().split()]
