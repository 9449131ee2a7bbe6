"""The configurations of the cohere2_moe goldens. Each names what it adds; together they take every branch.

`config` holds fields of config.json over `BASE`; a value of `ABSENT` removes the field. `weights` is the stored
element type, `layout` how the experts are named, `shards` the number of weight files.
"""

ABSENT = object()

BASE = {
    "architectures": ["Cohere2MoeForCausalLM"],
    "model_type": "cohere2_moe",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 32,
    "prefix_dense_intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "num_shared_experts": 0,
    "expert_selection_fn": "sigmoid",
    "norm_topk_prob": False,
    "first_k_dense_replace": 1,
    "prefix_dense_sliding_window_pattern": 1,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "sliding_window": 16,
    "max_position_embeddings": 512,
    "rope_theta": 50000,
    "rms_norm_eps": 1e-6,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.25,
    "tie_word_embeddings": None,
    "use_parallel_block": True,
    "use_qk_norm": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 5,
    "eos_token_id": 6,
    "pad_token_id": 0,
}


def case(weights: str, layout: str = "unfused", shards: int = 1, tokens: int = 80, **config) -> dict:
    return {"weights": weights, "layout": layout, "shards": shards, "tokens": tokens, "config": config}


DERIVED = {"layer_types": ABSENT}
NORTH = {
    "num_hidden_layers": 5,
    "layer_types": ["full_attention" if i % 4 == 0 else "sliding_attention" for i in range(5)],
    "num_attention_heads": 8,
    "num_experts": 4,
}

CASES = {
    "f32": case("F32", tokens=128),
    # North Mini Code's shape; GQA ratio 8.
    "north_bf16_sharded": case("BF16", shards=3, **NORTH),
    "north_fp8": case("F8_E4M3", **NORTH),
    # Norms: LayerNorm is chosen when rms_norm_eps is null or absent.
    "layer_norm_null": case("BF16", rms_norm_eps=None, layer_norm_eps=1e-3, num_key_value_heads=4),
    # Dense prefix: derived layer kinds, with and without forced RoPE, of none, one and two layers.
    "prefix_none_layer_norm": case("BF16", rms_norm_eps=ABSENT, logit_scale=0.0625, first_k_dense_replace=0, prefix_dense_intermediate_size=ABSENT, num_hidden_layers=4, **DERIVED),
    "prefix_sliding": case("BF16", prefix_dense_sliding_window_pattern=4, sliding_window=8, sliding_window_pattern=2, **DERIVED),
    "prefix_without_rope": case("BF16", prefix_dense_sliding_window_pattern=2, first_k_dense_replace=2, num_hidden_layers=4, sliding_window_pattern=2, **DERIVED),
    "prefix_two_with_rope": case("BF16", first_k_dense_replace=2, prefix_dense_intermediate_size=ABSENT, num_hidden_layers=4, sliding_window_pattern=2, **DERIVED),
    "mlp_layer_types": case("BF16", first_k_dense_replace=ABSENT, num_hidden_layers=4, mlp_layer_types=["dense", "sparse", "dense", "sparse"], layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
    # Routing rules.
    "sigmoid_normalised": case("BF16", norm_topk_prob=True, num_experts=5, num_experts_per_tok=3),
    "softmax_shared_average": case("BF16", expert_selection_fn="softmax", norm_topk_prob=True, num_shared_experts=1, shared_expert_combination_strategy="average"),
    "softmax_flag_off": case("BF16", expert_selection_fn="softmax", norm_topk_prob=False, num_experts=5, num_experts_per_tok=4),
    "defaults_of_class": case("BF16", expert_selection_fn=ABSENT, norm_topk_prob=ABSENT, num_experts_per_tok=ABSENT, num_experts=ABSENT, prefix_dense_sliding_window_pattern=ABSENT, logit_scale=ABSENT, tie_word_embeddings=ABSENT, num_key_value_heads=ABSENT, rope_theta=10000.0, attention_bias=ABSENT, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
    "top_one_fp8": case("F8_E4M3", num_experts_per_tok=1, logit_scale=1.0),
    # Shared experts.
    "shared_two_sum_packed": case("F32", layout="packed", num_shared_experts=2, shared_expert_combination_strategy="sum", num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
    "shared_two_average_fp8": case("F8_E4M3", num_shared_experts=2),
    # Heads, attention shapes, windows, rope in the newer spelling.
    "tied_with_copy_short": case("BF16", tie_word_embeddings=True, sliding_window=256, tokens=48),
    "head_dim_32_ratio_2": case("BF16", head_dim=32, num_key_value_heads=2, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
    "head_dim_64_ratio_1": case("BF16", head_dim=64, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
    "head_dim_128_fp8_sharded": case("F8_E4M3", shards=2, head_dim=128, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
    "window_one": case("BF16", sliding_window=1, layer_types=["sliding_attention"] * 3),
    "rope_parameters_all_experts": case("BF16", rope_theta=ABSENT, rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"}, num_experts_per_tok=3, norm_topk_prob=True),
    # Packed expert tensors.
    "packed_bf16_sharded": case("BF16", layout="packed", shards=2, tie_word_embeddings=False, logit_scale=2.0),
}


def config_json(name: str) -> dict:
    """The case's config.json, without the quantisation part."""
    merged = {**BASE, **CASES[name]["config"]}
    merged = {key: value for key, value in merged.items() if value is not ABSENT}
    if "layer_types" in merged:
        assert len(merged["layer_types"]) == merged["num_hidden_layers"], name
    merged["dtype"] = "float32" if CASES[name]["weights"] == "F32" else "bfloat16"
    return merged
