"""`requests` alone: two providers that are called alike, with little patience, and not streamed.

    PRIMARY_URL=https://provider.example/v1 PRIMARY_API_KEY=… BACKSTOP_URL=http://127.0.0.1:8000/v1 \\
        python requests_two_providers.py "Hello"

`timeout` is the longest silence that `requests` puts up with, not the longest answer. An answer in one piece is silent
until it is there, so that five seconds would lose the long ones. Start Backstop with `--response-keep-alive 2s`: it says
then that it is at work, with spaces before the JSON. What fails after the first of them cannot have a status any more
and is a 200 with an `error`, which `answer_of` takes for the failure that it is.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT_S = float(os.environ.get("GATEWAY_TIMEOUT_S", "5"))


class ProviderFailed(Exception):
    """A provider answered, and what it says is that it failed."""


@dataclass(frozen=True)
class Provider:
    url: str
    api_key: str
    model: str


PROVIDERS = [
    Provider(
        url=os.environ.get("PRIMARY_URL", "http://127.0.0.1:9/v1"),
        api_key=os.environ.get("PRIMARY_API_KEY", "unused"),
        model=os.environ.get("PRIMARY_MODEL", "gpt-oss-120b"),
    ),
    Provider(
        url=os.environ.get("BACKSTOP_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("BACKSTOP_API_KEY", "unused"),
        model=os.environ.get("BACKSTOP_MODEL", "demo"),
    ),
]


def answer_of(provider: Provider, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    response = requests.post(
        f"{provider.url}/chat/completions",
        json={"model": provider.model, "messages": messages, **fields},
        headers={"authorization": f"Bearer {provider.api_key}"},
        timeout=TIMEOUT_S,
    )
    response.raise_for_status()
    answer = response.json()
    if "error" in answer:
        raise ProviderFailed(answer["error"]["message"])
    return answer


def ask(messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """The answer of the first provider that has one, or the failure of the last."""
    *others, last = PROVIDERS
    for provider in others:
        try:
            return answer_of(provider, messages, **fields)
        except (requests.RequestException, ProviderFailed):
            continue
    return answer_of(last, messages, **fields)


if __name__ == "__main__":
    question = {"role": "user", "content": " ".join(sys.argv[1:]) or "Hello"}
    print(ask([question])["choices"][0]["message"]["content"])
