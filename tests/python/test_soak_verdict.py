"""The verdict of `scripts/soak` finds what grows, what slows down and what is left behind, and nothing else."""

import sys

import pytest

from backstop_process import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts/soak"))
import verdict  # noqa: E402

MIB = 2**20
TOLERANCES = verdict.Tolerances(warm_up=0.25, growth_share=0.03, growth_bytes=8 * MIB, slowdown=2)


def rows(mib: list[float], p99_s: list[float] | None = None) -> list[verdict.Row]:
    times = p99_s or [1.0] * len(mib)
    return [{"phase": "mixed", "resident_bytes": value * MIB, "ordinary_p99_s": time} for value, time in zip(mib, times)]


@pytest.mark.parametrize(
    ("mib", "good"),
    [
        ([100 + minute for minute in range(40)], False),
        # Comes to its size, and stays.
        ([50 + 5 * minute for minute in range(10)] + [100.0] * 30, True),
        # Comes and goes.
        ([100 + 6 * (minute % 2) for minute in range(40)], True),
        ([100.0] * 6, None),
    ],
)
def test_memory_that_grows_on_is_found(mib: list[float], good: bool | None) -> None:
    assert verdict.memory(rows(mib), "mixed", TOLERANCES).good is good


def test_answers_that_slow_down_are_found() -> None:
    flat, slower = [1.0] * 40, [1.0] * 20 + [3.0] * 20
    assert verdict.latency(rows(flat, flat), TOLERANCES).good is True
    assert verdict.latency(rows(flat, slower), TOLERANCES).good is False


@pytest.mark.parametrize("name", ["kv_usage", "running", "waiting", "in_flight", "tasks", "open_fds", "threads", "steps_failed"])
def test_what_is_left_behind_is_found(name: str) -> None:
    before = dict.fromkeys(["kv_usage", "running", "waiting", "in_flight", "tasks", "open_fds", "threads", "steps_failed"], 0.0)
    assert all(finding.good for finding in verdict.left_behind(before, dict(before)))
    after = {**before, name: 5.0}
    assert [finding.good for finding in verdict.left_behind(before, after)].count(False) == 1
