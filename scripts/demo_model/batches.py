"""Turns the corpus into rows of tokens and yields batches: part source text, part conversations."""

import numpy
import torch
from tokenizers import Tokenizer

from conversations import MODEL_FOLDER, conversations
from source_files import source_files

PAD, BOS = 0, 5
CONVERSATION_COUNT = 24_000


def load_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))


def source_rows(tokenizer: Tokenizer, length: int) -> numpy.ndarray:
    """All source files one after the other, cut into rows."""
    stream = []
    for _, text in source_files()["train"]:
        stream.extend(tokenizer.encode(text).ids)
    rows = len(stream) // length
    return numpy.array(stream[: rows * length], dtype=numpy.int64).reshape(rows, length)


def conversation_rows(tokenizer: Tokenizer, length: int) -> numpy.ndarray:
    """Whole conversations packed into rows: first fit among the open rows, the rest is padding."""
    texts = conversations(source_files()["train"], CONVERSATION_COUNT, seed=2)
    closed, open_rows = [], []
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        ids = encoding.ids
        if len(ids) > length:
            continue
        row = next((row for row in open_rows if len(row) + len(ids) <= length), None)
        if row is None:
            row = []
            open_rows.append(row)
            if len(open_rows) > 16:
                closed.append(open_rows.pop(0))
        row.extend(ids)
    packed = [row + [PAD] * (length - len(row)) for row in closed + open_rows]
    return numpy.array(packed, dtype=numpy.int64)


class Batches:
    """Endless batches of a fixed mixture; each part is reshuffled when it has been used up."""

    def __init__(self, length: int, rows: int, conversation_share: float, seed: int):
        tokenizer = load_tokenizer()
        self.parts = [source_rows(tokenizer, length + 1), conversation_rows(tokenizer, length + 1)]
        self.random = numpy.random.default_rng(seed)
        conversation_count = max(1, round(rows * conversation_share))
        self.counts = [rows - conversation_count, conversation_count]
        self.orders = [[], []]

    def next(self) -> torch.Tensor:
        picked = []
        for index, part in enumerate(self.parts):
            for _ in range(self.counts[index]):
                if not len(self.orders[index]):
                    self.orders[index] = list(self.random.permutation(len(part)))
                picked.append(part[self.orders[index].pop()])
        return torch.from_numpy(numpy.stack(picked))


def attention_masks(inputs: torch.Tensor, window: int) -> dict[str, torch.Tensor]:
    """Additive causal masks that also separate the documents of a row (each begins with BOS)."""
    document = (inputs == BOS).cumsum(1)
    same_document = document[:, :, None] == document[:, None, :]
    position = torch.arange(inputs.shape[1], device=inputs.device)
    distance = position[:, None] - position[None, :]
    full = (same_document & (distance >= 0))[:, None]
    sliding = full & (distance < window)
    masks = {"full_attention": full, "sliding_attention": sliding}
    return {name: torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf")) for name, mask in masks.items()}
