"""Writes tests/goldens/gguf/gpt_oss_as_gguf/model.gguf: the model of tests/goldens/decoders/gpt_oss_as_gguf as llama.cpp's converter
writes it (`conversion/gpt_oss.py`): gate and up apart, biases beside them, and the order of nibbles that ggml has in MXFP4.

    pip install gguf==0.19.0 safetensors torch
    python scripts/goldens/gguf_gpt_oss.py
"""

import json

import gguf
import numpy as np
import torch
from gguf_decoders import GOLDENS, add_tensor, write_keys
from safetensors.torch import load_file

CASE = "gpt_oss_as_gguf"
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.router": "ffn_gate_inp",
}


def as_ggml(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """Blocks `[experts, rows, blocks, 16]` of pairs of neighbours, the first in the low bits, as ggml's: the scale, and bytes
    that each hold a number of the first half and one of the second."""
    pairs = blocks.numpy()
    codes = np.stack([pairs & 15, pairs >> 4], -1).reshape(*pairs.shape[:3], 32)
    halves = codes[..., :16] | codes[..., 16:] << 4
    data = np.concatenate([scales.numpy()[..., None], halves], -1)
    return data.reshape(*data.shape[:2], -1)


def add_experts(writer: gguf.GGUFWriter, layer: int, tensors: dict[str, torch.Tensor]) -> None:
    prefix, kind = f"model.layers.{layer}.mlp.experts.", gguf.GGMLQuantizationType.MXFP4

    def add(part: str, every: slice, source: str) -> None:
        blocks, scales = (tensors[f"{prefix}{source}_{name}"][:, every] for name in ("blocks", "scales"))
        writer.add_tensor(f"blk.{layer}.{part}.weight", as_ggml(blocks, scales), raw_dtype=kind)
        add_tensor(writer, f"blk.{layer}.{part}.bias", tensors[f"{prefix}{source}_bias"][:, every].float())

    add("ffn_gate_exps", slice(0, None, 2), "gate_up_proj")
    add("ffn_up_exps", slice(1, None, 2), "gate_up_proj")
    add("ffn_down_exps", slice(None), "down_proj")


def main() -> None:
    source = GOLDENS / "decoders" / CASE
    config = json.loads((source / "config_as_saved.json").read_text())
    tensors = load_file(source / "model.safetensors")
    path = GOLDENS / "gguf" / CASE / "model.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "gpt-oss")
    write_keys(writer, config)
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    rope = config["rope_parameters"]
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    add_tensor(writer, "token_embd.weight", tensors["model.embed_tokens.weight"])
    add_tensor(writer, "output_norm.weight", tensors["model.norm.weight"])
    add_tensor(writer, "output.weight", tensors["lm_head.weight"])
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in NAMES.items():
            for kind in ("weight", "bias"):
                if (tensor := tensors.get(f"model.layers.{layer}.{theirs}.{kind}")) is not None:
                    add_tensor(writer, f"blk.{layer}.{ours}.{kind}", tensor)
        add_tensor(writer, f"blk.{layer}.attn_sinks.weight", tensors[f"model.layers.{layer}.self_attn.sinks"])
        add_experts(writer, layer, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{CASE} {path.stat().st_size:7} bytes")


if __name__ == "__main__":
    main()
