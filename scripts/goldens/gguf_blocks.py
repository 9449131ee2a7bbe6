"""Writes tests/goldens/gguf/blocks.gguf: random blocks of every quantised format, and the numbers
that the `gguf` package (numpy, by llama.cpp's authors) reads from them.

    pip install gguf==0.19.0 numpy
    python scripts/goldens/gguf_blocks.py
"""

from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).parents[2] / "tests/goldens/gguf/blocks.gguf"
ROWS, COLUMNS = 3, 512
# Where in a block the half-precision scales are.
SCALES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    # A power of two in its first byte instead.
    "MXFP4": [],
    "IQ4_XS": [0],
}
# Scales, and minima that centre the numbers, for numbers near 2^-4.
SIZES = {
    "Q8_0": [2**-10],
    "Q4_0": [2**-6],
    "Q4_1": [2**-6, -(2**-3.1)],
    "Q5_0": [2**-7],
    "Q5_1": [2**-7, -(2**-3.05)],
    "Q2_K": [2**-7.5, 2**-7],
    "Q3_K": [2**-10],
    "Q4_K": [2**-11, 2**-8.1],
    "Q5_K": [2**-12, 2**-8.05],
    "Q6_K": [2**-14],
}


def random_blocks(
    name: str, rows: int, columns: int, random: np.random.Generator, exponents: tuple[int, int] | None = None
) -> np.ndarray:
    """Random codes. Scales have any sign and magnitudes of random powers of two, or such that the
    numbers are near 2^-4."""
    numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    data = random.integers(0, 256, (rows, columns // numbers, size), dtype=np.uint8)
    for position, at in enumerate(SCALES[name]):
        if exponents:
            scales = 2.0 ** random.integers(*exponents, data.shape[:2])
            scales = scales * random.standard_normal(data.shape[:2])
        else:
            scales = SIZES[name][position] * random.uniform(0.5, 1.0, data.shape[:2])
        data[:, :, at : at + 2] = scales.astype("<f2")[:, :, None].view(np.uint8)
    if name == "MXFP4":
        data[:, :, 0] = random.integers(64, 192, data.shape[:2])
    return data.reshape(rows, -1)


def main() -> None:
    random = np.random.default_rng(1)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(OUT, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(COLUMNS)
    writer.add_feed_forward_length(COLUMNS)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(ROWS)
    half = random.standard_normal((ROWS, COLUMNS)).astype(np.float16)
    half.reshape(-1)[:4] = [6e-8, -6e-5, 65504.0, -0.0]
    writer.add_tensor("F16", half)
    writer.add_tensor("F16.expected", half.astype(np.float32))
    for name in SCALES:
        kind = gguf.GGMLQuantizationType[name]
        data = random_blocks(name, ROWS, COLUMNS, random, (-24, 2))
        writer.add_tensor(name, data, raw_dtype=kind)
        writer.add_tensor(f"{name}.expected", gguf.quants.dequantize(data, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
