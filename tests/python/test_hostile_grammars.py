"""Schemas, grammars and expressions that end a process that compiles them, or take all of its memory: each is answered,
the server lives on, and others are served meanwhile."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import chat

# What the server may grow by while it refuses or compiles what follows, all of it together.
GROWTH_BYTES_MAX = 512 << 20
# The longest that a probe may take on a machine that also runs everything else.
PROBE_S_MAX = 2.0

BRIEF = {"reasoning_effort": "none", "max_tokens": 8, "temperature": 0.0}


def lark_chain(length: int) -> str:
    rules = "".join(f'r{index}: "x" r{index + 1}\n' for index in range(length))
    return f'start: r0\n{rules}r{length}: "y"\n'


def terminal_chain(length: int) -> str:
    rules = "".join(f'T{index}: "x" T{index + 1}\n' for index in range(length))
    return f'start: T0\n{rules}T{length}: "y"\n'


def doubling_terminals(levels: int) -> str:
    """2 to the power of `levels` optional letters."""
    rules = "".join(f"T{index + 1}: T{index} T{index}\n" for index in range(levels))
    return f"start: T{levels}\nT0: /a?/\n{rules}"


def reference_chain(length: int, wrap: Callable[[dict], dict]) -> dict[str, Any]:
    definitions = {f"d{index}": wrap({"$ref": f"#/$defs/d{index + 1}"}) for index in range(length)}
    definitions[f"d{length}"] = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "required": ["x"], "$defs": definitions}


def as_property(schema: dict) -> dict:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}


SCHEMAS = {
    f"{name} {length * factor}": reference_chain(length * factor, wrap)
    for name, length, wrap in [
        ("properties", 250, as_property),
        ("references", 1000, lambda schema: schema),
        ("allOf", 1000, lambda schema: {"allOf": [schema]}),
        ("anyOf", 1000, lambda schema: {"anyOf": [schema, {"type": "null"}]}),
        ("items", 1000, lambda schema: {"type": "array", "items": schema}),
    ]
    for factor in (1, 10)
}
GRAMMARS = {
    **{f"rules {length}": lark_chain(length) for length in (800, 8000, 80_000)},
    **{f"terminals {length}": terminal_chain(length) for length in (800, 8000, 80_000)},
    **{f"groups {depth}": f"start: {'(' * depth}\"a\"{')' * depth}" for depth in (1000, 10_000, 100_000)},
    "optional letters doubled": doubling_terminals(24),
    "nested schema": "start: %json " + json.dumps(reference_chain(400, as_property)),
    "repetition of repetitions": "start: A\nA: B{1000}\nB: C{1000}\nC: /[a-z]?x?/",
}
EXPRESSIONS = {
    **{f"optional letters {count}": "a?" * count for count in (2000, 20_000, 125_000, 1_250_000)},
    "optional classes": "[a-z]?" * 20_000,
    "groups": "(" * 5000 + "a" + ")" * 5000,
    "choices of repetitions": "(a|b|ab|ba|aab)*" * 200,
}


def answered(server: BackstopProcess, path: str, body: dict[str, Any]) -> httpx.Response:
    response = httpx.post(f"{server.root}{path}", json=body, timeout=REQUEST_TIMEOUT_S)
    assert response.status_code in (200, 400, 413), response.text[:500]
    assert server.is_running(), server.log()
    return response


def as_tool(schema: dict[str, Any]) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return {"tools": [tool], "tool_choice": "required"}


@pytest.fixture(scope="module")
def attacked():
    process = BackstopProcess("--max-model-len", "4096")
    try:
        process.wait_until_ready()
        before = process.resident_bytes()
        yield process
        growth = process.peak_resident_bytes() - before
        assert growth < GROWTH_BYTES_MAX, f"grew by {growth >> 20} MiB"
        httpx.post(f"{process.base_url}/chat/completions", json=chat("Hello", **BRIEF)).raise_for_status()
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_deep_schema_is_answered_in_every_api(attacked: BackstopProcess, name: str) -> None:
    schema = SCHEMAS[name]
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    answered(attacked, "/v1/chat/completions", chat("Hi", **BRIEF, response_format=form))
    answered(attacked, "/v1/chat/completions", chat("Hi", **BRIEF, **as_tool(schema)))
    form = {"format": {"type": "json_schema", "name": "s", "schema": schema}}
    answered(attacked, "/v1/responses", {"model": "demo", "input": "Hi", "max_output_tokens": 16, "text": form})
    form = {"format": {"type": "json_schema", "schema": schema}}
    answered(attacked, "/v1/messages", {**chat("Hi"), "max_tokens": 8, "output_config": form})


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_deep_grammar_is_answered(attacked: BackstopProcess, name: str) -> None:
    body = chat("Hi", **BRIEF, structured_outputs={"grammar": GRAMMARS[name]})
    answered(attacked, "/v1/chat/completions", body)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_that_multiplies_is_answered(attacked: BackstopProcess, name: str) -> None:
    expression = EXPRESSIONS[name]
    answered(attacked, "/v1/chat/completions", chat("Hi", **BRIEF, structured_outputs={"regex": expression}))
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": f"^{expression}$"}}, "required": ["a"]}
    answered(attacked, "/v1/chat/completions", chat("Hi", **BRIEF, **as_tool(schema)))


def test_probes_and_streams_go_on_while_grammars_are_tried(attacked: BackstopProcess) -> None:
    body = chat("Hi", **BRIEF, structured_outputs={"regex": EXPRESSIONS["optional letters 20000"]})
    threads = [
        threading.Thread(target=answered, args=(attacked, "/v1/chat/completions", {**body, "seed": seed})) for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    probes, tokens = 0, 0
    stream = {**chat("Count.", max_tokens=200, ignore_eos=True), "stream": True}
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        assert httpx.get(f"{attacked.root}/health", timeout=PROBE_S_MAX).status_code == 200
        assert time.monotonic() - began < PROBE_S_MAX
        probes += 1
        with httpx.stream("POST", f"{attacked.base_url}/chat/completions", json=stream, timeout=REQUEST_TIMEOUT_S) as lines:
            tokens += sum(line.startswith("data: {") for line in lines.iter_lines())
    assert probes > 0 and tokens > 100


def seconds_computed(process: int) -> float:
    """Processor time of a process; no more than before if it is gone."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100
    except FileNotFoundError:
        return 0.0


def test_work_that_nobody_waits_for_ends(attacked: BackstopProcess) -> None:
    body = chat("Hi", **BRIEF, structured_outputs={"regex": EXPRESSIONS["optional letters 20000"]})
    for _ in range(4):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{attacked.base_url}/chat/completions", json=body, timeout=0.3)
    deadline = time.monotonic() + 10
    while True:
        before = {child: seconds_computed(child) for child in attacked.children()}
        time.sleep(0.5)
        busy = [child for child, seconds in before.items() if seconds_computed(child) > seconds]
        if not busy:
            return
        assert time.monotonic() < deadline, f"{busy} still compute"
