"""llama.cpp's own vectors: texts, and their tokens by the models' first tokenizers, for each vocabulary that its source
has. A vocabulary that is not supported has to be refused by what it is."""

import json
import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from backstop_process import REPOSITORY
from llama_cpp_source import SourceUnavailable, llama_cpp_source

TOKENIZE = Path(os.environ.get("BACKSTOP_TOKENIZE", REPOSITORY / "target/debug/examples/tokenize"))
SUPPORTED = [
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
]
# By what their files call the kind.
UNSUPPORTED = {"bert-bge": "bert", "gemma-4": "gemma4"}
SEPARATOR = "\n__ggml_vocab_test__\n"
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def models() -> Path:
    if not TOKENIZE.is_file():
        pytest.skip(f"{TOKENIZE} is not built: cargo build -p backstop-weights --example tokenize")
    try:
        return llama_cpp_source() / "models"
    except SourceUnavailable as error:
        pytest.skip(str(error))


def tokenize(vocabulary: Path, texts: list[str]) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    return subprocess.run([TOKENIZE, vocabulary], input=lines, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", SUPPORTED)
def test_tokens_are_those_of_the_vectors(models: Path, name: str) -> None:
    vocabulary = models / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{vocabulary}.inp").read_bytes().decode().split(SEPARATOR)
    expected = [[int(token) for token in line.split()] for line in Path(f"{vocabulary}.out").read_text().splitlines()]
    assert len(texts) - 1 <= len(expected) <= len(texts)
    done = tokenize(vocabulary, texts)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for text, ours, theirs in zip(texts, found, expected):
        # Qwen's own tokenizers compose characters first, and so does ours; llama.cpp does not.
        if text == unicodedata.normalize("NFC", text):
            assert ours == theirs, repr(text)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_its_name(models: Path, name: str) -> None:
    done = tokenize(models / f"ggml-vocab-{name}.gguf", ["a"])
    assert done.returncode != 0
    # The error is written as Rust writes values, with its quotes escaped.
    assert f'tokenizer.ggml.model \\"{UNSUPPORTED[name]}\\" is not supported' in done.stderr
