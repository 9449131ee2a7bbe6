"""Thousands of odd and broken request bodies: no 5xx, no hang, and the same answers afterwards."""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import WEATHER_TOOL, chat, completion

# More of them, for who has the time: BACKSTOP_FUZZED_BODIES=50000.
BODIES = int(os.environ.get("BACKSTOP_FUZZED_BODIES", "2000"))
CLIENTS = 8
SEED = 20_260_301
# Where bodies are sent that are made for another place.
ELSEWHERE = ["/v1/models", "/ping", "/nothing", "/", "/api/tags", "/api/pull", "/api/embed", "/api/version", "//v1//completions/"]
# Must never come back: an error names the field and does not repeat what stands in it.
MARKER = "zq7echo"

ALLOWED_STATUSES = {200, 400, 404, 405, 408, 413, 415, 422, 429, 501}
# How streams end that do not end in `[DONE]`.
ENDS_IN_AN_EVENT = ["/v1/messages", "/v1/responses", "/infill"]


class Raw(float):
    """A number that is written as the given text."""

    text = ""

    def __new__(cls, text: str) -> "Raw":
        self = super().__new__(cls, 0.5)
        self.text = text
        return self

    def __repr__(self) -> str:
        return self.text


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1.5, 3, 7, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30,
    Raw("1e999"), Raw("-1e999"), Raw("1e-400"), Raw("NaN"), Raw("Infinity"), Raw("01"), Raw("0x10"), Raw("1."), Raw("9" * 400),
    "", " ", "\0", "a", MARKER, MARKER * 50, "none", "auto", "required", "true", "1", "\ud800", "\ufffd\u202e\u0000", "🎉" * 300,
    "<|END_OF_TURN_TOKEN|>", "<|START_ACTION|>[{", "{{ messages }}", "{% for x in range(10**9) %}", "e\u0301" * 40, "x" * 5000,
    [], [[]], [None], [0], [-1], ["a"], [MARKER], [{}], [[1, 2], "a"], list(range(300)), ["a"] * 300, nested(60), nested(200),
    {}, {"": ""}, {"a": None}, {"type": MARKER}, {"role": "user"}, {"0": 0}, {str(i): i for i in range(300)}, {"x": nested(100)},
]  # fmt: skip

ODD_FIELDS = [
    "model", "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "n", "stop", "stop_token_ids", "seed", "stream",
    "stream_options", "logprobs", "top_logprobs", "logit_bias", "tools", "tool_choice", "parallel_tool_calls", "functions",
    "function_call", "response_format", "reasoning_effort", "chat_template_kwargs", "documents", "min_tokens", "ignore_eos",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "echo", "suffix", "best_of", "user", "priority", "add_generation_prompt",
    "continue_final_message", "add_special_tokens", "skip_special_tokens", "include_stop_str_in_output", "max_completion_tokens",
    "system", "thinking", "max_tokens", "input", "instructions", "text", "reasoning", "options", "format", "think", "raw", "template",
    "keep_alive", "images", "input_extra", "n_predict", "thinking_budget", "prefix", "guided_json", "structured_outputs", "chat_template", "audio", "modalities", "include_reasoning", "use_beam_search", "prompt_logprobs",
]  # fmt: skip


def seeds() -> list[tuple[str, dict[str, Any]]]:
    """Good bodies to begin with, and where they go; all of them ask for little work."""
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": "", "reasoning": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "user", "content": "Thanks", "name": "ann"},
    ]
    chats = [
        chat(max_tokens=2),
        chat(max_tokens=3, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
        chat(max_tokens=2, messages=conversation, tools=[WEATHER_TOOL], tool_choice="auto"),
        chat(max_tokens=2, logprobs=True, top_logprobs=2, logit_bias={"300": 1.5}, n=2, seed=1, stop=["a", "b"]),
    ]
    completions = [
        completion(max_tokens=2),
        completion([1, 2, 3], max_tokens=2, logprobs=2),
        completion(["a", "b"], max_tokens=2, echo=True, stream=True),
        completion(max_tokens=2, suffix="c"),
    ]
    seeds = [("/v1/chat/completions", body) for body in chats] + [("/v1/completions", body) for body in completions]
    return seeds + of_other_apis()


def of_other_apis() -> list[tuple[str, dict[str, Any]]]:
    """The same for Anthropic's Messages, Responses, editors and Ollama."""
    used = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]}
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, used]},
        {"role": "user", "content": [result, {"type": "text", "text": "Thanks"}]},
    ]
    tool = {"name": "get_weather", "description": "d", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    messages = {"model": "demo", "max_tokens": 2, "system": "s", "messages": turns, "tools": [tool], "thinking": {"type": "enabled", "budget_tokens": 1}}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"},
        {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ]
    function = {"type": "function", "name": "get_weather", "parameters": tool["input_schema"]}
    responses = {"model": "demo", "max_output_tokens": 16, "instructions": "i", "input": items, "tools": [function], "reasoning": {"effort": "low"}}
    spoken = [{"role": "user", "content": "Hi"}, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    options = {"num_predict": 2, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 1, "stop": ["a"], "num_ctx": 128}
    ollama = {"model": "demo", "messages": spoken, "tools": [WEATHER_TOOL], "options": options, "think": False, "keep_alive": "5m"}
    infill = {"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}], "prompt": "c", "n_predict": 2, "stop": ["x"]}
    return [
        ("/v1/messages", messages),
        ("/v1/messages", {**messages, "stream": True}),
        ("/v1/messages/count_tokens", {key: messages[key] for key in ("model", "messages", "tools")}),
        ("/v1/responses", responses),
        ("/v1/responses", {**responses, "stream": True, "text": {"format": {"type": "text"}}}),
        ("/tokenize", {"model": "demo", "messages": turns[:1], "add_generation_prompt": True}),
        ("/detokenize", {"tokens": [1, 2, 3]}),
        ("/infill", infill),
        ("/infill", {**infill, "stream": True}),
        ("/v1/fim/completions", {"model": "demo", "prompt": "a", "suffix": "b", "max_tokens": 2, "random_seed": 1}),
        ("/api/chat", ollama),
        ("/api/chat", {**ollama, "stream": False, "format": {"type": "object", "properties": {"a": {"type": "boolean"}}}}),
        ("/api/generate", {"model": "demo", "prompt": "a", "system": "s", "options": options, "raw": False}),
        ("/api/generate", {"model": "demo", "prompt": "a", "suffix": "b", "stream": False, "options": options, "raw": True}),
        ("/api/show", {"model": "demo", "verbose": True}),
    ]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of everything inside `value`."""
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def mutate_value(body: Any, chooser: random.Random) -> None:
    """Changes one thing inside `body`, which is not empty."""
    path = chooser.choice(list(places(body)))
    parent, key = at(body, path[:-1]), path[-1]
    action = chooser.randrange(6)
    if action == 0:
        del parent[key]
    elif action == 1:
        parent[key] = [parent[key]] * chooser.choice([1, 2, 50])
    elif action == 2:
        parent[key] = {"value": parent[key]}
    elif action == 3:
        parent[key] = copy.deepcopy(at(body, chooser.choice(list(places(body)))))
    else:
        parent[key] = copy.deepcopy(chooser.choice(ODD_VALUES))


def mutate_bytes(data: bytes, chooser: random.Random) -> bytes:
    """Damages the text itself."""
    at_byte = chooser.randrange(len(data) + 1)
    action = chooser.randrange(6)
    if action == 0:
        return data[:at_byte]
    if action == 1:
        return data[:at_byte] + bytes(chooser.choices(range(256), k=chooser.choice([1, 4, 40]))) + data[at_byte:]
    if action == 2:
        return data[:at_byte] + data[at_byte + chooser.randint(1, 9) :]
    if action == 3:
        return data + chooser.choice([b"}", b" ", b"\0", data, b"\xef\xbb\xbf", b"//"])
    if action == 4:
        return chooser.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"[", b"\n\n"]) + data
    flipped = bytearray(data)
    flipped[min(at_byte, len(data) - 1)] ^= 1 << chooser.randrange(8)
    return bytes(flipped)


def hostile_request(chooser: random.Random) -> tuple[str, bytes]:
    """A route and a body."""
    route, body = copy.deepcopy(chooser.choice(seeds()))
    if chooser.random() < 0.05:
        route = chooser.choice(ELSEWHERE)
    for _ in range(chooser.choice([0, 1, 1, 1, 2, 3, 5])):
        mutate_value(body, chooser)
        if not body:
            break
    if chooser.random() < 0.5:
        body[chooser.choice(ODD_FIELDS)] = copy.deepcopy(chooser.choice(ODD_VALUES))
    if isinstance(body.get("n"), int) and body["n"] > 16:
        # Good for an answer of minutes; that the bound holds is tested elsewhere.
        body["n"] = 129
    data = json.dumps(body, ensure_ascii=chooser.random() < 0.5).encode("utf-8", "surrogatepass")
    if chooser.random() < 0.3:
        data = mutate_bytes(data, chooser)
    return route, data


CONTENT_TYPES = ["application/json"] * 6 + ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "\x80", ""]


def send(client: httpx.Client, index: int) -> tuple[bytes, str, httpx.Response]:
    chooser = random.Random(SEED + index)
    route, data = hostile_request(chooser)
    headers = {"content-type": chooser.choice(CONTENT_TYPES).encode("latin-1")}
    return data, route, client.post(route, content=data, headers=headers)


def check(data: bytes, route: str, answer: httpx.Response) -> None:
    context = f"{route} {data[:2000]!r}: {answer.status_code} {answer.text[:500]}"
    if answer.status_code == 503:
        assert 1 <= int(answer.headers["retry-after"]) <= 60, context
        return
    assert answer.status_code in ALLOWED_STATUSES, context
    kind = answer.headers.get("content-type", "")
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error if route.startswith("/api/") else error["message"] and error["type"], context
        assert MARKER not in answer.text, context
    elif "event-stream" in kind:
        assert route in ENDS_IN_AN_EVENT or answer.text.rstrip().endswith("data: [DONE]"), context
        assert '{"error"' not in answer.text and "event: error" not in answer.text, context
    elif "ndjson" in kind:
        last = json.loads(answer.text.strip().splitlines()[-1])
        assert last["done"] is True, context
    elif answer.content:
        answer.json()


def canary(client: httpx.Client) -> str:
    body = chat("A canary in the mine.", max_tokens=24, logprobs=True)
    choice = client.post("/v1/chat/completions", json=body).json()["choices"][0]
    return json.dumps([choice["message"], choice["logprobs"]])


@pytest.mark.slow
def test_no_body_breaks_the_server(start: Callable[..., BackstopProcess]) -> None:
    # Short answers even where a mutation took the limit away.
    server = start("--max-model-len", "512", "--served-model-name", "demo,*").wait_until_ready()
    with httpx.Client(base_url=server.root, timeout=REQUEST_TIMEOUT_S) as client:
        expected = canary(client)
        statuses: dict[int, int] = {}
        with ThreadPoolExecutor(CLIENTS) as pool:
            for data, route, answer in pool.map(lambda index: send(client, index), range(BODIES)):
                check(data, route, answer)
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        # Mutations that leave every body good, or break every one, test little.
        assert statuses[200] > BODIES / 20 and statuses[400] > BODIES / 5, statuses
        server.wait_until_idle()
        assert canary(client) == expected


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"null", b"[]", b"{", b"{}", b'"a"', b"\xff\xfe{\0}\0", b'{"model": "\xc3\x28"}', b"[" * 100_000, b'{"a":' * 100_000, b"\x1f\x8b\x08\0"],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_request_is_a_400(server: BackstopProcess, route: str, data: bytes) -> None:
    answer = httpx.post(server.root + route, content=data, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("chunked", [False, True])
def test_giant_bodies_are_refused(server: BackstopProcess, chunked: bool) -> None:
    piece = b'{"messages": [' + b" " * (1 << 20)
    pieces = 40

    def generate() -> Iterator[bytes]:
        for _ in range(pieces):
            yield piece

    before = server.resident_bytes()
    content = generate() if chunked else piece * pieces
    answer = httpx.post(f"{server.base_url}/chat/completions", content=content, timeout=60)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert server.resident_bytes() < before + (128 << 20)


def test_large_but_allowed_bodies_are_read_and_judged(server: BackstopProcess) -> None:
    for text in ["word " * 5_000_000, "é" * 8_000_000, "<|END_TEXT|>" * 2_000_000, " " * 20_000_000]:
        answer = httpx.post(f"{server.base_url}/chat/completions", json=chat(text), timeout=REQUEST_TIMEOUT_S)
        assert answer.status_code == 400, answer.text[:300]
        assert answer.json()["error"]["code"] == "context_length_exceeded"
