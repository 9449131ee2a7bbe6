"""Which model an answer is from, as its header and its fingerprint say."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backstop_process import REPOSITORY, BackstopProcess
from requests_made import chat

DEMO = REPOSITORY / "models/demo"


def digest_of_files(directory: Path) -> str:
    """What `sha256sum *.safetensors | sha256sum` prints, as far as the header has it."""
    files = sorted(directory.glob("*.safetensors"))
    lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def fingerprint(server: BackstopProcess) -> str:
    return httpx.post(f"{server.base_url}/chat/completions", json=chat(), timeout=30).json()["system_fingerprint"]


def test_every_answer_has_the_digest_of_the_weights(server: BackstopProcess) -> None:
    expected = f"demo@{digest_of_files(DEMO)}"
    answers = [
        httpx.get(f"{server.root}/health"),
        httpx.get(f"{server.root}/nowhere"),
        httpx.post(f"{server.base_url}/chat/completions", json={}),
        httpx.post(f"{server.base_url}/chat/completions", json=chat(), timeout=30),
        httpx.post(f"{server.base_url}/chat/completions", json=chat(stream=True), timeout=30),
        httpx.post(f"{server.base_url}/messages", json={}),
    ]
    assert [answer.headers["x-backstop-model"] for answer in answers] == [expected] * len(answers)


@pytest.mark.parametrize(
    "arguments",
    [["--kv-cache-dtype", "fp8"], ["--chat-format", "plain"], ["--allow-special-tokens-in-content"]],
    ids=lambda arguments: arguments[0],
)
def test_settings_that_change_answers_change_the_fingerprint_and_not_the_weights(
    server: BackstopProcess, start: Callable[..., BackstopProcess], arguments: list[str]
) -> None:
    other = start(*arguments).wait_until_ready()
    assert fingerprint(other) != fingerprint(server)
    headers = [httpx.get(f"{process.root}/health").headers["x-backstop-model"] for process in (server, other)]
    assert headers[0] == headers[1]


def test_another_start_has_the_same_fingerprint(server: BackstopProcess, start: Callable[..., BackstopProcess]) -> None:
    other = start("--served-model-name", "demo", "--max-num-seqs", "2").wait_until_ready()
    assert fingerprint(other) == fingerprint(server)


def test_weights_without_a_record_have_a_digest_of_their_own(
    start: Callable[..., BackstopProcess], tmp_path: Path
) -> None:
    digests = []
    for number in range(2):
        copy = tmp_path / f"copy-{number}" / "model"
        copy.mkdir(parents=True)
        for file in DEMO.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        if number == 1:
            weights = bytearray((copy / "model.safetensors").read_bytes())
            weights[-4096:] = weights[-8192:-4096]
            (copy / "model.safetensors").write_bytes(weights)
        server = start(model=str(copy)).wait_until_ready()
        name, digest = httpx.get(f"{server.root}/health").headers["x-backstop-model"].split("@")
        assert name == "model"
        digests.append(digest)
    assert digests[0] != digests[1]
    assert all(len(digest) == 16 for digest in digests)
