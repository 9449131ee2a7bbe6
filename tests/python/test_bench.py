"""`backstop-qualify bench serve` against the server: every token is counted, and both see the same latencies."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backstop_process import BINARY, BackstopProcess, free_port

QUALIFY = Path(os.environ.get("BACKSTOP_QUALIFY_BINARY", BINARY.with_name("backstop-qualify")))
pytestmark = pytest.mark.skipif(not QUALIFY.is_file(), reason=f"{QUALIFY} does not exist: cargo build -p backstop-qualify")

MEASURED, FAILED, WRONG, INVALID = 0, 1, 2, 3
SHORT = ["--random-output-len", "12", "--num-warmups", "0", "--power", "off"]
INPUT_LEN = 24


@pytest.fixture(scope="module")
def server() -> Iterator[BackstopProcess]:
    process = BackstopProcess()
    try:
        yield process.wait_until_ready()
        process.stop()
    finally:
        if process.is_running():
            process.kill()


def bench(url: str, *arguments: str, expected: int = MEASURED) -> subprocess.CompletedProcess[str]:
    short = [*SHORT, "--random-input-len", str(INPUT_LEN)]
    command = [str(QUALIFY), "bench", "serve", "--url", url, *short, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == expected, f"{done.returncode}\n{done.stderr}\n{done.stdout}"
    return done


def report(url: str, *arguments: str, input_len: int = INPUT_LEN) -> dict[str, Any]:
    # On a busy machine a generator may lag, which is said, and is no error of what is tested here.
    short = [*SHORT, "--random-input-len", str(input_len), "--json", "-"]
    command = [str(QUALIFY), "bench", "serve", "--url", url, *short, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode in (MEASURED, INVALID), done.stderr
    return json.loads(done.stdout)


class Counted:
    """What the server counts while something runs."""

    def __init__(self, server: BackstopProcess):
        self.server = server
        self.before = server.metrics()

    def since(self, name: str) -> float:
        return self.server.metrics()[name] - self.before[name]

    def mean(self, name: str) -> float:
        return self.since(f"{name}_sum") / self.since(f"{name}_count")


def test_tokens_and_latencies_are_what_the_server_says(server: BackstopProcess) -> None:
    warm = report(server.root, "--num-prompts", "4", "--max-concurrency", "2", "--ignore-eos")
    assert warm["runs"][0]["completed"] == 4
    # Two requests of one token come before what is measured, and are no part of it: a greeting, and one that calibrates.
    counted = Counted(server)
    measured = report(server.root, "--backend", "openai", "--num-prompts", "20", "--max-concurrency", "2", "--ignore-eos")
    (run,) = measured["runs"]
    assert (run["completed"], run["failed"], run["total_output_tokens"]) == (20, 0, 240)
    assert counted.since("vllm:generation_tokens_total") == 240 + 2
    assert measured["settings"]["prompts"] == "token ids"
    assert run["summary"]["counted_by_pieces"] == 0
    assert run["summary"]["cached_tokens"] == 0
    assert run["summary"]["input_tokens"]["min"] == run["summary"]["input_tokens"]["max"]
    # The client sees what the server measures, and what both take for sockets and a machine that others use too.
    for ours, theirs in [
        (run["mean_ttft_ms"], "vllm:time_to_first_token_seconds"),
        (run["mean_e2el_ms"], "vllm:e2e_request_latency_seconds"),
    ]:
        seconds = counted.mean(theirs)
        assert seconds * 0.8 - 0.02 < ours / 1e3 < seconds * 1.5 + 0.1, (ours, theirs, seconds)
    pace = counted.mean("vllm:request_time_per_output_token_seconds")
    assert pace * 0.5 - 0.005 < run["mean_tpot_ms"] / 1e3 < pace * 2 + 0.01, (run["mean_tpot_ms"], pace)


def test_chats_have_about_the_length_that_is_asked_for(server: BackstopProcess) -> None:
    measured = report(server.root, "--num-prompts", "8", "--max-concurrency", "1,4", input_len=100)
    assert [run["max_concurrency"] for run in measured["runs"]] == [1, 4]
    template = measured["settings"]["template_tokens"]
    for run in measured["runs"]:
        mean = run["summary"]["input_tokens"]["mean"]
        assert 80 < mean - template < 120, (mean, template)


def test_no_two_prompts_are_alike_unless_that_is_asked_for(server: BackstopProcess) -> None:
    long = ["--backend", "openai", "--num-prompts", "6", "--max-concurrency", "1"]
    apart = report(server.root, *long, "--seed", "11", input_len=200)
    assert apart["runs"][0]["summary"]["cached_tokens"] == 0
    shared = report(server.root, *long, "--random-prefix-len", "200", "--seed", "12")
    assert shared["runs"][0]["summary"]["cached_tokens"] > 500
    assert any("prefix cache" in note for note in shared["runs"][0]["notes"])


def test_turns_contain_the_answers_before_them(server: BackstopProcess) -> None:
    turns = ["--dataset-name", "multi_turn", "--multi-turn-num-turns", "3", "--num-prompts", "6", "--save-detailed"]
    (run,) = report(server.root, *turns, "--max-concurrency", "2")["runs"]
    assert run["completed"] == 6
    lengths = {(record["session"], record["turn"]): record["prompt_tokens"] for record in run["records"]}
    assert all(lengths[session, 0] < lengths[session, 1] < lengths[session, 2] for session in (0, 1))


def test_requests_come_at_their_rate_or_as_recorded(server: BackstopProcess, tmp_path: Path) -> None:
    (run,) = report(server.root, "--request-rate", "20", "--num-prompts", "20", "--goodput", "ttft:60000", "tpot:60000")["runs"]
    assert (run["arrivals"], run["completed"]) == ("poisson", 20)
    assert run["summary"]["good_fraction"] == run["summary"]["good_fraction_from_planned"] == 1
    assert run["summary"]["ttft_from_planned_s"]["mean"] >= run["summary"]["ttft_s"]["mean"]
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 100 * number, "input_length": 10 + number, "output_length": 3 + number} for number in range(5)]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--dataset-name", "timed_trace", "--dataset-path", str(trace), "--backend", "openai", "--ignore-eos"]
    (run,) = report(server.root, *arguments, "--save-detailed")["runs"]
    assert run["arrivals"] == "recorded"
    assert run["total_output_tokens"] == 3 + 4 + 5 + 6 + 7
    assert [round(record["planned_s"], 3) for record in run["records"]] == [0, 0.1, 0.2, 0.3, 0.4]


def test_prompts_of_a_file_are_asked_once(server: BackstopProcess, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"Number {number}"} for number in range(4)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--dataset-name", "custom", "--dataset-path", str(prompts), "--num-prompts", "4", "--custom-output-len", "4"]
    assert report(server.root, *arguments)["runs"][0]["completed"] == 4
    refused = bench(server.root, *arguments, "--max-concurrency", "1,2", expected=FAILED)
    assert "--reuse-prompts" in refused.stderr
    assert len(report(server.root, *arguments, "--max-concurrency", "1,2", "--reuse-prompts")["runs"]) == 2


def test_the_knee_is_found(server: BackstopProcess, tmp_path: Path) -> None:
    # However fast the machine is, one of these objectives cannot be missed, and the other cannot be met.
    search = ["--find-capacity", "concurrency", "--capacity-probes", "3"]
    easy = report(server.root, *search, "--goodput", "e2el:100000000")["capacity"]
    assert [probe["load"] for probe in easy["probes"]] == [1, 2, 4]
    assert (easy["load"], easy["fails_at"], easy["is_settled"]) == (4, None, False)
    into = tmp_path / "results"
    hard = bench(server.root, *search, "--goodput", "ttft:0", "--into", str(into))
    assert "Capacity: none" in hard.stdout
    measures = json.loads((into / "measures/bench-serve.json").read_text())
    capacity = next(measure for measure in measures if measure["metric"] == "capacity_clients")
    assert capacity["value"] == 0
    assert json.loads((into / "bench/serve.json").read_text())["capacity"]["is_settled"]


def test_results_are_shown_and_kept(server: BackstopProcess, tmp_path: Path) -> None:
    arguments = ["--num-prompts", "6", "--max-concurrency", "1,2", "--into", str(tmp_path), "--html", str(tmp_path / "b.html")]
    done = bench(server.root, *arguments)
    for word in ["2 clients", "TTFT p99", "output throughput for each user", "tokens/s"]:
        assert word in done.stdout
    measures = json.loads((tmp_path / "measures/bench-serve.json").read_text())
    names = {measure["metric"] for measure in measures}
    assert {"ttft_p50_s", "tpot_p99_s", "output_throughput_tokens_per_s", "error_rate"} <= names
    assert {measure["settings"]["max_concurrency"] for measure in measures} == {1, 2}
    page = (tmp_path / "b.html").read_text()
    assert "<svg" in page and "http://" not in page.replace(server.root, "").replace("http://www.w3.org", "")


def test_what_is_not_there_is_an_error_and_no_measurement(server: BackstopProcess) -> None:
    nobody = bench(f"http://127.0.0.1:{free_port()}", expected=FAILED)
    assert "cannot connect" in nobody.stderr
    unknown = bench(server.root, "--model", "no-such-model", expected=FAILED)
    assert "no-such-model" in unknown.stderr or "404" in unknown.stderr
    assert bench(server.root, "--request-rate", "0", expected=WRONG).stdout == ""
