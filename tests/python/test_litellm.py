"""Behind LiteLLM's router: the primary is dead, Backstop is the fallback. Skipped without litellm."""

import os
from typing import Any

import pytest

# Without this the package asks the internet for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
litellm = pytest.importorskip("litellm")

from backstop_process import BackstopProcess  # noqa: E402
from requests_made import WEATHER_TOOL  # noqa: E402

MESSAGES = [{"role": "user", "content": "Write a function that adds two numbers."}]
PREFIXES = ["openai", "hosted_vllm"]
# Nothing listens there.
DEAD = "http://127.0.0.1:9/v1"


def router(prefix: str, backstop_url: str, primary_url: str = DEAD) -> Any:
    def deployment(name: str, url: str) -> dict[str, Any]:
        parameters = {"model": f"{prefix}/demo", "api_base": url, "api_key": "unused"}
        return {"model_name": name, "litellm_params": parameters}

    deployments = [deployment("primary", primary_url), deployment("backstop", backstop_url)]
    return litellm.Router(model_list=deployments, fallbacks=[{"primary": ["backstop"]}], num_retries=0)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_dead_primary_falls_back(server: BackstopProcess, prefix: str) -> None:
    answer = router(prefix, server.base_url).completion(model="primary", messages=MESSAGES, max_tokens=16, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_stream_falls_back(server: BackstopProcess, prefix: str) -> None:
    arguments = {"model": "primary", "messages": MESSAGES, "max_tokens": 40, "temperature": 0, "tools": [WEATHER_TOOL]}
    chunks = list(router(prefix, server.base_url).completion(**arguments, stream=True))
    text = "".join((getattr(chunk.choices[0].delta, "reasoning_content", "") or "") + (chunk.choices[0].delta.content or "") for chunk in chunks)
    assert text
    assert chunks[-1].choices[0].finish_reason
