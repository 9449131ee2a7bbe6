"""Weights that are made up, in the formats of GGUF files."""

from collections.abc import Callable

import httpx
import pytest

from backstop_process import BackstopProcess
from requests_made import completion


def answer(server: BackstopProcess) -> tuple[str, list[float]]:
    body = completion("def main():", max_tokens=12, temperature=0, logprobs=3)
    choice = httpx.post(f"{server.base_url}/completions", json=body, timeout=60).json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


@pytest.mark.parametrize("quantization", ["q4_0", "Q4_K_M", "mxfp4"])
def test_the_same_weights_are_made_at_every_start(start: Callable[..., BackstopProcess], quantization: str) -> None:
    answers = []
    for threads in ("1", "2"):
        made = ("--load-format", "synthetic", "--quantization", quantization, "--served-model-name", "demo")
        server = start(*made, "--num-threads", threads).wait_until_ready()
        assert "has made-up weights" in server.log()
        answers.append(answer(server))
        server.stop()
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--quantization", "q4_0"], "--quantization is for --load-format synthetic alone"),
        (["--load-format", "synthetic", "--quantization", "awq"], "known are: iq4_nl, iq4_xs"),
    ],
)
def test_what_cannot_be_made_up_is_refused(
    start: Callable[..., BackstopProcess], arguments: list[str], reason: str
) -> None:
    server = start(*arguments)
    assert server.process.wait(60) in (1, 2)
    assert reason in server.log()
