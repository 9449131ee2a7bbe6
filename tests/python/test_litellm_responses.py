"""The Responses API through LiteLLM, and what its `openai/` prefix makes of Anthropic's messages: Responses too."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

# Without this the package asks the internet for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
litellm = pytest.importorskip("litellm")

from backstop_process import BackstopProcess  # noqa: E402

PREFIXES = ["openai", "hosted_vllm"]
TEXT = "What is two plus three?"


def deployment(server: BackstopProcess, prefix: str) -> dict[str, Any]:
    return {"model": f"{prefix}/demo", "api_base": server.base_url, "api_key": "unused", "num_retries": 0}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whole_and_streamed_answers_agree(server: BackstopProcess, prefix: str) -> None:
    arguments = {**deployment(server, prefix), "input": TEXT, "max_output_tokens": 120, "temperature": 0}
    whole = litellm.responses(**arguments)
    assert whole.output_text
    events = list(litellm.responses(**arguments, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens


def test_anthropic_messages_become_responses(server: BackstopProcess) -> None:
    # Without supports_reasoning a router takes every `openai/` model that it does not know for one that cannot think.
    link = {"model_name": "link", "litellm_params": deployment(server, "openai"), "model_info": {"supports_reasoning": True}}
    router = litellm.Router(model_list=[link])
    history: list[Any] = [{"role": "user", "content": TEXT}]
    arguments = {"model": "link", "max_tokens": 200, "temperature": 0, "thinking": {"type": "enabled", "budget_tokens": 1024}}

    async def turn(**extra: Any) -> Any:
        return await router.aanthropic_messages(messages=history, **arguments, **extra)

    async def collect(stream: AsyncIterator[bytes]) -> str:
        return "".join([chunk.decode() async for chunk in stream])

    async def talk() -> tuple[Any, Any, str]:
        first = await turn()
        # Thinking goes back as it came, signature and all.
        history.extend([{"role": "assistant", "content": first["content"]}, {"role": "user", "content": "And now?"}])
        return first, await turn(), await collect(await turn(stream=True))

    first, second, streamed = asyncio.run(talk())
    assert any(block["type"] == "text" and block["text"] for block in first["content"])
    assert second["stop_reason"] in ("end_turn", "max_tokens")
    assert "event: message_stop" in streamed and "event: error" not in streamed


def test_a_conversation_that_is_too_long_is_a_context_error(server: BackstopProcess) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.responses(**deployment(server, "openai"), input="word " * 20_000)
