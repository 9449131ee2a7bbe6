#!/usr/bin/env python3
"""Copies a GGUF with some of its quantised blocks damaged, to see whether a comparison of models finds that.

    scripts/models/damage_gguf.py MODEL.gguf DAMAGED.gguf --fraction 0.05 --factor 2 --seed 1

In this share of all blocks (of tensors whose names match --tensors) the scales are multiplied by --factor, or divided by
it, one as often as the other. The same seed damages the same blocks in the same way. Nothing else changes: names, sizes and
metadata stay, so that a server takes the copy for what it was. Needs the Python package numpy.
"""

import argparse
import fnmatch
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
BLOCKS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Format:
    """Where scales lie in a block: offsets of half-precision numbers."""

    name: str
    weights: int
    block_bytes: int
    scales: tuple[int, ...]


# By ggml's numbers of types. Offsets of minima are among the scales where a format has them: both scale together.
FORMATS = {
    2: Format("Q4_0", 32, 18, (0,)),
    3: Format("Q4_1", 32, 20, (0, 2)),
    6: Format("Q5_0", 32, 22, (0,)),
    7: Format("Q5_1", 32, 24, (0, 2)),
    8: Format("Q8_0", 32, 34, (0,)),
    10: Format("Q2_K", 256, 84, (80, 82)),
    11: Format("Q3_K", 256, 110, (108,)),
    12: Format("Q4_K", 256, 144, (0, 2)),
    13: Format("Q5_K", 256, 176, (0, 2)),
    14: Format("Q6_K", 256, 210, (208,)),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    weights: int
    kind: int
    offset: int


class Reader:
    """Reads a GGUF's head, of which only the layout of tensors is wanted."""

    # Bytes of fixed values by GGUF's numbers of types.
    FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    UINT32, STRING, ARRAY = 4, 8, 9

    def __init__(self, file: BinaryIO):
        self.file = file
        self.alignment = DEFAULT_ALIGNMENT
        if file.read(4) != MAGIC:
            raise ValueError("not a GGUF file")
        version = self.number("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version} is unknown")
        tensors, entries = self.number("<Q"), self.number("<Q")
        for _ in range(entries):
            self.entry()
        self.tensors = [self.tensor() for _ in range(tensors)]
        end = file.tell()
        self.data_start = -(-end // self.alignment) * self.alignment

    def number(self, form: str) -> int:
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.file.read(self.number("<Q")).decode(errors="replace")

    def entry(self) -> None:
        name, kind = self.text(), self.number("<I")
        if name == "general.alignment" and kind == self.UINT32:
            self.alignment = self.number("<I")
        else:
            self.skip(kind)

    def skip(self, kind: int) -> None:
        if kind == self.STRING:
            self.text()
        elif kind == self.ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in self.FIXED_BYTES:
                self.file.seek(self.FIXED_BYTES[inner] * count, 1)
            else:
                for _ in range(count):
                    self.skip(inner)
        else:
            self.file.seek(self.FIXED_BYTES[kind], 1)

    def tensor(self) -> Tensor:
        name = self.text()
        weights = 1
        for _ in range(self.number("<I")):
            weights *= self.number("<Q")
        return Tensor(name, weights, self.number("<I"), self.number("<Q"))


def damage_blocks(blocks: numpy.ndarray, layout: Format, fraction: float, factor: float, random: numpy.random.Generator) -> int:
    """Damages some blocks, one a row, in place; returns how many."""
    chosen = numpy.flatnonzero(random.random(len(blocks)) < fraction)
    factors = numpy.where(random.random(len(chosen)) < 0.5, factor, 1 / factor)
    largest = float(numpy.finfo(numpy.float16).max)
    for offset in layout.scales:
        scales = blocks[chosen, offset : offset + 2].copy().view("<f2")[:, 0]
        damaged = numpy.clip(scales.astype(numpy.float64) * factors, -largest, largest).astype("<f2")
        blocks[chosen, offset : offset + 2] = damaged[:, None].view(numpy.uint8)
    return len(chosen)


def damage(model: Path, copy: Path, fraction: float, factor: float, pattern: str, seed: int) -> tuple[int, int]:
    """Writes the damaged copy; returns blocks that are damaged, and all that could have been."""
    with model.open("rb") as file:
        head = Reader(file)
    chosen = [tensor for tensor in head.tensors if tensor.kind in FORMATS and fnmatch.fnmatch(tensor.name, pattern)]
    if not chosen:
        raise ValueError(f"no quantised tensor matches {pattern!r}; formats that are known: {', '.join(f.name for f in FORMATS.values())}")
    shutil.copyfile(model, copy)
    random = numpy.random.default_rng(seed)
    damaged = blocks_in_all = 0
    with copy.open("r+b") as file:
        for tensor in chosen:
            layout = FORMATS[tensor.kind]
            count = tensor.weights // layout.weights
            blocks_in_all += count
            for first in range(0, count, BLOCKS_AT_ONCE):
                some = min(BLOCKS_AT_ONCE, count - first)
                place = head.data_start + tensor.offset + first * layout.block_bytes
                file.seek(place)
                raw = file.read(some * layout.block_bytes)
                blocks = numpy.frombuffer(raw, numpy.uint8).reshape(some, layout.block_bytes).copy()
                damaged += damage_blocks(blocks, layout, fraction, factor, random)
                file.seek(place)
                file.write(blocks.tobytes())
    return damaged, blocks_in_all


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("expected more than 0 and at most 1")
    return value


def more_than_one(text: str) -> float:
    value = float(text)
    if not 1 < value <= 1000:
        raise argparse.ArgumentTypeError("expected more than 1 and at most 1000")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--fraction", type=share, default=0.05, help="share of blocks to damage (0.05)")
    parser.add_argument("--factor", type=more_than_one, default=2.0, help="by how much scales are off (2)")
    parser.add_argument("--tensors", default="*", help="names of tensors to damage, such as 'blk.*.ffn_down.weight' (all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.copy.exists():
        parser.error(f"{arguments.copy} is there already")
    try:
        damaged, blocks = damage(
            arguments.model, arguments.copy, arguments.fraction, arguments.factor, arguments.tensors, arguments.seed
        )
    except (OSError, ValueError, KeyError, struct.error) as error:
        print(f"{arguments.model}: {error}", file=sys.stderr)
        return 1
    print(f"{damaged} of {blocks} blocks are damaged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
