"""The FP8 form of North Mini Code: experts in E4M3 with one BF16 scale per output row, activations per token.

Shared by the goldens and by the export of the demo model.
"""

import torch
import torch.nn.functional as F

E4M3_MAX = 448.0

IGNORED_MODULES = ["lm_head", "re:.*self_attn.*", "re:.*mlp.gate$", "re:.*shared_experts.*"]


def quantization_config(dense_layers: list[int]) -> dict:
    """compressed-tensors: W8A8 FP8 of every Linear that is not on the ignore list, i.e. of the routed experts."""
    dense = [f"re:.*layers\\.{layer}\\.mlp\\.(gate|up|down)_proj$" for layer in dense_layers]
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": IGNORED_MODULES + dense,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False, "symmetric": True},
                "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True, "symmetric": True},
                "output_activations": None,
            }
        },
    }


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (E4M3 values, BF16 scale [rows, 1]). The scale is rounded first, so the clip after it matters."""
    scale = (weight.float().abs().amax(-1, keepdim=True) / E4M3_MAX).clamp(min=1e-12).to(torch.bfloat16)
    values = (weight.float() / scale.float()).clamp(-E4M3_MAX, E4M3_MAX)
    return values.to(torch.float8_e4m3fn), scale


def dequantize(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return values.float() * scale.float()


def fake_quantize_tokens(rows: torch.Tensor) -> torch.Tensor:
    """What the expert products see of their input: E4M3 with one f32 scale per token."""
    scale = (rows.abs().amax(-1, keepdim=True) / E4M3_MAX).clamp(min=1e-12)
    return (rows / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).float() * scale


def quantized_experts_forward(self, hidden_states, top_k_index, top_k_weights):
    """Stands in for `Cohere2MoeExperts.forward`: the same sum, with quantised inputs to both products."""
    total = torch.zeros_like(hidden_states)
    rows = fake_quantize_tokens(hidden_states)
    for expert in range(self.num_experts):
        token, choice = torch.where(top_k_index == expert)
        if not len(token):
            continue
        gate, up = F.linear(rows[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
        inner = fake_quantize_tokens(self.act_fn(gate) * up)
        output = F.linear(inner, self.down_proj[expert])
        total.index_add_(0, token, output * top_k_weights[token, choice, None])
    return total
