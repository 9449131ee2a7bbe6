"""LangChain: a chat model with Backstop behind it, by `with_fallbacks`.

    pip install langchain-openai
    PRIMARY_URL=https://provider.example/v1 PRIMARY_API_KEY=… BACKSTOP_URL=http://127.0.0.1:8000/v1 \\
        python langchain_with_fallbacks.py "Hello"

`bind_tools` of a model with fallbacks binds both models. A stream falls back only before its first piece, which can be
an empty one: LangChain neither repeats nor continues a stream that broke later.
"""

import os
import sys

from langchain_core.runnables import RunnableWithFallbacks
from langchain_openai import ChatOpenAI

BACKSTOP_MODEL = os.environ.get("BACKSTOP_MODEL", "demo")


def primary() -> ChatOpenAI:
    return ChatOpenAI(
        model=os.environ.get("PRIMARY_MODEL", "gpt-oss-120b"),
        base_url=os.environ.get("PRIMARY_URL", "http://127.0.0.1:9/v1"),
        api_key=os.environ.get("PRIMARY_API_KEY", "unused"),
        timeout=float(os.environ.get("PRIMARY_TIMEOUT_S", "20")),
        # Retries come before the fallback, and the user waits.
        max_retries=0,
    )


def backstop() -> ChatOpenAI:
    return ChatOpenAI(
        model=BACKSTOP_MODEL,
        base_url=os.environ.get("BACKSTOP_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("BACKSTOP_API_KEY", "unused"),
        timeout=600,
        max_retries=2,
    )


def chat_model() -> RunnableWithFallbacks:
    """By default every exception leads to the fallback, a refused prompt as well."""
    return primary().with_fallbacks([backstop()])


if __name__ == "__main__":
    for piece in chat_model().stream(" ".join(sys.argv[1:]) or "Hello"):
        print(piece.content, end="", flush=True)
    print()
