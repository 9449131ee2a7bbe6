"""Writes tests/goldens/gguf/<case>/model.gguf: models of tests/goldens/decoders as llama.cpp's converter would write
them, with the keys and the names of tensors that the `gguf` package (by llama.cpp's authors) has. What transformers
computes for a case is expected of its file, too.

    pip install torch gguf==0.19.0 safetensors
    python scripts/goldens/gguf_decoders.py
"""

import json
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file

GOLDENS = Path(__file__).parents[2] / "tests/goldens"
# What the converter calls the families of the cases, and whether it puts rotated rows next to one another.
CASES = {
    "cohere2_by_default": (gguf.MODEL_ARCH.COHERE2, False),
    "cohere_with_theta": (gguf.MODEL_ARCH.COMMAND_R, False),
    "phi3_sliding_tied": (gguf.MODEL_ARCH.PHI3, False),
    "granite_tied": (gguf.MODEL_ARCH.GRANITE, True),
    "qwen2_tied_yarn": (gguf.MODEL_ARCH.QWEN2, False),
    "qwen3_tied": (gguf.MODEL_ARCH.QWEN3, False),
    "smollm3_by_default": (gguf.MODEL_ARCH.SMOLLM3, True),
}


def pairs_together(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys such that those are neighbours that are rotated with one another."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor) -> None:
    """Matrices in the format that they have, everything else in F32."""
    kind = gguf.GGMLQuantizationType.BF16 if tensor.dtype == torch.bfloat16 and tensor.dim() > 1 else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)


def write_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    """What `config_as_saved.json` says, where transformers has written out all defaults."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if epsilon := config.get("rms_norm_eps"):
        writer.add_layer_norm_rms_eps(epsilon)
    if epsilon := config.get("layer_norm_eps"):
        writer.add_layer_norm_eps(epsilon)
    if window := config.get("sliding_window"):
        writer.add_sliding_window(window)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if (rope := config["rope_parameters"])["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    factors = {
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
        "logit_scale": writer.add_logit_scale,
    }
    for field, add in factors.items():
        if factor := config.get(field):
            add(factor)


def write(case: str, architecture: gguf.MODEL_ARCH, puts_together: bool) -> None:
    source = GOLDENS / "decoders" / case
    config = json.loads((source / "config_as_saved.json").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    path = GOLDENS / "gguf" / case / "model.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    write_keys(writer, config)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, tensor in load_file(source / "model.safetensors").items():
        projection = name.split(".")[-2]
        if puts_together and projection in heads:
            tensor = pairs_together(tensor, heads[projection])
        add_tensor(writer, names.get_name(name, try_suffixes=(".weight", ".bias")), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{case:24} {path.stat().st_size:7} bytes")


if __name__ == "__main__":
    for case, (architecture, puts_together) in CASES.items():
        write(case, architecture, puts_together)
