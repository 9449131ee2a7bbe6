"""lm-eval's `local-completions` client gets the log-likelihoods that single tokens add up to."""

import json

import httpx
import pytest
from backstop_process import REPOSITORY, REQUEST_TIMEOUT_S, BackstopProcess

pytest.importorskip("lm_eval", reason="tests/python/requirements-lm-eval.txt is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from tokenizers import Tokenizer

TOLERANCE = 1e-3
BOS = 5
# What an answer to this ends with, so that the token that lm-eval has generated and drops is a stop token.
ENDING = ("Hello", "!<|END_TEXT|>")
PAIRS = [
    ENDING,
    ("", "The quick brown fox"),
    ("Question: is the sky blue?\nAnswer:", " yes"),
    ("Question: is the sky blue?\nAnswer:", " no"),
    ("def add(a, b):\n    return", " a + b"),
    ("def add(a, b):\n    return", " a + b\n\n\ndef subtract(a, b):\n    return a - b"),
    ("Größe und Öl: ", "ein Stück Käse für 3 €, 漢字 🦀"),
    ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
    # More tokens than a step of the CPU computes.
    ("import os\nimport sys\n" * 120, "import re\n" * 40),
]


class LocalTokenizer:
    """The model's tokenizer as the client calls one."""

    def __init__(self) -> None:
        directory = REPOSITORY / "models/demo"
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = json.loads((directory / "config.json").read_text())
        assert config["bos_token_id"] == BOS

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def lm(server: BackstopProcess, batch_size: int, concurrent: int) -> LocalCompletionsAPI:
    model = LocalCompletionsAPI(
        base_url=f"{server.base_url}/completions",
        model="demo",
        # Its own are of packages that weigh gigabytes; this one is put in below.
        tokenizer_backend=None,
        custom_prefix_token_id=BOS,
        batch_size=batch_size,
        num_concurrent=concurrent,
        max_retries=1,
        timeout=REQUEST_TIMEOUT_S,
    )
    model.tokenizer = LocalTokenizer()
    model.tokenizer_backend = "local"
    model.tokenized_requests = True
    return model


def of_token(server: BackstopProcess, before: list[int], token: int) -> tuple[float, bool]:
    """The log-probability of a token that is generated because nothing else can be; and whether it would be anyway."""
    body = {
        "prompt": before,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logit_bias": {str(token): 100},
    }
    answer = httpx.post(f"{server.base_url}/completions", json=body, timeout=REQUEST_TIMEOUT_S).json()
    logprobs = answer["choices"][0]["logprobs"]
    (logprob,) = logprobs["token_logprobs"]
    return logprob, logprob == max(logprobs["top_logprobs"][0].values())


def directly(server: BackstopProcess, model: LocalCompletionsAPI, pair: tuple[str, str]) -> tuple[float, bool]:
    """The same by a request for each token."""
    context, continuation = pair
    if context:
        context_ids, continuation_ids = model._encode_pair(context, continuation)
    else:
        context_ids, continuation_ids = [BOS], model.tok_encode(continuation)
    ids = context_ids + continuation_ids
    places = range(len(context_ids), len(ids))
    parts = [of_token(server, ids[:place], ids[place]) for place in places]
    return sum(logprob for logprob, _ in parts), all(greedy for _, greedy in parts)


@pytest.fixture(scope="module")
def expected(server: BackstopProcess) -> list[tuple[float, bool]]:
    model = lm(server, batch_size=1, concurrent=1)
    return [directly(server, model, pair) for pair in PAIRS]


@pytest.mark.parametrize(("batch_size", "concurrent"), [(1, 1), (4, 1), (2, 3)])
def test_log_likelihoods_are_the_sums_of_single_tokens(
    server: BackstopProcess, expected: list[tuple[float, bool]], batch_size: int, concurrent: int
) -> None:
    model = lm(server, batch_size, concurrent)
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(PAIRS)
    ]
    found = model.loglikelihood(requests, disable_tqdm=True)
    assert len(found) == len(PAIRS)
    for pair, (logprob, greedy), (expected_logprob, expected_greedy) in zip(PAIRS, found, expected, strict=True):
        assert logprob == pytest.approx(expected_logprob, abs=TOLERANCE), pair
        assert greedy == expected_greedy, pair
    greedy_ones = [pair for pair, (_, greedy) in zip(PAIRS, found, strict=True) if greedy]
    assert ENDING in greedy_ones and len(greedy_ones) < len(PAIRS)


def test_the_generated_token_that_is_dropped_may_be_a_stop_token(server: BackstopProcess) -> None:
    body = {"prompt": "".join(ENDING), "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    answer = httpx.post(f"{server.base_url}/completions", json=body, timeout=REQUEST_TIMEOUT_S).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == "".join(ENDING)
    assert choice["logprobs"]["tokens"] == ["<BOS_TOKEN>", "Hello", "!", "<|END_TEXT|>", "<|END_OF_TURN_TOKEN|>"]


def test_rolling_log_likelihoods_are_those_of_whole_texts(server: BackstopProcess) -> None:
    model = lm(server, batch_size=1, concurrent=1)
    texts = ["The quick brown fox", "import os\nimport sys\n"]
    rolling = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)]
    found = model.loglikelihood_rolling(rolling, disable_tqdm=True)
    for text, logprob in zip(texts, found, strict=True):
        whole, _ = directly(server, model, ("", text))
        assert logprob == pytest.approx(whole, abs=TOLERANCE), text


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_alone_is_rated_as_it_is_before_an_answer(server: BackstopProcess, stream: bool) -> None:
    def rated(max_tokens: int) -> list[float | None]:
        body = {"prompt": PAIRS[5], "max_tokens": max_tokens, "logprobs": 0, "echo": True, "stream": stream}
        answer = httpx.post(f"{server.base_url}/completions", json=body, timeout=REQUEST_TIMEOUT_S)
        if not stream:
            choices = answer.json()["choices"]
        else:
            lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
            choices = [json.loads(line)["choices"][0] for line in lines]
        of_first = [choice["logprobs"] for choice in choices if choice["index"] == 0 and choice["logprobs"]]
        return [logprob for logprobs in of_first for logprob in logprobs["token_logprobs"]]

    alone = rated(0)
    assert alone[0] is None and len(alone) > 5
    assert rated(1)[:-1] == alone
