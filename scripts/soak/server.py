"""The server under load: started here or elsewhere, and what it says of itself."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 120
# What a sample is made of, and the metric that says it.
GAUGES = {
    "resident_bytes": "process_resident_memory_bytes",
    "peak_bytes": "process_resident_memory_peak_bytes",
    "open_fds": "process_open_fds",
    "threads": "process_threads",
    "kv_usage": "vllm:kv_cache_usage_perc",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "in_flight": "backstop:requests_in_flight",
    "tasks": "backstop:runtime_tasks",
    "seconds_since_progress": "backstop:seconds_since_progress",
    "steps_failed": "backstop:steps_failed_total",
    "preemptions": "vllm:num_preemptions_total",
    "generated_tokens": "vllm:generation_tokens_total",
    "processor_seconds": "process_cpu_seconds_total",
}
SAMPLE_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)$")

Sample = dict[str, float]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server that runs at `url`, or one that is started here and has to end as asked."""

    def __init__(self, url: str | None, binary: Path, arguments: list[str], log: Path):
        self.process: subprocess.Popen[bytes] | None = None
        if url:
            self.root = url.rstrip("/")
            return
        port = free_port()
        self.root = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKSTOP_")}
        command = [str(binary), "serve", *arguments, "--port", str(port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.is_running():
            try:
                if httpx.get(f"{self.root}/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{self.root} is not ready: see its log")

    def is_running(self) -> bool:
        return self.process is None or self.process.poll() is None

    def sample(self) -> Sample:
        """What the server says of itself now; metrics of several models are added up."""
        samples: Sample = {}
        for line in httpx.get(f"{self.root}/metrics", timeout=60).text.splitlines():
            if found := SAMPLE_LINE.match(line):
                samples[found[1]] = samples.get(found[1], 0.0) + float(found[2])
        return {name: samples.get(metric, 0.0) for name, metric in GAUGES.items()}

    def stop(self) -> int | None:
        """Asks the server to end, if it was started here, and returns its exit code."""
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.process.kill()
            self.process.wait()
