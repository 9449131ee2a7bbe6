"""Errors, as the vendor's SDK and the gateways that read them see them."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, NotFoundError, OpenAI

from backstop_process import BackstopProcess
from conftest import sdk
from requests_made import MODEL_NAME, chat, completion

BAD_FIELDS = [
    ("temperature", 3),
    ("temperature", "hot"),
    ("top_p", -0.1),
    ("top_k", -2),
    ("min_p", 1.5),
    ("n", 0),
    ("n", 1000),
    ("max_tokens", 0),
    ("max_completion_tokens", -1),
    ("stop", [""]),
    ("stop", 7),
    ("seed", 1.5),
    ("logprobs", "yes"),
    ("top_logprobs", 99),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"99999999": 1}),
    ("frequency_penalty", 9),
    ("presence_penalty", -9),
    ("reasoning_effort", "extreme"),
    ("tools", "none"),
    ("tool_choice", 1),
    ("stream", "maybe"),
    ("stream_options", []),
    ("response_format", {"type": "structural_tag"}),
    ("tool_choice", "required"),
    ("messages", []),
    ("messages", "hello"),
    ("messages", [{"role": "wizard", "content": "hi"}]),
    ("messages", [{"content": "hi"}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]),
    ("guided_json", "no schema"),
    ("user", "u" * 5000),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=[f"{field}-{i}" for i, (field, _) in enumerate(BAD_FIELDS)])
def test_a_bad_value_is_a_400_that_names_its_field(client: OpenAI, field: str, value: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(), extra_body={field: value})
    error = caught.value
    assert error.param is not None and error.param.split(".")[0] == field
    assert error.param in error.message
    assert error.type == "invalid_request_error"
    assert error.code


def test_unknown_fields_and_nulls_are_ignored(client: OpenAI) -> None:
    unknown = {"chat_flavour": {"deep": [1, 2]}, "store": True, "metadata": {"a": "b"}, "prediction": None}
    known = dict.fromkeys(["stop", "seed", "n", "tools", "tool_choice", "logit_bias", "top_p", "response_format"])
    answer = client.chat.completions.create(**chat(), extra_body={**unknown, **known})
    assert answer.choices[0].finish_reason


def test_a_prompt_beyond_the_context_has_the_code_and_the_words(client: OpenAI) -> None:
    long = "word " * 20_000
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(long))
    check_context_error(caught.value, "messages")
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(**completion(long))
    check_context_error(caught.value, "prompt")
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(max_tokens=1_000_000))
    check_context_error(caught.value, "messages")


def check_context_error(error: BadRequestError, param: str) -> None:
    assert error.code == "context_length_exceeded"
    assert error.type == "invalid_request_error"
    assert error.param == param
    assert error.body["message"].startswith("This model's maximum context length is ")
    # Some gateways search the body for this text, with the space.
    assert '"code": "context_length_exceeded"' in error.response.text
    assert "word word" not in error.response.text


def test_the_context_can_be_filled_to_its_end(client: OpenAI) -> None:
    length = client.models.retrieve(MODEL_NAME).model_extra["max_model_len"]
    prompt = [300] * (length - 2)
    answer = client.completions.create(**completion(prompt, max_tokens=2), extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens == length
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(**completion(prompt, max_tokens=3))
    check_context_error(caught.value, "prompt")


def test_an_unknown_model_is_a_404_that_does_not_repeat_its_name(client: OpenAI) -> None:
    for call, body in [(client.chat.completions.create, chat()), (client.completions.create, completion())]:
        with pytest.raises(NotFoundError) as caught:
            call(**{**body, "model": "gpt-unheard-of"})
        assert caught.value.code == "model_not_found"
        assert "gpt-unheard-of" not in caught.value.response.text
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-unheard-of")


def test_a_star_answers_to_every_name(start: Callable[..., BackstopProcess]) -> None:
    server = start("--served-model-name", "north,*").wait_until_ready()
    with sdk(server) as client:
        assert [model.id for model in client.models.list()] == ["north"]
        assert client.chat.completions.create(**{**chat(), "model": "gpt-unheard-of"}).model == "gpt-unheard-of"
        assert client.chat.completions.create(**{**chat(), "model": "north"}).model == "north"


def test_keys_are_asked_for_everywhere_but_at_the_probes(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# comment\nfirst-secret-key\nsecond-secret-key\n")
    server = start("--api-key-file", str(keys)).wait_until_ready()
    with sdk(server, "wrong-secret-key") as client, pytest.raises(AuthenticationError) as caught:
        client.chat.completions.create(**chat())
    assert caught.value.code == "invalid_api_key"
    assert "secret" not in caught.value.response.text
    for key in ("first-secret-key", "second-secret-key"):
        with sdk(server, key) as client:
            assert client.chat.completions.create(**chat()).choices
    headers = {"x-api-key": "first-secret-key"}
    assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 200
    for path, status in [("/health", 200), ("/ready", 200), ("/metrics", 401), ("/version", 401), ("/v1/models", 401)]:
        assert httpx.get(server.root + path).status_code == status, path
    for log_line in server.log().splitlines():
        assert "secret-key" not in log_line


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405)],
)
def test_wrong_routes_and_methods_are_json_errors(server: BackstopProcess, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, server.root + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["message"]


def test_every_answer_has_a_request_id(client: OpenAI, server: BackstopProcess) -> None:
    given = {"x-request-id": "trace-17"}
    assert httpx.get(f"{server.base_url}/models", headers=given).headers["x-request-id"] == "trace-17"
    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(**chat(temperature=9))
    assert caught.value.request_id


def test_errors_that_need_no_body_leave_the_connection_usable(server: BackstopProcess) -> None:
    # A gateway keeps its connections; one that dies behind an answer costs it the next request.
    with httpx.Client(base_url=server.root, timeout=30) as client:
        for size in (0, 100, 5_000, 200_000, 2_000_000):
            for path, status in [("/nothing", 404), ("/v1/models", 405), ("/ping", 200)]:
                for _ in range(10):
                    assert client.post(path, content=b"x" * size).status_code == status
                    assert client.get("/health").status_code == 200


def test_a_client_that_is_still_sending_sees_the_refusal(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-secret-key\n")
    server = start("--api-key-file", str(keys)).wait_until_ready()
    large = chat("word " * 1_000_000)
    for _ in range(10):
        answer = httpx.post(f"{server.base_url}/chat/completions", json=large, timeout=30)
        assert answer.status_code == 401
