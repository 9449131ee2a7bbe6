"""What a soak shows: whether anything grows, is lost or is left behind."""

import statistics
from dataclasses import dataclass

from server import Sample

# Rows by which nothing can be said of a trend.
ROWS_MIN = 6

Row = dict[str, float | str]


@dataclass(frozen=True)
class Tolerances:
    """What is no finding."""

    # Share of a phase in which memory may grow as it likes: pools are filled and caches come to their size.
    warm_up: float
    # Growth over the rest of the phase.
    growth_share: float
    growth_bytes: float
    # How many times as slow the last third of the mixed load may be as its first.
    slowdown: float


@dataclass(frozen=True)
class Finding:
    """One question, its answer in words, and whether it is a good one; `None` if there was too little to see."""

    question: str
    answer: str
    good: bool | None

    def __str__(self) -> str:
        word = {True: "good", False: "BAD", None: "unknown"}[self.good]
        return f"{word:8} {self.question}: {self.answer}"


def slope(values: list[float]) -> float:
    """Growth from one value to the next, by least squares."""
    middle_x, middle_y = (len(values) - 1) / 2, statistics.fmean(values)
    above = sum((x - middle_x) * (y - middle_y) for x, y in enumerate(values))
    return above / sum((x - middle_x) ** 2 for x in range(len(values)))


def memory(rows: list[Row], phase: str, tolerances: Tolerances) -> Finding:
    """Whether resident memory is flat once it has come to its size."""
    values = [float(row["resident_bytes"]) for row in rows if row["phase"] == phase]
    values = values[int(len(values) * tolerances.warm_up) :]
    question = f"resident memory under {phase} load"
    if len(values) < ROWS_MIN:
        return Finding(question, f"only {len(values)} minutes after the warm-up", None)
    growth = slope(values) * (len(values) - 1)
    allowed = max(tolerances.growth_bytes, tolerances.growth_share * values[0])
    answer = f"{growth / 2**20:+.1f} MiB in {len(values)} minutes, at {statistics.fmean(values) / 2**20:.0f} MiB; {allowed / 2**20:.1f} are allowed"
    return Finding(question, answer, growth <= allowed)


def latency(rows: list[Row], tolerances: Tolerances) -> Finding:
    """Whether the ordinary client's answers take as long at the end as at the beginning."""
    question = "time of an ordinary answer, 99th percentile of each minute"
    values = [float(row["ordinary_p99_s"]) for row in rows if row["phase"] == "mixed" and row["ordinary_p99_s"] != ""]
    values = values[int(len(values) * tolerances.warm_up) :]
    if len(values) < ROWS_MIN:
        return Finding(question, f"only {len(values)} minutes after the warm-up", None)
    third = len(values) // 3
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    answer = f"median of the first third {first:.2f} s, of the last {last:.2f} s"
    return Finding(question, answer, last <= first * tolerances.slowdown)


def overload(capacity: float, offered: float, factor: float) -> Finding:
    """Whether as much was offered as was to be: a client may be too slow for it, and then nothing is shown."""
    answer = f"{offered:.2f} a second; the capacity is {capacity:.2f}, and {factor:g} times that were to be offered"
    return Finding("requests that were offered", answer, True if offered >= 0.9 * factor * capacity else None)


def left_behind(before: Sample, after: Sample) -> list[Finding]:
    """Whether an idle server is as it was before the load."""
    zero = {
        "kv_usage": "blocks of the KV cache in use when idle",
        "running": "sequences that run when idle",
        "waiting": "sequences that wait when idle",
        "in_flight": "requests in flight when idle",
    }
    findings = [Finding(question, f"{after[name]:g}", after[name] == 0) for name, question in zero.items()]
    # Connections of metrics and probes, and threads that the runtime keeps for a while.
    few = {"tasks": (4, "tasks"), "open_fds": (4, "open files"), "threads": (4, "threads")}
    for name, (more, question) in few.items():
        answer = f"{before[name]:.0f} before, {after[name]:.0f} after"
        findings.append(Finding(f"{question} when idle", answer, after[name] <= before[name] + more))
    failed = after["steps_failed"] - before["steps_failed"]
    findings.append(Finding("steps that failed", f"{failed:g}", failed == 0))
    return findings
