"""Reference results for GGUF files with experts, as `gguf_llama.py` has them for one without: `mixed_qwen3_moe/` and
`mixed_mixtral/`.

    python scripts/goldens/gguf_experts.py [mixed_mixtral]
"""

import re
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf_blocks import random_blocks
from gguf_llama import NAMES, OUT, halves_apart
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

HIDDEN, WIDTH, VOCABULARY, EXPERTS, HEADS = 256, 64, 96, 4, 4
# By the name of `general.architecture`: elements of a head.
HEAD_DIMS = {"qwen3moe": 32, "llama": 64}
MORE_NAMES = {**NAMES, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate_inp": "mlp.gate"}
# Rounding, of activations to 8 bits too, must not choose other experts.
ROUTER_MARGIN = 3e-2


def write(path: Path, seed: int, architecture: str) -> None:
    """Two layers, whose experts have other formats; those of gate and up are always the same."""
    random = np.random.default_rng(seed)
    head_dim = HEAD_DIMS[architecture]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    if architecture == "qwen3moe":
        writer.add_expert_feed_forward_length(WIDTH)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_context_length(256)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)

    def matrix(name: str, kind: str, rows: int, columns: int = HIDDEN, count: int = 0) -> None:
        data = random_blocks(kind, max(count, 1) * rows, columns, random)
        shape = (count, rows, data.shape[-1]) if count else data.shape
        writer.add_tensor(f"{name}.weight", data.reshape(shape), raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(name: str, size: int = HIDDEN) -> None:
        writer.add_tensor(f"{name}.weight", (1 + random.standard_normal(size) / 4).astype(np.float32))

    matrix("token_embd", "Q6_K", VOCABULARY)
    for layer, (gate_up, down) in enumerate([("Q4_K", "Q5_0"), ("Q3_K", "Q8_0")]):
        prefix = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            norm(f"{prefix}.{name}")
        if architecture == "qwen3moe":
            for name in ("attn_q_norm", "attn_k_norm"):
                norm(f"{prefix}.{name}", head_dim)
        matrix(f"{prefix}.attn_q", "Q4_K", HEADS * head_dim)
        matrix(f"{prefix}.attn_k", "Q4_K", head_dim)
        matrix(f"{prefix}.attn_v", "Q6_K", head_dim)
        matrix(f"{prefix}.attn_output", "Q8_0", HIDDEN, HEADS * head_dim)
        router = random.standard_normal((EXPERTS, HIDDEN)) / HIDDEN**0.5
        writer.add_tensor(f"{prefix}.ffn_gate_inp.weight", router.astype(np.float32))
        matrix(f"{prefix}.ffn_gate_exps", gate_up, WIDTH, HIDDEN, EXPERTS)
        matrix(f"{prefix}.ffn_up_exps", gate_up, WIDTH, HIDDEN, EXPERTS)
        matrix(f"{prefix}.ffn_down_exps", down, HIDDEN, WIDTH, EXPERTS)
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def state(path: Path, architecture: str) -> dict[str, torch.Tensor]:
    """The weights, widened, as transformers names, orders and stacks them."""
    values = {}
    for tensor in gguf.GGUFReader(path).tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if architecture == "llama" and re.search(r"\.attn_[qk]\.", tensor.name):
            numbers = halves_apart(numbers, HEADS if ".attn_q." in tensor.name else 1)
        values[tensor.name.removesuffix(".weight")] = torch.tensor(numbers)
    weights = {}
    for name, value in values.items():
        layer, part = re.match(r"(?:blk\.(\d+)\.)?(\w+)", name).groups()
        prefix = f"model.layers.{layer}." if layer else ""
        if part in MORE_NAMES:
            weights[f"{prefix}{MORE_NAMES[part]}.weight"] = value
        elif part == "ffn_gate_exps":
            both = torch.cat([value, values[f"blk.{layer}.ffn_up_exps"]], 1)
            weights[f"{prefix}mlp.experts.gate_up_proj"] = both
        elif part == "ffn_down_exps":
            weights[f"{prefix}mlp.experts.down_proj"] = value
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    return weights


def model_of(architecture: str) -> torch.nn.Module:
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIMS[architecture],
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "attn_implementation": "eager",
        "experts_implementation": "eager",
    }
    if architecture == "llama":
        config = MixtralConfig(intermediate_size=WIDTH, num_local_experts=EXPERTS, **common)
        return MixtralForCausalLM(config).float().eval()
    sizes = {"intermediate_size": WIDTH, "moe_intermediate_size": WIDTH, "num_experts": EXPERTS}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(norm_topk_prob=True, **sizes, **common)).float().eval()


def logits(path: Path, tokens: list[int], architecture: str) -> tuple[torch.Tensor, float]:
    model = model_of(architecture)
    model.load_state_dict(state(path, architecture))
    margins = []

    def look(_module, _inputs, output):
        ordered = output[0].sort(-1, descending=True).values
        margins.append((ordered[:, 1] - ordered[:, 2]).min().item())

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(look)
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0], min(margins)


def main(name: str, architecture: str) -> None:
    directory = OUT / name
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.gguf"
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, 70)
    for seed in range(1000):
        write(path, seed, architecture)
        expected, margin = logits(path, tokens.tolist(), architecture)
        if margin > ROUTER_MARGIN:
            break
    print(name, "seed", seed, "logits", expected.std().item(), "margin", margin)
    save_file({"tokens": torch.tensor(tokens), "logits": expected}, directory / "expected.safetensors")


if __name__ == "__main__":
    for name, architecture in {"mixed_qwen3_moe": "qwen3moe", "mixed_mixtral": "llama"}.items():
        if name in sys.argv[1:] or not sys.argv[1:]:
            main(name, architecture)
