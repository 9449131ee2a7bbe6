"""The `openai` package alone: ask the primary, and Backstop if that fails.

    PRIMARY_URL=https://provider.example/v1 PRIMARY_API_KEY=… BACKSTOP_URL=http://127.0.0.1:8000/v1 \\
        python openai_two_clients.py "Hello"

A stream that breaks before its first text starts again at Backstop; one that breaks later is continued there, with
what the user has read already as the beginning of the answer.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from openai import APIConnectionError, APIError, APIStatusError, OpenAI

# The primary's wait bounds how long a user looks at nothing. The last link deserves more patience, and retries, which
# honour the Retry-After that Backstop sends while it loads or is full.
PRIMARY = OpenAI(
    base_url=os.environ.get("PRIMARY_URL", "http://127.0.0.1:9/v1"),
    api_key=os.environ.get("PRIMARY_API_KEY", "unused"),
    timeout=float(os.environ.get("PRIMARY_TIMEOUT_S", "20")),
    max_retries=0,
)
BACKSTOP = OpenAI(
    base_url=os.environ.get("BACKSTOP_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("BACKSTOP_API_KEY", "unused"),
    timeout=600,
    max_retries=2,
)
PRIMARY_MODEL = os.environ.get("PRIMARY_MODEL", "gpt-oss-120b")
BACKSTOP_MODEL = os.environ.get("BACKSTOP_MODEL", "demo")


def is_worth_a_fallback(error: APIError) -> bool:
    """Everything but what would fail everywhere. A 400 can mean a context or a policy of that provider alone."""
    return not (isinstance(error, APIStatusError) and error.status_code == 422)


def ask(messages: list[dict[str, Any]], **fields: Any) -> Any:
    """One answer."""
    try:
        return PRIMARY.chat.completions.create(model=PRIMARY_MODEL, messages=messages, **fields)
    except APIError as error:
        if not is_worth_a_fallback(error):
            raise
    return BACKSTOP.chat.completions.create(model=BACKSTOP_MODEL, messages=messages, **fields)


def stream(messages: list[dict[str, Any]], **fields: Any) -> Iterator[str]:
    """One answer's text, piece by piece."""
    said = ""
    try:
        for piece in pieces(PRIMARY, PRIMARY_MODEL, messages, **fields):
            said += piece
            yield piece
        return
    except APIError as error:
        if not is_worth_a_fallback(error):
            raise
    except Exception as error:  # a connection that breaks within a stream is the transport's own exception
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
    if said:
        messages = [*messages, {"role": "assistant", "content": said, "prefix": True}]
    yield from pieces(BACKSTOP, BACKSTOP_MODEL, messages, **fields)


def pieces(client: OpenAI, model: str, messages: list[dict[str, Any]], **fields: Any) -> Iterator[str]:
    finished = False
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True, **fields):
        for choice in chunk.choices:
            if choice.delta.content:
                yield choice.delta.content
            finished = finished or choice.finish_reason is not None
    if not finished:
        # The connection was closed in good order, and yet the answer is not whole.
        raise APIConnectionError(request=client._client.build_request("POST", client.base_url))


if __name__ == "__main__":
    for text in stream([{"role": "user", "content": " ".join(sys.argv[1:]) or "Hello"}]):
        print(text, end="", flush=True)
    print()
