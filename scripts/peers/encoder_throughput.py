"""Texts and tokens per second of sentence-transformers on the CPU, as `encoder_throughput` measures Backstop's.

    python scripts/peers/encoder_throughput.py MODEL [THREADS]

Texts are given as tokens, sorted by length and padded in batches of 32 as `SentenceTransformer.encode` does it.
"""

import statistics
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

ROUNDS, TOKENS, BATCH = 3, 8192, 32


def texts(length: int | None) -> list[list[int]]:
    inputs, tokens = [], 0
    while tokens < TOKENS:
        size = length or (len(inputs) % 32 + 1) * 8
        inputs.append([1000 + (len(inputs) * 131 + at * 17) % 20_000 for at in range(size)])
        tokens += size
    return inputs


def encode(model, inputs: list[list[int]]) -> None:
    inputs = sorted(inputs, key=len, reverse=True)
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in batch])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in batch])
        with torch.inference_mode():
            model({"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)})


def main() -> None:
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    model = SentenceTransformer(sys.argv[1], device="cpu").eval()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for length in (16, 64, 128, 512, None):
        inputs = texts(length)
        seconds = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            encode(model, inputs)
            seconds.append(time.perf_counter() - started)
        middle = statistics.median(seconds[1:])
        label = length or "8 to 256"
        print(f"{label}: {len(inputs) / middle:.1f} texts/s, {sum(map(len, inputs)) / middle:.0f} tokens/s")


main()
