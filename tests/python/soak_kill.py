"""Kills a server under load again and again (SIGKILL), and says what its audit log and its clients lost; then writes it.

    python tests/python/soak_kill.py --times 100 --seed 1 --out FILE.json

Each time: the server starts and is ready, clients ask for short chats, streamed and not, as fast as they are answered, the
server is killed at a random moment, and its log is verified. An answer that a client got to its end and that is not in the log
is *missing*; the moment between its end and the kill is its age.
"""

import argparse
import json
import random
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from backstop_process import BINARY, REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import chat

# A server is killed somewhere between these after the first answer.
ALIVE_S = (0.05, 1.5)


class Client(threading.Thread):
    """Asks until its server is gone."""

    def __init__(self, server: BackstopProcess, name: str):
        super().__init__()
        self.root, self.prefix = server.root, name
        # When each answer had come to its end.
        self.answered: dict[str, float] = {}
        self.unexpected: list[int] = []
        self.first = threading.Event()

    def run(self) -> None:
        url = f"{self.root}/v1/chat/completions"
        with httpx.Client(timeout=REQUEST_TIMEOUT_S) as client:
            for number in range(1_000_000):
                request_id = f"{self.prefix}-{number}"
                body = chat(max_tokens=8, stream=number % 2 == 1)
                try:
                    answer = client.post(url, json=body, headers={"x-request-id": request_id})
                except httpx.HTTPError:
                    break
                if answer.status_code != 200:
                    self.unexpected.append(answer.status_code)
                    break
                self.answered[request_id] = time.monotonic()
                self.first.set()
        self.first.set()


def verify(log: Path, heads: list[str]) -> dict[str, Any]:
    expected = [part for head in heads for part in ("--expect", head)]
    command = [str(BINARY), "audit", "verify", "--json", str(log), *expected]
    result = subprocess.run(command, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode == 0) == report["holds"], result
    return report


def written(log: Path) -> list[str]:
    """The ids of all requests in a log, in its order."""
    ids = []
    for line in log.read_text(errors="replace").splitlines():
        if '"kind":"request"' in line and line.endswith('"}'):
            ids.append(json.loads(line)["request_id"])
    return ids


def kill_once(log: Path, dice: random.Random, clients: int, name: str) -> dict[str, Any]:
    started = time.monotonic()
    server = BackstopProcess("--audit-log", str(log)).wait_until_ready()
    ready_s = time.monotonic() - started
    threads = [Client(server, f"{name}-{number}") for number in range(clients)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.first.wait()
        time.sleep(dice.uniform(*ALIVE_S))
        assert server.is_running(), server.log()
    finally:
        killed = time.monotonic()
        server.kill()
    for thread in threads:
        thread.join()
    answered = {key: at for thread in threads for key, at in thread.answered.items()}
    present = set(written(log))
    missing = {key: killed - at for key, at in answered.items() if key not in present}
    return {
        "ready_s": round(ready_s, 3),
        "answered": len(answered),
        "unexpected": [status for thread in threads for status in thread.unexpected],
        "missing": len(missing),
        "missing_age_ms": sorted(round(1000 * age, 1) for age in missing.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="backstop-kill-", dir=".") as directory:
        log = Path(directory) / "audit.jsonl"
        rounds, heads = [], []
        for number in range(args.times):
            result = kill_once(log, dice, args.clients, str(number))
            report = verify(log, heads)
            assert report["holds"], report
            heads.append(report["last"]["hash"])
            rounds.append(result)
            print(number, result, flush=True)
        # The last start tells of what the last kill tore.
        server = BackstopProcess("--audit-log", str(log)).wait_until_ready()
        server.stop()
        report, ids = verify(log, heads), written(log)
        assert report["holds"], report
        assert len(ids) == len(set(ids)), "a request is there twice"
    ready = sorted(result["ready_s"] for result in rounds)
    summary = {
        "times": args.times,
        "clients": args.clients,
        "seed": args.seed,
        "answered": sum(result["answered"] for result in rounds),
        "written": len(ids),
        "unexpected": [status for result in rounds for status in result["unexpected"]],
        "missing": sum(result["missing"] for result in rounds),
        "times_with_missing": sum(result["missing"] > 0 for result in rounds),
        "missing_most": max(result["missing"] for result in rounds),
        "missing_age_ms_max": max((age for result in rounds for age in result["missing_age_ms"]), default=None),
        "ready_s_median": ready[len(ready) // 2],
        "ready_s_max": ready[-1],
        "entries": report["entries"],
        "torn": len(report["torn"]),
        "lost": report["lost"],
        "holds": report["holds"],
    }
    print(json.dumps(summary, indent=1))
    if args.out:
        args.out.write_text(json.dumps({**summary, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
