"""Two Backstops behind the LiteLLM proxy share the requests, and the death of one costs none."""

from pathlib import Path

import pytest

pytest.importorskip("litellm")

from scale_out import run, two_servers_behind_litellm

REQUESTS = 40


@pytest.mark.slow
def test_a_server_that_is_killed_under_load_costs_no_request_and_comes_back(tmp_path: Path) -> None:
    with two_servers_behind_litellm(tmp_path) as (servers, proxy):
        report = run(servers, proxy, REQUESTS, concurrency=8)
    for name in ("both", "one is killed", "both again"):
        # Greedy answers of the same weights are the same to the last letter, whoever gives them.
        found = report[name]
        assert (found["requests"], found["lost"], found["other text"]) == (REQUESTS, 0, 0), (name, found)
    for name in ("both", "both again"):
        shares = report[name]["answered by"]
        assert sum(shares) == REQUESTS and min(shares) >= 1, (name, shares)
    # What a client has begun to read cannot be taken back. It ends in an error, never in half an answer that looks whole.
    streams = report["in the middle of streams"]
    assert streams["lost"] == streams["broken off"] == 1 and streams["other text"] == 0, streams
