"""POST /v1/decisions through the vendor's SDK, against the log-likelihoods of /v1/completions."""

import math
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import OpenAI

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import completion

INPUT = "The parcel came two weeks late, and the box was open."
QUESTIONS: list[dict[str, Any]] = [
    {"type": "predicate", "name": "late", "instructions": "Did it come late?"},
    {
        "type": "choice",
        "instructions": "What is it about?",
        "choices": [{"value": "delivery", "description": "Parcels"}, {"value": "billing"}, {"value": True}],
    },
    {"type": "score", "instructions": "How angry is it?", "levels": [{"label": "calm"}, {"label": "angry"}]},
]
ASKED: list[tuple[str, list[str]]] = [
    ("Question: Did it come late?\nAnswer with yes or no only.", ["yes", "no"]),
    (
        "Question: What is it about?\nA: delivery - Parcels\nB: billing\nC: true\n"
        "Answer with the letters of one of these only.",
        ["A", "B", "C"],
    ),
    ("Question: How angry is it?\n0: calm\n1: angry\nAnswer with the number of one of these only.", ["0", "1"]),
]


def token_ids(server: BackstopProcess, **body: Any) -> list[int]:
    answer = httpx.post(f"{server.root}/tokenize", json=body, timeout=REQUEST_TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    return answer.json()["tokens"]


def likelihood(server: BackstopProcess, client: OpenAI, question: str, label: str) -> float:
    """Of a label, as the echo of a completion rates its tokens."""
    messages = [{"role": "user", "content": f"{INPUT}\n\n{question}"}, {"role": "assistant", "content": ""}]
    prompt = token_ids(
        server,
        messages=messages,
        add_generation_prompt=False,
        continue_final_message=True,
        reasoning_effort="none",
    )
    tokens = token_ids(server, prompt=label, add_special_tokens=False)
    rated = client.completions.create(**{**completion(prompt + tokens, echo=True, logprobs=0), "max_tokens": 0})
    values = rated.choices[0].logprobs.token_logprobs[-len(tokens) :]
    # They are numbers of 32 bits, which JSON has in the fewest digits that tell them apart.
    return sum(struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values)))


def test_probabilities_are_those_of_the_labels_tokens(server: BackstopProcess, client: OpenAI) -> None:
    decision = client.decisions.create(model="demo", input=INPUT, questions=QUESTIONS)
    assert [answer.type for answer in decision.answers] == ["predicate", "choice", "score"]
    for answer, (question, labels) in zip(decision.answers, ASKED, strict=True):
        weights = [math.exp(likelihood(server, client, question, label)) for label in labels]
        expected = [weight / sum(weights) for weight in weights]
        if answer.type == "predicate":
            assert answer.name == "late" and math.isclose(answer.probability, expected[0], rel_tol=1e-9)
            continue
        for found, probability in zip(answer.probabilities, expected, strict=True):
            assert math.isclose(found.probability, probability, rel_tol=1e-9)
        assert math.isclose(answer.confidence, max(weights), rel_tol=1e-9)
    choice, score = decision.answers[1:]
    assert [option.value for option in choice.probabilities] == ["delivery", "billing", True]
    assert choice.choice == max(choice.probabilities, key=lambda option: option.probability).value
    assert math.isclose(score.score, score.probabilities[1].probability)
    assert decision.usage.output_tokens == 0 and decision.usage.input_tokens > 0


def test_answers_do_not_depend_on_what_else_is_asked(client: OpenAI) -> None:
    together = client.decisions.create(model="demo", input=INPUT, questions=QUESTIONS).answers
    alone = [client.decisions.create(model="demo", input=INPUT, questions=[question]).answers[0] for question in QUESTIONS]
    assert alone == together
    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(client.decisions.create, model="demo", input=INPUT, questions=QUESTIONS) for _ in range(8)]
        noise = [pool.submit(client.completions.create, **completion(f"noise {index}")) for index in range(8)]
        assert all(done.result().answers == together for done in crowd)
        assert all(done.result().choices for done in noise)


def test_litellm_gets_the_same(
    server: BackstopProcess, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without this the package asks the internet for prices when it is imported.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    direct = client.decisions.create(model="demo", input=INPUT, questions=QUESTIONS)
    through = {"model": "openai/demo", "api_base": server.base_url, "api_key": "unused"}
    answer = litellm.decisions(**through, input=INPUT, questions=QUESTIONS)
    found = [answer.model_dump(mode="json") for answer in answer.answers]
    assert found == [answer.model_dump(mode="json") for answer in direct.answers]
