"""Which of LiteLLM's exceptions each of Backstop's errors becomes: on that class depends what a gateway does next."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Without this the package asks the internet for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
litellm = pytest.importorskip("litellm")

from backstop_process import BackstopProcess  # noqa: E402
from large_checkpoint import write_large_checkpoint  # noqa: E402
from requests_made import WEATHER_TOOL  # noqa: E402
from test_litellm_proxy_last_link import long_answer, wait_until_draining  # noqa: E402

PREFIXES = ["openai", "hosted_vllm"]
MODES = ["whole", "streamed"]
EVERY_WAY = [pytest.mark.parametrize("prefix", PREFIXES), pytest.mark.parametrize("mode", MODES)]
HELLO = [{"role": "user", "content": "Hello"}]
TOO_LONG = [{"role": "user", "content": "word " * 20_000}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]

# What is asked, and the class and status it becomes. `type()` is compared, not `isinstance`: the context and content
# policy errors are kinds of BadRequestError, and each has a fallback list of its own.
REFUSED = {
    "too long": ({"messages": TOO_LONG}, litellm.ContextWindowExceededError, 400),
    "too many tokens asked for": ({"max_tokens": 1_000_000}, litellm.ContextWindowExceededError, 400),
    "a bad value": ({"temperature": 3}, litellm.BadRequestError, 400),
    "a bad type": ({"top_k": "many"}, litellm.BadRequestError, 400),
    "an image": ({"messages": IMAGE}, litellm.BadRequestError, 400),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, litellm.BadRequestError, 400),
    "an unknown model": ({"model": "unheard-of"}, litellm.NotFoundError, 404),
    "a tool that speaks of rate limits": (
        {"tools": [WEATHER_TOOL], "tool_choice": {"type": "function", "function": {"name": "rate_limit 429"}}},
        litellm.BadRequestError,
        400,
    ),
}


def in_every_way(test: Callable[..., None]) -> Callable[..., None]:
    for mark in EVERY_WAY:
        test = mark(test)
    return test


def error_of(server: BackstopProcess, prefix: str, mode: str, model: str = "demo", **fields: Any) -> Exception | None:
    """What LiteLLM raises; `None` if the request is answered."""
    arguments = {
        "model": f"{prefix}/{model}",
        "api_base": server.base_url,
        "api_key": "unused",
        "messages": HELLO,
        "max_tokens": 8,
        "max_retries": 0,
        "num_retries": 0,
        **fields,
    }
    try:
        answer = litellm.completion(**arguments, stream=mode == "streamed")
        if mode == "streamed":
            list(answer)
    except litellm.exceptions.APIError as error:
        return error
    except Exception as error:
        # LiteLLM's exceptions have the SDK's as their bases, not one of their own.
        assert type(error).__module__ == "litellm.exceptions", repr(error)
        return error
    return None


@in_every_way
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_request_has_the_class_of_its_reason(
    server: BackstopProcess, case: str, prefix: str, mode: str
) -> None:
    fields, expected, status = REFUSED[case]
    error = error_of(server, prefix, mode, **fields)
    assert type(error) is expected, repr(error)
    assert error.status_code == status


@in_every_way
def test_a_wrong_key_is_an_authentication_error(
    start: Callable[..., BackstopProcess], tmp_path: Path, prefix: str, mode: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-right-key\n")
    server = start("--api-key-file", str(keys)).wait_until_ready()
    assert type(error_of(server, prefix, mode)) is litellm.AuthenticationError
    assert error_of(server, prefix, mode, api_key="the-right-key") is None


@in_every_way
def test_a_full_queue_is_a_rate_limit_error(start: Callable[..., BackstopProcess], prefix: str, mode: str) -> None:
    server = start("--max-num-seqs", "1", "--max-num-queued-reqs", "1").wait_until_ready()
    error = error_of(server, prefix, mode, n=8, max_tokens=200)
    assert type(error) is litellm.RateLimitError
    assert error.status_code == 429


def test_loading_is_service_unavailable(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    server = start("--served-model-name", "demo", model=str(write_large_checkpoint(tmp_path)))
    seen = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        error = error_of(server, PREFIXES[len(seen) % 2], "whole")
        if error is None:
            break
        if type(error) in (litellm.APIConnectionError, litellm.InternalServerError):
            assert "loading" not in str(error)  # nothing listens yet
            continue
        assert type(error) is litellm.ServiceUnavailableError, repr(error)
        assert "being loaded" in str(error)
        seen.add(len(seen))
    assert seen, "the server was ready before the first request"


def test_draining_is_service_unavailable(start: Callable[..., BackstopProcess]) -> None:
    server = start("--shutdown-timeout", "55s").wait_until_ready()
    with long_answer(server):
        server.terminate()
        wait_until_draining(server)
        for prefix in PREFIXES:
            for mode in MODES:
                error = error_of(server, prefix, mode)
                assert type(error) is litellm.ServiceUnavailableError, repr(error)
                assert "shutting down" in str(error)
    assert server.wait() == 0


@in_every_way
def test_waiting_too_long_is_service_unavailable(start: Callable[..., BackstopProcess], prefix: str, mode: str) -> None:
    server = start("--max-num-seqs", "1", "--queue-timeout", "100ms").wait_until_ready()
    with long_answer(server, choices=1):
        error = error_of(server, prefix, mode)
    assert type(error) is litellm.ServiceUnavailableError, repr(error)
    assert "deadline" in str(error)
    server.wait_until_idle()
