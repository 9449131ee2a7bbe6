"""The demo model with tokens to fill in the middle with, which it knows as little as any that it was never shown."""

import json
import shutil
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
TOKENS = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
UNKNOWN = 1


def write_fim_checkpoint(directory: Path) -> Path:
    """Fills `directory`. The tokens get the first ids for which there is an embedding and no token."""
    first = add_tokens(directory)
    path = directory / "model.safetensors"
    weights = bytearray((DEMO / "model.safetensors").read_bytes())
    header_end = 8 + int.from_bytes(weights[:8], "little")
    embedding = json.loads(weights[8:header_end])["model.embed_tokens.weight"]
    begin, end = (header_end + offset for offset in embedding["data_offsets"])
    row = (end - begin) // embedding["shape"][0]
    # As unlikely as a token that stands for nothing.
    unlikely = weights[begin + UNKNOWN * row : begin + (UNKNOWN + 1) * row]
    weights[begin + first * row : begin + (first + len(TOKENS)) * row] = unlikely * len(TOKENS)
    path.write_bytes(weights)
    return directory


def add_tokens(directory: Path) -> int:
    """Copies everything but the weights; returns the first new token's id."""
    for path in DEMO.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copy(path, directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first = len(vocabulary)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for token in TOKENS:
        vocabulary[token] = len(vocabulary)
        tokenizer["added_tokens"].append({"id": vocabulary[token], "content": token, "special": False, **plain})
    assert len(vocabulary) <= json.loads((directory / "config.json").read_text())["vocab_size"]
    path.write_text(json.dumps(tokenizer))
    return first
