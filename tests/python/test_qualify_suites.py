"""`backstop qualify` with the suites of our own making, against the real server with its demo model."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backstop_process import BINARY, BackstopProcess

QUALIFY = BINARY.with_name("backstop-qualify")
pytestmark = pytest.mark.skipif(
    not QUALIFY.is_file(), reason=f"{QUALIFY} does not exist: cargo build -p backstop-qualify"
)

SUITES = ["instructions", "json", "refusals", "retrieval", "tools"]


def qualify(server: BackstopProcess, into: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Measures by suite and metric."""
    done = subprocess.run(
        [str(QUALIFY), "--suite", ",".join(SUITES), "--url", server.root, "--model", "demo", "--into", str(into)]
        + list(arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    measures = {}
    for suite in SUITES:
        listed = json.loads((into / "measures" / f"{suite}.json").read_text())
        measures[suite] = {measure["metric"]: measure for measure in listed}
    return measures


def attempts(into: Path, suite: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (into / "answers" / f"{suite}.jsonl").read_text().splitlines()]


def test_all_suites_run_and_the_server_enforces_what_it_promises(tmp_path: Path) -> None:
    server = BackstopProcess().wait_until_ready()
    try:
        first = qualify(server, tmp_path / "first", "--limit", "30", "--max-tokens", "96")
        again = qualify(server, tmp_path / "again", "--limit", "30", "--max-tokens", "96", "--concurrency", "1")
    finally:
        server.stop()

    for suite in SUITES:
        assert first[suite]["no_answer"]["value"] == 0
        assert len(attempts(tmp_path / "first", suite)) == 30
        for metric, measure in first[suite].items():
            interval = measure["interval"]
            if interval:
                assert interval["low"] <= measure["value"] <= interval["high"], metric
            # One seed gives the same numbers, whatever the concurrency.
            if metric != "retries":
                assert measure["value"] == again[suite][metric]["value"], metric

    # What the server promises whatever its model can: a schema is kept wherever the answer was not cut off.
    for attempt in attempts(tmp_path / "first", "json"):
        if attempt["task"].startswith("json_schema/") and attempt["outcome"] != "truncated":
            assert attempt["marks"]["conforms"], attempt["replies"]
    for attempt in attempts(tmp_path / "first", "tools"):
        if attempt["task"].startswith("none/"):
            assert not attempt["replies"][0].get("tool_calls")

    # The length of texts was learned from the server, and kept.
    for attempt in attempts(tmp_path / "first", "retrieval"):
        assert attempt["marks"]["calibrated"]
        length = int(attempt["task"].split("/")[0])
        assert 0.8 * (length - 96) <= attempt["marks"]["prompt_tokens"] <= length - 96
