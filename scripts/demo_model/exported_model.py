"""Loads models/demo back into transformers, as Backstop serves it: widened weights, FP8 inputs of the experts."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Cohere2MoeConfig, Cohere2MoeForCausalLM
from transformers.models.cohere2_moe import modeling_cohere2_moe

sys.path.append(str(Path(__file__).resolve().parents[1] / "goldens"))
from float8 import dequantize, quantized_experts_forward  # noqa: E402

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "models" / "demo"


def load_config() -> Cohere2MoeConfig:
    fields = json.loads((MODEL_FOLDER / "config.json").read_text())
    fields.pop("quantization_config")
    fields.update(sliding_window=fields["sliding_window"] + 1, tie_word_embeddings=True, dtype="float32")
    return Cohere2MoeConfig(**fields)


def load_exported() -> Cohere2MoeForCausalLM:
    modeling_cohere2_moe.Cohere2MoeExperts.forward = quantized_experts_forward
    tensors = load_file(MODEL_FOLDER / "model.safetensors")
    model = Cohere2MoeForCausalLM(load_config())
    state = {}
    for name in model.state_dict():
        if name == "lm_head.weight":
            state[name] = tensors["model.embed_tokens.weight"].float()
        elif ".experts." in name:
            prefix, _, projection = name.rpartition(".")
            parts = ["gate_proj", "up_proj"] if projection == "gate_up_proj" else ["down_proj"]
            stacks = []
            for expert in range(model.config.num_experts):
                names = [f"{prefix}.{expert}.{part}.weight" for part in parts]
                stacks.append(torch.cat([dequantize(tensors[n], tensors[n + "_scale"]) for n in names]))
            state[name] = torch.stack(stacks)
        else:
            state[name] = tensors[name].float()
    model.load_state_dict(state)
    return model.eval()
