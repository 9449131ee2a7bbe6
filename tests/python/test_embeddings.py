"""Vectors and rankings for the clients of OpenAI, LangChain and LiteLLM, with small encoders of random weights."""

import base64
import math
import struct
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from conftest import sdk

ENCODERS = REPOSITORY / "tests/goldens/encoders"
VECTORS = "bert_mean"
SCORES = "bert_reranker"
SERVED = ("--embedding-model", str(ENCODERS / VECTORS), "--reranker-model", str(ENCODERS / SCORES))
TEXTS = ["A cat sat on the mat.", "The market fell sharply.", "Kittens like to sleep."]
# Nothing listens there.
DEAD = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def encoders() -> Iterator[BackstopProcess]:
    """Encoders without a model that generates."""
    process = BackstopProcess(*SERVED, model=None)
    try:
        yield process.wait_until_ready()
        process.stop()
    finally:
        process.kill()


@pytest.fixture
def openai(encoders: BackstopProcess) -> Iterator[OpenAI]:
    with sdk(encoders) as client:
        yield client


def embed(client: OpenAI, texts: Any, **fields: Any) -> list[list[float]]:
    answer = client.embeddings.create(model=VECTORS, input=texts, **fields)
    assert answer.object == "list" and answer.model == VECTORS
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    return [entry.embedding for entry in answer.data]


def tokens_of(server: BackstopProcess, text: str) -> list[int]:
    body = {"model": VECTORS, "prompt": text}
    return httpx.post(f"{server.root}/tokenize", json=body).raise_for_status().json()["tokens"]


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_openai_gets_the_same_vectors_in_every_form(encoders: BackstopProcess, openai: OpenAI) -> None:
    # The package asks for base64 unless it is told otherwise, and decodes it.
    vectors = embed(openai, TEXTS)
    for packed, written in zip(vectors, embed(openai, TEXTS, encoding_format="float"), strict=True):
        assert packed == pytest.approx(written, abs=1e-6)
    assert len({len(vector) for vector in vectors}) == 1
    for text, vector in zip(TEXTS, vectors, strict=True):
        [alone] = embed(openai, text)
        assert cosine(alone, vector) == pytest.approx(1, abs=1e-6)
        [of_tokens] = embed(openai, [tokens_of(encoders, text)])
        assert cosine(of_tokens, vector) == pytest.approx(1, abs=1e-6)
    body = {"input": TEXTS[0], "encoding_format": "base64"}
    raw = httpx.post(f"{encoders.base_url}/embeddings", json=body).raise_for_status()
    packed = base64.b64decode(raw.json()["data"][0]["embedding"], validate=True)
    [first] = embed(openai, TEXTS[0])
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(first, abs=1e-6)
    assert raw.headers["x-backstop-model"].startswith(f"{VECTORS}@")


def test_a_long_list_is_answered_in_order(openai: OpenAI) -> None:
    texts = [f"Text number {number % 7}" for number in range(300)]
    vectors = embed(openai, texts)
    for number, vector in enumerate(vectors):
        assert cosine(vector, vectors[number % 7]) == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_encoded_is_a_400_that_names_the_field(openai: OpenAI) -> None:
    [vector] = embed(openai, "a")
    assert len(embed(openai, "a", dimensions=len(vector))[0]) == len(vector)
    bad = [
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input.1"),
        ({"input": [2**30]}, "input"),
        ({"input": "a", "dimensions": len(vector) - 1}, "dimensions"),
        ({"input": "word " * 5000}, "input"),
    ]
    for fields, param in bad:
        with pytest.raises(BadRequestError) as caught:
            openai.embeddings.create(model=VECTORS, **fields)
        assert caught.value.param == param
    assert caught.value.code == "context_length_exceeded"
    embed(openai, "word " * 5000, extra_body={"truncate_prompt_tokens": -1})


def test_models_are_told_and_others_are_a_404_that_names_them(openai: OpenAI) -> None:
    models = {model.id: model.model_extra["task"] for model in openai.models.list()}
    assert models == {VECTORS: "embed", SCORES: "rerank"}
    with pytest.raises(NotFoundError, match=VECTORS):
        openai.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(NotFoundError, match=f"'{VECTORS}', '{SCORES}'"):
        openai.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hello"}])


def test_documents_are_ranked(encoders: BackstopProcess) -> None:
    body = {"model": SCORES, "query": "Where is the cat?", "documents": [*TEXTS, {"text": "cat"}]}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        answer = httpx.post(f"{encoders.root}{path}", json=body).raise_for_status().json()
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2, 3]
        for result in answer["results"]:
            assert result["document"]["text"] == [*TEXTS, "cat"][result["index"]]
    best = httpx.post(f"{encoders.root}/v1/rerank", json={**body, "top_n": 1, "return_documents": False}).json()
    assert best["results"] == [{key: answer["results"][0][key] for key in ("index", "relevance_score")}]


def test_encoders_are_served_beside_a_model_that_generates(start: Callable[..., BackstopProcess]) -> None:
    server = start(*SERVED, "--served-embedding-name", "vectors,*", "--served-model-name", "demo").wait_until_ready()
    with sdk(server) as client:
        message = {"role": "user", "content": "Hello"}
        assert client.chat.completions.create(model="demo", messages=[message], max_tokens=4).choices
        answer = client.embeddings.create(model="text-embedding-3-small", input="a")
        assert answer.model == "text-embedding-3-small"
        assert [model.id for model in client.models.list()] == ["demo", "vectors", SCORES]
    assert server.metrics()["vllm:prompt_tokens_total"] > 0
    health = httpx.get(f"{server.root}/health").json()
    assert [encoder["task"] for encoder in health["encoders"]] == ["embed", "rerank"]


def test_settings_can_stand_in_a_file(start: Callable[..., BackstopProcess], tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f"embedding-model = '{ENCODERS / VECTORS}'\nserved-embedding-name = ['a', 'b']\n")
    server = start("--config", str(settings), model=None).wait_until_ready()
    with sdk(server) as client:
        assert [model.id for model in client.models.list()] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--embedding-model", "/nowhere"], "--embedding-model /nowhere: "),
        (["--embedding-model", str(ENCODERS / VECTORS), "--max-num-seqs", "4"], "give MODEL as well"),
        (["demo", *SERVED, "--served-embedding-name", "demo"], 'two models are called "demo"'),
        (["demo", "--served-reranker-name", "a"], "no --reranker-model"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: list[str], reason: str) -> None:
    command = [str(BINARY), "serve", *arguments, "--port", "0"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert reason in run.stderr


def test_an_encoder_of_the_other_kind_does_not_come_up() -> None:
    command = [str(BINARY), "serve", "--embedding-model", str(ENCODERS / SCORES), "--port", "0"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert run.returncode == 70
    assert "the model is for --reranker-model" in run.stderr


def test_langchain_embeds(encoders: BackstopProcess, openai: OpenAI) -> None:
    embeddings = pytest.importorskip("langchain_openai").OpenAIEmbeddings(
        model=VECTORS,
        base_url=encoders.base_url,
        api_key="unused",
        # Otherwise it sends ids of OpenAI's tokenizer.
        check_embedding_ctx_length=False,
    )
    expected = embed(openai, TEXTS)
    vectors = embeddings.embed_documents(TEXTS)
    for one, other in zip(vectors, expected, strict=True):
        assert cosine(one, other) == pytest.approx(1, abs=1e-6)
    assert cosine(embeddings.embed_query(TEXTS[0]), expected[0]) == pytest.approx(1, abs=1e-6)


def test_litellm_falls_back_for_embeddings_and_ranks(
    encoders: BackstopProcess, openai: OpenAI, tmp_path: Path
) -> None:
    if find_spec("litellm") is None:
        pytest.skip("the LiteLLM proxy has an environment of its own")
    from fake_primary import fake_primary
    from litellm_proxy import ProxyConfig, litellm_proxy

    faults = ["refused", "status-401", "status-404", "status-429", "status-503", "hang", "cut-before"]
    expected = embed(openai, TEXTS)
    config = ProxyConfig()
    with fake_primary() as primary:
        for fault in faults:
            url = DEAD if fault == "refused" else primary.url(fault, fault)
            config.add_embeddings(fault, url, encoders.base_url, VECTORS)
        ranking = {"model": f"hosted_vllm/{SCORES}", "api_base": encoders.base_url, "api_key": "unused"}
        config.config["model_list"].append({"model_name": "ranking", "litellm_params": ranking})
        with litellm_proxy(config, tmp_path) as proxy, proxy.client() as client:
            for fault in faults:
                answer = client.embeddings.create(model=fault, input=TEXTS, encoding_format="float")
                for entry, vector in zip(answer.data, expected, strict=True):
                    assert cosine(entry.embedding, vector) == pytest.approx(1, abs=1e-6), fault
                assert fault == "refused" or primary.hits[fault] == 1, "the primary was asked, once"
            body = {"model": "ranking", "query": "Where is the cat?", "documents": TEXTS, "top_n": 2}
            ranked = httpx.post(f"{proxy.root}/v1/rerank", json=body, headers=proxy.headers, timeout=60)
            assert ranked.status_code == 200, ranked.text
            results = ranked.json()["results"]
            direct = httpx.post(f"{encoders.root}/v1/rerank", json={**body, "model": SCORES}).json()["results"]
            assert [result["index"] for result in results] == [result["index"] for result in direct]
