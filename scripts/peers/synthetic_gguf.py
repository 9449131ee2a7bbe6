#!/usr/bin/env python3
"""Writes what `backstop serve north-mini-code --load-format synthetic --quantization q4_k_m` makes up as a GGUF file, for other
servers: the same shape, formats and spread of numbers, though not the same numbers. Its vocabulary has single bytes alone, and its
answers are noise.

    pip install gguf==0.19.0 numpy
    scripts/peers/synthetic_gguf.py OUT.gguf [--layers 49] [--shape models/shapes/north-mini-code.json]

All 49 layers are 18.6 GB, and half a minute of writing to a fast disk.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from large_gguf import byte_letters

ARCHITECTURE = "cohere2moe"
SHAPE = Path(__file__).parents[2] / "models/shapes/north-mini-code.json"
Q4_K, Q6_K, F32 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.F32
# Where in a block the scales are.
SCALES = {Q4_K: (0, 2), Q6_K: (208,)}
# Blocks that tensors are cut from, at different places.
POOL_BLOCKS = 1 << 20
PLACES = 4096


@dataclass(frozen=True)
class Tensor:
    name: str
    # Slowest first.
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType = F32
    mean: float = 0.0

    @property
    def bytes(self) -> int:
        numbers, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // numbers * size


def has_more_bits(layer: int, layers: int) -> bool:
    """As llama.cpp's quantiser chooses them for Q4_K_M."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def tensors(config: dict, layers: int) -> Iterator[Tensor]:
    hidden, heads, width = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * heads, config["num_key_value_heads"] * heads
    experts, vocabulary = config["num_experts"], config["vocab_size"]
    yield Tensor("token_embd.weight", (vocabulary, hidden), Q6_K)
    yield Tensor("output_norm.weight", (hidden,), mean=1.0)
    for layer in range(layers):
        better = Q6_K if has_more_bits(layer, layers) else Q4_K
        prefix = f"blk.{layer}"
        yield Tensor(f"{prefix}.attn_norm.weight", (hidden,), mean=1.0)
        yield Tensor(f"{prefix}.attn_q.weight", (queries, hidden), Q4_K)
        yield Tensor(f"{prefix}.attn_k.weight", (keys, hidden), Q4_K)
        yield Tensor(f"{prefix}.attn_v.weight", (keys, hidden), better)
        yield Tensor(f"{prefix}.attn_output.weight", (hidden, queries), Q4_K)
        if layer < config["first_k_dense_replace"]:
            dense = config["prefix_dense_intermediate_size"]
            yield Tensor(f"{prefix}.ffn_gate.weight", (dense, hidden), Q4_K)
            yield Tensor(f"{prefix}.ffn_up.weight", (dense, hidden), Q4_K)
            yield Tensor(f"{prefix}.ffn_down.weight", (hidden, dense), better)
            continue
        yield Tensor(f"{prefix}.ffn_gate_inp.weight", (experts, hidden))
        yield Tensor(f"{prefix}.ffn_gate_exps.weight", (experts, width, hidden), Q4_K)
        yield Tensor(f"{prefix}.ffn_up_exps.weight", (experts, width, hidden), Q4_K)
        yield Tensor(f"{prefix}.ffn_down_exps.weight", (experts, hidden, width), better)


def add_keys(writer: gguf.GGUFWriter, config: dict, layers: int) -> None:
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["prefix_dense_intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_logit_scale(config.get("logit_scale", 0.0625))
    writer.add_sliding_window(config["sliding_window"])
    slides = [kind == "sliding_attention" for kind in config["layer_types"][:layers]]
    writer.add_array(f"{ARCHITECTURE}.attention.sliding_window_pattern", slides)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)


def add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    tokens = [*byte_letters(), "Ġt"]
    tokens += [f"<unused_{index}>" for index in range(size - len(tokens) - 1)] + ["<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (size - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(size - 1)
    writer.add_eos_token_id(size - 1)


class Pool:
    """Random blocks of one format whose numbers have no mean, and a deviation that the last scales set."""

    def __init__(self, kind: gguf.GGMLQuantizationType, generator: np.random.Generator):
        self.kind = kind
        self.numbers, size = gguf.GGML_QUANT_SIZES[kind]
        self.blocks = generator.integers(0, 256, (POOL_BLOCKS + PLACES, size), dtype=np.uint8)
        self.set(1.0, 0.0)
        mean = self.sample().mean()
        minimum = 0.0
        if len(SCALES[kind]) == 2:
            self.set(0.0, 1.0)
            minimum = -mean / self.sample().mean()
        self.set(1.0, minimum)
        self.minimum, self.deviation = minimum, self.sample().std()

    def sample(self) -> np.ndarray:
        return gguf.quants.dequantize(self.blocks[:64], self.kind)

    def set(self, scale: float, minimum: float) -> None:
        for place, value in zip(SCALES[self.kind], (scale, minimum)):
            self.blocks[:, place : place + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    def write(self, file, tensor: Tensor, place: int) -> None:
        scale = tensor.shape[-1] ** -0.5 / self.deviation
        self.set(scale, scale * self.minimum)
        blocks = int(np.prod(tensor.shape)) // self.numbers
        while blocks:
            count = min(blocks, POOL_BLOCKS)
            file.write(self.blocks[place : place + count].data)
            blocks, place = blocks - count, (place + 7) % PLACES


def write(path: Path, config: dict, layers: int) -> None:
    generator = np.random.default_rng(0)
    listed = list(tensors(config, layers))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    add_keys(writer, config, layers)
    add_vocabulary(writer, config["vocab_size"])
    for tensor in listed:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    pools = {kind: Pool(kind, generator) for kind in SCALES}
    for index, tensor in enumerate(listed):
        writer.write_padding(file, file.tell())
        if tensor.kind in pools:
            pools[tensor.kind].write(file, tensor, index * 7 % PLACES)
            continue
        numbers = generator.standard_normal(tensor.shape, dtype=np.float32)
        if len(tensor.shape) == 1:
            numbers = tensor.mean + numbers / 10
        else:
            # Some experts are more popular than others.
            numbers *= generator.uniform(0.5, 1.5, (tensor.shape[0], 1)) / tensor.shape[1] ** 0.5
        file.write(numbers.astype(np.float32).data)
    writer.write_padding(file, file.tell())
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--shape", type=Path, default=SHAPE, help="a config.json (default: North Mini Code's)")
    arguments = parser.parse_args()
    config = json.loads(arguments.shape.read_text())
    write(arguments.out, config, arguments.layers or config["num_hidden_layers"])
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
