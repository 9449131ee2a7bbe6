"""Writes tests/goldens/gguf/<case>/model.gguf: models of tests/goldens/cohere2_moe as llama.cpp's converter writes them
(`conversion/command_r.py`, architecture `cohere2moe`). What transformers computes for a case is expected of its file, too.

    pip install gguf==0.19.0 safetensors torch
    python scripts/goldens/gguf_cohere.py
"""

import json
from pathlib import Path

import gguf
import torch
from gguf_decoders import GOLDENS, add_tensor
from safetensors.torch import load_file

ARCHITECTURE = "cohere2moe"
CASES = ["layer_norm_null", "north_bf16_sharded", "softmax_shared_average"]
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
EXPERTS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
# As `gguf.ExpertGatingFuncType` numbers them.
SCORES = {"softmax": 1, "sigmoid": 2}


def write_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["prefix_dense_intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    if epsilon := config["rms_norm_eps"]:
        writer.add_layer_norm_rms_eps(epsilon)
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType(SCORES[config["expert_selection_fn"]]))
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_logit_scale(config["logit_scale"])
    writer.add_sliding_window(config["sliding_window"])
    slides = [kind == "sliding_attention" for kind in config["layer_types"]]
    writer.add_array(f"{ARCHITECTURE}.attention.sliding_window_pattern", slides)
    writer.add_vocab_size(config["vocab_size"])
    width = config["intermediate_size"]
    writer.add_expert_feed_forward_length(width)
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    if shared := config["num_shared_experts"]:
        writer.add_expert_shared_count(shared)
        writer.add_expert_shared_feed_forward_length(width * shared)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def write_tensors(writer: gguf.GGUFWriter, tensors: dict[str, torch.Tensor], num_layers: int) -> None:
    add_tensor(writer, "token_embd.weight", tensors.pop("model.embed_tokens.weight"))
    add_tensor(writer, "output_norm.weight", tensors.pop("model.norm.weight"))
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        for theirs, ours in NAMES.items():
            if (tensor := tensors.pop(f"{prefix}{theirs}.weight", None)) is not None:
                add_tensor(writer, f"blk.{layer}.{ours}.weight", tensor)
        for theirs, ours in EXPERTS.items():
            experts = []
            while (one := tensors.pop(f"{prefix}mlp.experts.{len(experts)}.{theirs}.weight", None)) is not None:
                experts.append(one)
            if experts:
                add_tensor(writer, f"blk.{layer}.{ours}.weight", torch.stack(experts))
    assert not tensors, sorted(tensors)


def write(case: str) -> None:
    source = GOLDENS / "cohere2_moe" / case
    config = json.loads((source / "config.json").read_text())
    tensors = {}
    for file in sorted(source.glob("model*.safetensors")):
        tensors |= load_file(file)
    path: Path = GOLDENS / "gguf" / f"cohere2moe_{case}" / "model.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    write_keys(writer, config)
    write_tensors(writer, tensors, config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path.parent.name:36} {path.stat().st_size:7} bytes")


if __name__ == "__main__":
    for case in CASES:
        write(case)
