"""LlamaIndex has no fallbacks of its own; this is a language model that has one.

    pip install llama-index-llms-openai-like
    PRIMARY_URL=https://provider.example/v1 PRIMARY_API_KEY=… BACKSTOP_URL=http://127.0.0.1:8000/v1 \\
        python llamaindex_fallback.py "Hello"
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseGen
from llama_index.llms.openai_like import OpenAILike
from openai import APIError
from pydantic import PrivateAttr

CONTEXT_TOKENS = int(os.environ.get("BACKSTOP_CONTEXT_TOKENS", "4096"))


def model(name: str, default_model: str, default_url: str, timeout_s: float, retries: int) -> dict[str, Any]:
    return {
        "model": os.environ.get(f"{name}_MODEL", default_model),
        "api_base": os.environ.get(f"{name}_URL", default_url),
        "api_key": os.environ.get(f"{name}_API_KEY", "unused"),
        "timeout": timeout_s,
        "max_retries": retries,
        "is_chat_model": True,
        "is_function_calling_model": True,
        # The smaller of both: what is packed into a prompt must fit the last link too.
        "context_window": CONTEXT_TOKENS,
    }


class WithBackstop(OpenAILike):
    """The primary. Its chats, whole and streamed before their first piece, fall back to Backstop."""

    _backstop: OpenAILike = PrivateAttr()

    def __init__(self, backstop: OpenAILike, **fields: Any) -> None:
        super().__init__(**fields)
        self._backstop = backstop

    def chat(self, messages: Sequence[ChatMessage], **fields: Any) -> ChatResponse:
        try:
            return super().chat(messages, **fields)
        except APIError:
            return self._backstop.chat(messages, **fields)

    def stream_chat(self, messages: Sequence[ChatMessage], **fields: Any) -> ChatResponseGen:
        primary = super().stream_chat

        def pieces() -> ChatResponseGen:
            begun = False
            try:
                for piece in primary(messages, **fields):
                    begun = True
                    yield piece
            except APIError:
                if begun:
                    raise
                yield from self._backstop.stream_chat(messages, **fields)

        return pieces()


def language_model() -> WithBackstop:
    primary_timeout_s = float(os.environ.get("PRIMARY_TIMEOUT_S", "20"))
    backstop = OpenAILike(**model("BACKSTOP", "demo", "http://127.0.0.1:8000/v1", 600, 2))
    return WithBackstop(backstop, **model("PRIMARY", "gpt-oss-120b", "http://127.0.0.1:9/v1", primary_timeout_s, 0))


if __name__ == "__main__":
    question = ChatMessage(role="user", content=" ".join(sys.argv[1:]) or "Hello")
    for piece in language_model().stream_chat([question]):
        print(piece.delta, end="", flush=True)
    print()
