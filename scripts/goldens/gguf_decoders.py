"""Writes tests/goldens/gguf/<case>/model.gguf: models of tests/goldens/decoders as llama.cpp's converter would write
them, with the keys and the names of tensors that the `gguf` package (by llama.cpp's authors) has. What transformers
computes for a case is expected of its file, too.

    pip install gguf==0.19.0 safetensors
    python scripts/goldens/gguf_decoders.py
"""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

GOLDENS = Path(__file__).parents[2] / "tests/goldens"
# Cases of which the matrices are F32, and what the converter calls their families.
CASES = {
    "granite_tied": gguf.MODEL_ARCH.GRANITE,
    "smollm3_by_default": gguf.MODEL_ARCH.SMOLLM3,
}


def pairs_together(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys such that those are neighbours that are rotated with one another."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_keys(writer: gguf.GGUFWriter, config: dict) -> None:
    """What `config_as_saved.json` says, where transformers has written out all defaults."""
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    factors = {
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
    }
    for field, add in factors.items():
        if factor := config.get(field):
            add(factor)


def write(case: str, architecture: gguf.MODEL_ARCH) -> None:
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
        if projection in heads:
            tensor = pairs_together(tensor, heads[projection])
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{case:24} {path.stat().st_size:7} bytes")


if __name__ == "__main__":
    for name, family in CASES.items():
        write(name, family)
