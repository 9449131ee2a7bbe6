"""Sends random hostile requests for as long as asked, beside an ordinary client with a key of its own, under a limit on the
memory of the server and of everything it starts; then writes what came of it.

    python tests/python/soak_hostile.py --seconds 3600 --memory-mib 4096 --out FILE.json
"""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from hostile_requests import KINDS, request

ATTACKERS = 4
# How long the ordinary client is alone at first, so that there is something to compare with.
ALONE_S = 5.0
# Clients that lose interest are ordinary, too.
PATIENCE_S = [0.05, 0.5, 5.0, REQUEST_TIMEOUT_S, REQUEST_TIMEOUT_S]
ALLOWED = {200, 400, 404, 405, 408, 413, 429, 503}
SAMPLE_S = 0.25
CONTROL_GROUPS = Path("/sys/fs/cgroup/memory")


def attack(root: str, seed: str, kinds: list[str], seconds: float, outcomes: multiprocessing.SimpleQueue) -> None:
    """One attacker, in a process of its own: making such requests takes processor time, too."""
    # Clients compute elsewhere.
    os.nice(10)
    deadline = time.monotonic() + seconds
    dice = random.Random(seed)
    statuses: Counter[str] = Counter()
    unexpected: list[str] = []
    headers = {"authorization": "Bearer the-attackers-key", "content-type": "application/json"}
    with httpx.Client(base_url=root, headers=headers) as client:
        while time.monotonic() < deadline:
            path, body = request(dice, kinds)
            try:
                response = client.post(path, content=body, timeout=dice.choice(PATIENCE_S))
                outcome = str(response.status_code)
                if response.status_code not in ALLOWED:
                    unexpected.append(f"{path}: {response.status_code}: {response.text[:300]}")
            except httpx.TimeoutException:
                outcome = "gave up"
            except httpx.TransportError as error:
                outcome = type(error).__name__
                if isinstance(error, httpx.ConnectError):
                    # The server is gone, which the main process finds out, too.
                    time.sleep(0.1)
            statuses[outcome] += 1
    outcomes.put((statuses, unexpected))


class Soak:
    def __init__(self, server: BackstopProcess, seed: int, kinds: list[str], seconds: float):
        self.server = server
        self.seed = seed
        self.kinds = kinds
        self.seconds = seconds
        self.deadline = time.monotonic() + ALONE_S
        self.statuses: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.probes_s: list[float] = []
        self.streams_s: list[float] = []
        self.alone_s: list[float] = []
        self.failed_streams: list[str] = []
        self.peak_bytes = 0

    def run(self) -> None:
        self.stream()
        self.alone_s, self.streams_s = self.streams_s, []
        self.deadline = time.monotonic() + self.seconds
        context = multiprocessing.get_context("spawn")
        outcomes = context.SimpleQueue()
        seeds = [f"{self.seed} {number}" for number in range(ATTACKERS)]
        attackers = [context.Process(target=attack, args=(self.server.root, seed, self.kinds, self.seconds, outcomes)) for seed in seeds]
        threads = [threading.Thread(target=work) for work in [self.probe, self.stream, self.watch_memory]]
        for worker in [*attackers, *threads]:
            worker.start()
        for _ in attackers:
            statuses, unexpected = outcomes.get()
            self.statuses += statuses
            self.unexpected += unexpected
        for worker in [*attackers, *threads]:
            worker.join()

    def goes_on(self) -> bool:
        return time.monotonic() < self.deadline and self.server.is_running()

    def probe(self) -> None:
        while self.goes_on():
            began = time.monotonic()
            try:
                httpx.get(f"{self.server.root}/health", timeout=30).raise_for_status()
                self.probes_s.append(time.monotonic() - began)
            except httpx.HTTPError as error:
                self.unexpected.append(f"/health: {error!r}")
            time.sleep(0.2)

    def stream(self) -> None:
        """What an ordinary client sees: the time of a short streamed answer."""
        headers = {"authorization": "Bearer the-ordinary-key"}
        body = {"model": "demo", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 32, "ignore_eos": True, "stream": True}
        while self.goes_on():
            began = time.monotonic()
            try:
                with httpx.stream("POST", f"{self.server.base_url}/chat/completions", json=body, headers=headers, timeout=60) as answer:
                    lines = [line for line in answer.iter_lines() if line]
                complete = answer.status_code == 200 and lines[-1] == "data: [DONE]"
                if complete:
                    self.streams_s.append(time.monotonic() - began)
                else:
                    self.failed_streams.append(f"{answer.status_code}: {lines[-1:]}")
            except httpx.HTTPError as error:
                self.failed_streams.append(repr(error))

    def watch_memory(self) -> None:
        while self.goes_on():
            self.peak_bytes = max(self.peak_bytes, resident_bytes([self.server.process.pid, *self.server.children()]))
            time.sleep(SAMPLE_S)

    def report(self) -> dict[str, Any]:
        def spread(seconds: list[float]) -> dict[str, float]:
            ordered = sorted(seconds)
            at = lambda share: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 4)
            return {"count": len(ordered), "median_s": at(0.5), "p99_s": at(0.99), "max_s": at(1.0)} if ordered else {"count": 0}

        return {
            "seed": self.seed,
            "kinds": self.kinds,
            "requests": dict(self.statuses.most_common()),
            "unexpected": self.unexpected,
            "health": spread(self.probes_s),
            "another key's stream of 32 tokens, alone": spread(self.alone_s),
            "another key's stream of 32 tokens": spread(self.streams_s),
            "failed streams": self.failed_streams,
            "peak_resident_mib": self.peak_bytes >> 20,
            "server_alive": self.server.is_running(),
        }


def resident_bytes(processes: list[int]) -> int:
    total = 0
    for process in processes:
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def limit_memory(process: int, limit_bytes: int) -> bool:
    """Puts a process and what it starts under a limit that the kernel enforces, where that may be done here."""
    group = CONTROL_GROUPS / f"backstop-soak-{process}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        (group / "cgroup.procs").write_text(str(process))
        return True
    except OSError:
        return False


def soak(seconds: float, memory_bytes: int | None, seed: int, kinds: list[str], *arguments: str) -> dict[str, Any]:
    """One run; the server must be alive and idle afterwards, and end as it should."""
    with tempfile.NamedTemporaryFile("w", prefix="backstop-test-keys-") as keys:
        keys.write("the-attackers-key name=attacker\nthe-ordinary-key name=ordinary\n")
        keys.flush()
        server = BackstopProcess("--api-key-file", keys.name, *arguments)
        try:
            server.wait_until_ready()
            enforced = memory_bytes is not None and limit_memory(server.process.pid, memory_bytes)
            run = Soak(server, seed, kinds, seconds)
            run.run()
            report = {"seconds": seconds, "memory_limit_enforced": enforced, **run.report()}
            if server.is_running():
                server.stop()
            report["log_tail"] = [] if report["server_alive"] else server.log().splitlines()[-20:]
            return report
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--memory-mib", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, required=True)
    arguments, more = parser.parse_known_args()
    report = soak(arguments.seconds, arguments.memory_mib << 20, arguments.seed, arguments.kinds, *more)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
