"""Reference results for GGUF files of the llama architecture, computed by transformers in f32 on the
numbers that the `gguf` package (numpy, by llama.cpp's authors) reads from the blocks.

    pip install torch transformers gguf==0.19.0 safetensors
    python scripts/goldens/gguf_llama.py                       # mixed_llama/
    python scripts/goldens/gguf_llama.py SmolLM2-135M-Instruct.Q4_1.gguf   # its log-probabilities
"""

import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf_blocks import random_blocks
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parents[2] / "tests/goldens/gguf"
TEXT = """The lighthouse keeper counted 17 ships before dawn. "None of them stopped," she wrote, \
and closed the book.

def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
"""
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def halves_apart(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of transformers: the inverse of what llama.cpp's converter does."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, values.shape[1])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def state(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, torch.Tensor]:
    """The weights, widened, as transformers names and orders them."""
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        layer, part = re.match(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
        if part in ("attn_q", "attn_k"):
            values = halves_apart(values, heads if part == "attn_q" else kv_heads)
        prefix = f"model.layers.{layer}." if layer else ""
        weights[f"{prefix}{NAMES[part]}.weight"] = torch.tensor(values)
    return weights


def logits(path: Path, tokens: list[int]) -> torch.Tensor:
    reader = gguf.GGUFReader(path)
    field = lambda name: reader.fields[f"llama.{name}"].contents()
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    weights = state(reader, heads, kv_heads)
    tied = "lm_head.weight" not in weights
    if tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    config = LlamaConfig(
        vocab_size=weights["lm_head.weight"].shape[0],
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def write_mixed(path: Path) -> None:
    """Two layers in which nearly every matrix has another format, as in K-quantised files."""
    random = np.random.default_rng(2)
    hidden, vocabulary = 256, 96
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_context_length(256)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)

    def matrix(name: str, kind: str, rows: int) -> None:
        data = random_blocks(kind, rows, hidden, random)
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", (1 + random.standard_normal(hidden) / 4).astype(np.float32))

    matrix("token_embd", "Q6_K", vocabulary)
    kinds = [
        ["Q4_K", "Q4_K", "Q6_K", "Q5_K", "Q4_K", "Q5_0", "Q3_K"],
        ["Q4_1", "Q8_0", "Q5_1", "Q4_0", "Q2_K", "Q2_K", "Q8_0"],
    ]
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    for layer, formats in enumerate(kinds):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for name, kind in zip(names, formats):
            matrix(f"blk.{layer}.{name}", kind, 64 if name in ("attn_k", "attn_v") else hidden)
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def mixed() -> None:
    directory = OUT / "mixed_llama"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.gguf"
    write_mixed(path)
    tokens = np.random.default_rng(3).integers(0, 96, 70)
    expected = logits(path, tokens.tolist()).numpy()
    print("logits", expected.std())
    save_file({"tokens": tokens.astype(np.int64), "logits": expected}, directory / "expected.safetensors")


def real(path: Path) -> None:
    """Tokens and their log-probabilities; the tokenizer is put together as the model's own is."""
    reader = gguf.GGUFReader(path)
    field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
    vocabulary = {token: id for id, token in enumerate(field("tokens"))}
    merges = [tuple(pair.split(" ")) for pair in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokens = tokenizer.encode(TEXT).ids
    rows = torch.log_softmax(logits(path, tokens), dim=-1)
    logprobs = [rows[index, token].item() for index, token in enumerate(tokens[1:])]
    golden = {"file": path.name, "text": TEXT, "tokens": tokens, "logprobs": logprobs}
    (OUT / "smollm2_135m_instruct.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    real(Path(sys.argv[1])) if len(sys.argv) > 1 else mixed()
