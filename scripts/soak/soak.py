"""Loads a server for as long as asked, and says whether anything grew, was lost or was left behind: first with a mix of clients
that abort, send bad input, read slowly and ask for grammars, then, with --overload, with more requests than it can answer.

    python scripts/soak/soak.py --minutes 60 --out DIR -- demo --kv-cache-memory 64MiB
    python scripts/soak/soak.py --minutes 40 --overload 3 --overload-minutes 20 --out DIR -- demo
    python scripts/soak/soak.py --minutes 60 --out DIR --url http://127.0.0.1:8000 --model NAME

Arguments behind `--` are those of `backstop serve`. The exit code is 0 if nothing was found. DIR gets `minutes.csv`,
`report.json` and the server's log.
"""

import argparse
import asyncio
import csv
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from load import Load, Record
from server import Sample, Server
from verdict import Finding, Row, Tolerances, latency, left_behind, memory, overload

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_S = 5.0
MINUTE_S = 60.0
IDLE_TIMEOUT_S = 120.0
# Threads without work end after ten seconds.
SETTLE_S = 15.0
# Of these, a minute's row has the most; of all other gauges the last.
PEAKS = ("kv_usage", "running", "waiting", "in_flight", "tasks", "open_fds", "threads", "seconds_since_progress")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of mixed load; 0 for none (default 60)")
    parser.add_argument("--clients", type=int, default=12, help="of the mixed load, beside one that is timed (default 12)")
    parser.add_argument("--overload", type=float, metavar="FACTOR", help="then so many times the capacity, which is measured before")
    parser.add_argument("--overload-minutes", type=float, default=20, help="(default 20)")
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/debug/backstop", help="(default target/debug/backstop)")
    parser.add_argument("--url", help="a server that runs already, instead of one that is started")
    parser.add_argument("--model", default="demo", help="name that requests ask for (default demo)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random (default 1)")
    parser.add_argument("--warm-up", type=float, default=0.25, help="share of each phase of which nothing is expected (default 0.25)")
    parser.add_argument("--growth-share", type=float, default=0.03, help="growth of memory that is none, as a share (default 0.03)")
    parser.add_argument("--growth-mib", type=float, default=8, help="or in MiB, if that is more (default 8)")
    parser.add_argument("--slowdown", type=float, default=2, help="of an ordinary answer from first to last third (default 2)")
    parser.add_argument("--out", type=Path, required=True, help="directory for what came of it; made if it is not there")
    parser.add_argument("serve", nargs="*", help="arguments of `backstop serve` (default demo)")
    return parser.parse_args()


def quantile(values: list[float], share: float) -> float | str:
    """Nearest-rank; an empty text if there are none."""
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 4) if ordered else ""


class Journal:
    """One row a minute, written as it comes."""

    def __init__(self, server: Server, record: Record, file: Path):
        self.server, self.record, self.file = server, record, file
        self.rows: list[Row] = []
        self.phase = "idle"
        self.outcomes: Counter[str] = Counter()

    async def keep(self, end: asyncio.Event) -> None:
        began, samples, minute_end = time.monotonic(), list[Sample](), time.monotonic() + MINUTE_S
        phase = self.phase
        while not end.is_set():
            await asyncio.sleep(SAMPLE_S)
            if self.phase != phase:
                # A row is of one phase; what is between two is dropped.
                phase, samples, minute_end = self.phase, [], time.monotonic() + MINUTE_S
                self._taken()
            try:
                samples.append(await asyncio.to_thread(self.server.sample))
            except httpx.HTTPError as error:
                self.record.note_wrong(f"/metrics: {error!r}")
            if time.monotonic() >= minute_end and samples:
                minute_end += MINUTE_S
                self._write((time.monotonic() - began) / MINUTE_S, samples)
                samples = []

    def _taken(self) -> Record:
        """What was recorded since the last row."""
        record = self.record
        taken = Record(record.outcomes, record.ordinary_s, record.health_s)
        record.outcomes, record.ordinary_s, record.health_s = Counter(), [], []
        self.outcomes += taken.outcomes
        return taken

    def _write(self, minute: float, samples: list[Sample]) -> None:
        taken = self._taken()
        row: Row = {"minute": round(minute, 2), "phase": self.phase}
        row |= samples[-1]
        row |= {name: max(sample[name] for sample in samples) for name in PEAKS}
        row |= {
            "requests": taken.outcomes.total(),
            "refused": sum(count for outcome, count in taken.outcomes.items() if "refused 4" in outcome or "refused 5" in outcome),
            "wrong_so_far": self.record.wrong_count,
            "ordinary": len(taken.ordinary_s),
            "ordinary_p50_s": quantile(taken.ordinary_s, 0.5),
            "ordinary_p99_s": quantile(taken.ordinary_s, 0.99),
            "health": len(taken.health_s),
            "health_max_s": quantile(taken.health_s, 1.0),
        }
        self.rows.append(row)
        with self.file.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(self.rows)
        mib = float(row["resident_bytes"]) / 2**20
        print(
            f"minute {minute:6.1f}  {self.phase:8}  {row['requests']:6} requests  {row['refused']:5} refused  {row['wrong_so_far']} wrong  "
            f"{mib:8.1f} MiB  p99 {row['ordinary_p99_s']} s  /health {row['health_max_s']} s",
            flush=True,
        )


async def run(asked: argparse.Namespace, server: Server, journal: Journal) -> tuple[float, float] | None:
    """All load; returns the capacity and what was offered, per second, if there was an overload."""
    load = Load(server.root, asked.model, asked.seed, journal.record)
    end = asyncio.Event()
    watching = [asyncio.create_task(journal.keep(end)), asyncio.create_task(load.probe(end))]
    rates = None
    try:
        if asked.minutes > 0:
            journal.phase = "mixed"
            await load.mixed(asked.clients, asked.minutes * MINUTE_S)
        if asked.overload:
            journal.phase = "capacity"
            capacity = await load.capacity()
            journal.phase = "overload"
            print(f"capacity {capacity:.2f} answers per second; offered are {asked.overload * capacity:.2f}", flush=True)
            rates = capacity, await load.overload(asked.overload * capacity, asked.overload_minutes * MINUTE_S)
    finally:
        end.set()
        await asyncio.gather(*watching)
        journal.outcomes += journal.record.outcomes
    return rates


def wait_until_idle(server: Server) -> Sample:
    """What the server says once nothing is left to do, or when it should have come to that."""
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while time.monotonic() < deadline:
        sample = server.sample()
        if all(sample[name] == 0 for name in ("running", "waiting", "in_flight", "kv_usage")):
            break
        time.sleep(1)
    time.sleep(SETTLE_S)
    return server.sample()


def main() -> None:
    asked = arguments()
    # The server comes first.
    os.nice(5)
    asked.out.mkdir(parents=True, exist_ok=True)
    server = Server(asked.url, asked.binary, asked.serve or ["demo"], asked.out / "server.log")
    findings: list[Finding] = []
    record = Record()
    journal = Journal(server, record, asked.out / "minutes.csv")
    rates = None
    try:
        server.wait_until_ready()
        before = server.sample()
        rates = asyncio.run(run(asked, server, journal))
        tolerances = Tolerances(asked.warm_up, asked.growth_share, asked.growth_mib * 2**20, asked.slowdown)
        phases = [phase for phase in ("mixed", "overload") if any(row["phase"] == phase for row in journal.rows)]
        findings += [memory(journal.rows, phase, tolerances) for phase in phases]
        findings += [latency(journal.rows, tolerances)] if "mixed" in phases else []
        findings += [overload(*rates, asked.overload)] if rates else []
        alive = server.is_running()
        findings.append(Finding("the server lives", str(alive), alive))
        if alive:
            findings += left_behind(before, wait_until_idle(server))
    finally:
        code = server.stop()
    if server.process:
        findings.append(Finding("exit code after SIGTERM", str(code), code == 0))
    findings.append(Finding("answers that nobody should get", str(record.wrong_count), record.wrong_count == 0))
    report = {
        "arguments": sys.argv[1:],
        "findings": [vars(finding) for finding in findings],
        "capacity_and_offered_per_second": rates,
        "outcomes": dict(journal.outcomes.most_common()),
        "wrong": record.wrong,
    }
    (asked.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(map(str, findings)))
    print("\n".join(record.wrong))
    raise SystemExit(any(finding.good is False for finding in findings))


if __name__ == "__main__":
    main()
