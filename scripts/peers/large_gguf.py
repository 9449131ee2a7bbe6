#!/usr/bin/env python3
"""Writes a GGUF file of as many layers of Llama 3 8B's shape as are asked for, in Q4_0, with random weights: for measuring
how long servers take to start. Its vocabulary has single bytes alone, and its answers are noise.

    pip install numpy
    scripts/peers/large_gguf.py OUT.gguf [--layers 32]

32 layers are 3.9 GB.
"""

import argparse
import struct
from pathlib import Path

import numpy as np

HIDDEN, HEADS, KV_HEADS, WIDTH, CONTEXT = 4096, 32, 8, 14336, 8192
ALIGNMENT = 32
Q4_0, F32 = 2, 0
BLOCK_NUMBERS, BLOCK_BYTES = 32, 18
TEXT, ARRAY, UINT32, INT32, FLOAT32 = 8, 9, 4, 5, 6


def byte_letters() -> list[str]:
    """What byte-level vocabularies write for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in letters]
    letters |= {byte: chr(256 + index) for index, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def field(name: str, kind: int, value: object) -> bytes:
    formats = {UINT32: "<I", INT32: "<i", FLOAT32: "<f"}
    if kind == TEXT:
        return text(name) + struct.pack("<I", TEXT) + text(value)
    return text(name) + struct.pack("<I", kind) + struct.pack(formats[kind], value)


def list_field(name: str, kind: int, values: list) -> bytes:
    items = b"".join(text(value) if kind == TEXT else struct.pack("<i", value) for value in values)
    return text(name) + struct.pack("<IIQ", ARRAY, kind, len(values)) + items


def fields(layers: int) -> list[bytes]:
    tokens = [*byte_letters(), "Ġt", "<|end|>"]
    end = len(tokens) - 1
    return [
        field("general.architecture", TEXT, "llama"),
        field("general.name", TEXT, "random"),
        field("llama.block_count", UINT32, layers),
        field("llama.context_length", UINT32, CONTEXT),
        field("llama.embedding_length", UINT32, HIDDEN),
        field("llama.feed_forward_length", UINT32, WIDTH),
        field("llama.attention.head_count", UINT32, HEADS),
        field("llama.attention.head_count_kv", UINT32, KV_HEADS),
        field("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        field("llama.rope.freq_base", FLOAT32, 500000.0),
        field("llama.rope.dimension_count", UINT32, HIDDEN // HEADS),
        field("llama.vocab_size", UINT32, len(tokens)),
        field("general.file_type", UINT32, 2),
        field("tokenizer.ggml.model", TEXT, "gpt2"),
        field("tokenizer.ggml.pre", TEXT, "gpt-2"),
        list_field("tokenizer.ggml.tokens", TEXT, tokens),
        list_field("tokenizer.ggml.token_type", INT32, [1] * end + [3]),
        list_field("tokenizer.ggml.merges", TEXT, ["Ġ t"]),
        field("tokenizer.ggml.bos_token_id", UINT32, end),
        field("tokenizer.ggml.eos_token_id", UINT32, end),
    ]


def tensors(layers: int, vocabulary: int) -> list[tuple[str, list[int]]]:
    """Names, and `[rows, columns]` or the length of a vector."""
    all_tensors = [("token_embd.weight", [vocabulary, HIDDEN])]
    kv = HIDDEN // HEADS * KV_HEADS
    for layer in range(layers):
        parts = {
            "attn_norm": [HIDDEN],
            "attn_q": [HIDDEN, HIDDEN],
            "attn_k": [kv, HIDDEN],
            "attn_v": [kv, HIDDEN],
            "attn_output": [HIDDEN, HIDDEN],
            "ffn_norm": [HIDDEN],
            "ffn_gate": [WIDTH, HIDDEN],
            "ffn_up": [WIDTH, HIDDEN],
            "ffn_down": [HIDDEN, WIDTH],
        }
        all_tensors += [(f"blk.{layer}.{name}.weight", shape) for name, shape in parts.items()]
    return [*all_tensors, ("output_norm.weight", [HIDDEN]), ("output.weight", [vocabulary, HIDDEN])]


def size(shape: list[int]) -> int:
    return 4 * shape[0] if len(shape) == 1 else shape[0] * shape[1] // BLOCK_NUMBERS * BLOCK_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    arguments = parser.parse_args()
    known, listed = fields(arguments.layers), tensors(arguments.layers, 258)
    header, offset = struct.pack("<4sIQQ", b"GGUF", 3, len(listed), len(known)) + b"".join(known), 0
    for name, shape in listed:
        kind = F32 if len(shape) == 1 else Q4_0
        header += text(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", extent) for extent in reversed(shape))
        header += struct.pack("<IQ", kind, offset)
        offset += -(-size(shape) // ALIGNMENT) * ALIGNMENT
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (WIDTH * HIDDEN // BLOCK_NUMBERS + 4096, BLOCK_BYTES), dtype=np.uint8)
    # The scale of each block, a half-precision number of about 0.002.
    blocks[:, 1] = 0x18
    with arguments.out.open("wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        for index, (_, shape) in enumerate(listed):
            if len(shape) == 1:
                data = np.ones(shape, dtype=np.float32).tobytes()
            else:
                first = index * 7 % 4096
                data = blocks[first:].reshape(-1)[: size(shape)].data
            file.write(data)
            file.write(bytes(-size(shape) % ALIGNMENT))


if __name__ == "__main__":
    main()
