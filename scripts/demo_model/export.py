"""Writes models/demo from a checkpoint, in the form of North Mini Code's FP8 repository.

    python export.py runs/demo/checkpoint.pt
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "goldens"))
from float8 import quantization_config, quantize_weight  # noqa: E402
from make_goldens import unfuse  # noqa: E402

from architecture import SLIDING_WINDOW, configuration  # noqa: E402
from conversations import MODEL_FOLDER  # noqa: E402
from tokenizer import write_json  # noqa: E402

# The fields of North Mini Code's config.json, in its spelling.
COPIED_FIELDS = [
    "vocab_size", "hidden_size", "intermediate_size", "prefix_dense_intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "num_experts", "num_experts_per_tok",
    "num_shared_experts", "expert_selection_fn", "norm_topk_prob", "prefix_dense_sliding_window_pattern",
    "layer_types", "max_position_embeddings", "rms_norm_eps", "layer_norm_eps", "logit_scale", "attention_bias",
    "attention_dropout", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache",
]


def exported_config() -> dict:
    config = configuration()
    exported = {"architectures": ["Cohere2MoeForCausalLM"], "model_type": "cohere2_moe"}
    exported.update({field: getattr(config, field) for field in COPIED_FIELDS})
    exported.update(
        first_k_dense_replace=1,
        sliding_window=SLIDING_WINDOW,
        rope_theta=50000,
        rope_parameters={"rope_theta": 50000, "rope_type": "default"},
        tie_word_embeddings=None,
        use_parallel_block=True,
        use_qk_norm=False,
        dtype="bfloat16",
        quantization_config=quantization_config(dense_layers=[0]),
        transformers_version="5.23.0",
    )
    return exported


def exported_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, tensor in state.items():
        if name == "lm_head.weight":
            continue  # tied
        if ".experts." in name:
            tensors[name], tensors[name + "_scale"] = quantize_weight(tensor)
        else:
            tensors[name] = tensor.to(torch.bfloat16)
    tensors = unfuse(tensors)
    for name, tensor in tensors.items():
        assert torch.isfinite(tensor.float()).all(), name
    return tensors


def main(checkpoint_path: str) -> None:
    checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=False)
    tensors = exported_tensors(checkpoint["model"])
    save_file({name: tensors[name] for name in sorted(tensors)}, MODEL_FOLDER / "model.safetensors", metadata={"format": "pt"})
    write_json("config.json", exported_config())
    write_json("generation_config.json", {"_from_model_config": True, "bos_token_id": 5, "eos_token_id": 4084, "pad_token_id": 0, "transformers_version": "5.23.0"})
    parameters = sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith("_scale"))
    size = (MODEL_FOLDER / "model.safetensors").stat().st_size
    print(json.dumps({"parameters": parameters, "bytes": size, **{key: checkpoint.get(key) for key in ("step", "finished", "minutes")}}))


if __name__ == "__main__":
    main(sys.argv[1])
