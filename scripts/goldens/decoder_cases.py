"""The configurations of the decoder goldens. Each says in its name what it adds to the family before it.

`config` is the case's config.json over `BASE`; a value of `ABSENT` removes the field. `weights` is the stored element
type (`MXFP4`: of experts, with the rest in BF16), `packed` whether experts are stored as one tensor for each layer,
`shards` the number of weight files. `published` is what the golden's config.json says instead.
"""

ABSENT = object()

BASE = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# Shapes that a card computes, too.
CARD = {"hidden_size": 64, "head_dim": 32}
# Longer than what such models were trained for first.
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}


def case(architecture: str, model_type: str, weights: str = "BF16", tokens: int = 240, packed: bool = False, shards: int = 1, **config) -> dict:
    return {
        "weights": weights,
        "tokens": tokens,
        "packed": packed,
        "shards": shards,
        "config": {"architectures": [f"{architecture}ForCausalLM"], "model_type": model_type, **config},
    }


def llama(**options) -> dict:
    return case("Llama", "llama", **options)


def mistral(**options) -> dict:
    return case("Mistral", "mistral", **options)


def llama_tied_in_name(**options) -> dict:
    """A head of its own, and a configuration that denies it: transformers computes with the head."""
    return {**llama(**options), "published": {"tie_word_embeddings": True}}


def qwen2(**options) -> dict:
    return case("Qwen2", "qwen2", **options)


def qwen3(**options) -> dict:
    return case("Qwen3", "qwen3", **options)


def mixtral(**options) -> dict:
    return case("Mixtral", "mixtral", **{"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, **options})


def qwen3_moe(**options) -> dict:
    return case("Qwen3Moe", "qwen3_moe", **{**EXPERTS, **options})


def phi3(**options) -> dict:
    return case("Phi3", "phi3", pad_token_id=0, **options)


# Cohere's models have a LayerNorm, and their heads are their embeddings.
COHERE = {"rms_norm_eps": ABSENT, "layer_norm_eps": 1e-3, "logit_scale": 0.25, "tie_word_embeddings": True, "pad_token_id": 0}


def cohere(**options) -> dict:
    return case("Cohere", "cohere", **{**COHERE, **options})


def cohere2(**options) -> dict:
    return case("Cohere2", "cohere2", **{**COHERE, "num_hidden_layers": 4, "sliding_window": 20, **options})


# Sizes that are all different, so that none can stand for another.
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 40,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 20,
    "moe_intermediate_size": 32,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "routed_scaling_factor": 1.8,
    "rope_interleave": True,
}
GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 2.5}


def deepseek_v3(**options) -> dict:
    return case("DeepseekV3", "deepseek_v3", **{**LATENT, **GROUPS, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1, **options})


def glm4_moe_lite(**options) -> dict:
    return case("Glm4MoeLite", "glm4_moe_lite", **{**LATENT, "n_group": 1, "topk_group": 1, **options})


def kimi_k2(**options) -> dict:
    """transformers has it as DeepSeek-V3 only."""
    made = deepseek_v3(n_group=1, topk_group=1, scoring_func="sigmoid", topk_method="noaux_tc", **options)
    return {**made, "published": {"model_type": "kimi_k2"}}


# An encoder of images that no text needs; small, and with names for its sizes as transformers has them.
VISION = {
    "model_type": "kimi_k25_vision", "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
    "patch_size": 4, "pos_emb_height": 4, "pos_emb_width": 4, "pos_emb_time": 2,
}


def kimi_k25(**options) -> dict:
    """DeepSeek-V3 beside an encoder of images, as Kimi K2.5 and later are published."""
    text = {**BASE, **kimi_k2(**options)["config"], "num_nextn_predict_layers": 0, "model_type": "kimi_k2"}
    text = {key: value for key, value in text.items() if value is not ABSENT and key != "architectures"}
    made = case("Kimi_K25", "kimi_k25", **{key: ABSENT for key in BASE})
    made["config"] |= {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "ignore_index": -100,
        "media_placeholder_token_id": 60,
        "projection_hidden_size": 32,
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": VISION,
    }
    return made


def glm_moe_dsa(**options) -> dict:
    """Texts of which the indexer selects all, unless the options say otherwise."""
    indexer = {"index_topk": 256, "index_n_heads": 2, "index_head_dim": 24}
    return case("GlmMoeDsa", "glm_moe_dsa", **{**LATENT, **GROUPS, **indexer, "first_k_dense_replace": 1, **options})


def glm_moe_dsa_selecting(**options) -> dict:
    """An indexer that selects few keys; so many heads that few of its scores are nothing but zero."""
    return glm_moe_dsa(**{"index_topk": 8, "index_n_heads": 8, "num_hidden_layers": 4, **options})


# gpt-oss's way of saying that experts are in MXFP4.
MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
}
GPT_OSS = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "head_dim": 16,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 20,
    "attention_bias": True,
    "rope_theta": 150000.0,
    "rope_scaling": {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, **YARN},
    # Limits that activations do reach.
    "swiglu_limit": 2.0,
}


def gpt_oss(**options) -> dict:
    """transformers keeps its experts packed, inputs before outputs."""
    return case("GptOss", "gpt_oss", packed=True, **{**GPT_OSS, **options})


def smollm3(**options) -> dict:
    return case("SmolLM3", "smollm3", **{"pad_token_id": 0, **options})


# Powers of two and others, as published models have them.
GRANITE = {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.125, "logits_scaling": 8.0}


def granite(**options) -> dict:
    return case("Granite", "granite", **options)


CASES = {
    "cohere_untied": cohere(tie_word_embeddings=False, **CARD),
    "cohere_with_theta": cohere(rope_theta=75_000.0, num_key_value_heads=4),
    "cohere2_by_default": cohere2(),
    "cohere2_by_pattern": cohere2(sliding_window_pattern=3),
    "cohere2_listed": cohere2(layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"], **CARD),
    "llama_f32": llama(weights="F32", num_key_value_heads=ABSENT, rms_norm_eps=ABSENT),
    "llama_scaled_tied": llama(rope_theta=ABSENT, rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}, tie_word_embeddings=True, **CARD),
    "llama_scaled_older_spelling": llama(rope_theta=500000.0, rope_scaling={"rope_type": "llama3", **LLAMA3}, shards=2, head_dim=32),
    "llama_linear_biased": llama(rope_scaling={"type": "linear", "factor": 4.0}, attention_bias=True, num_key_value_heads=1, **CARD),
    "llama_yarn": llama(weights="F32", rope_scaling={"rope_type": "yarn", "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 1.2, "mscale_all_dim": 0.7, "truncate": False, **YARN}),
    "llama_tied_in_name": llama_tied_in_name(num_hidden_layers=1),
    "mistral_window": mistral(weights="F32", sliding_window=24, num_attention_heads=6),
    "mistral_window_by_default": mistral(head_dim=16),
    "mistral_no_window": mistral(sliding_window=None, rope_theta=1000000.0, **CARD),
    "phi3": phi3(**CARD),
    "phi3_sliding_tied": phi3(sliding_window=30, tie_word_embeddings=True, rope_theta=250_000.0),
    "qwen2_tied_yarn": qwen2(tie_word_embeddings=True, rope_scaling={"type": "yarn", **YARN}, **CARD),
    "qwen2_later_layers_slide": qwen2(weights="F32", use_sliding_window=True, sliding_window=17, max_window_layers=1, num_hidden_layers=3),
    "qwen2_layer_types": qwen2(use_sliding_window=True, sliding_window=20, num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"], num_attention_heads=7, num_key_value_heads=1, **CARD),
    "qwen3_tied": qwen3(tie_word_embeddings=True, rope_theta=1000000.0, rms_norm_eps=1e-6, **CARD),
    "qwen3_biased_sliding": qwen3(weights="F32", head_dim=24, attention_bias=True, use_sliding_window=True, sliding_window=30, max_window_layers=1),
    "mixtral_f32": mixtral(weights="F32", sliding_window=None, rope_theta=ABSENT),
    "mixtral_window": mixtral(sliding_window=16, shards=2, **CARD),
    "qwen3_moe_dense_first": qwen3_moe(mlp_only_layers=[0], num_hidden_layers=3, rope_theta=10000000.0, **CARD),
    "qwen3_moe_packed_step": qwen3_moe(weights="F32", packed=True, head_dim=16, decoder_sparse_step=2, norm_topk_prob=False),
    "deepseek_v3_yarn": deepseek_v3(weights="F32", rope_scaling={"type": "yarn", "mscale": 0.8, "mscale_all_dim": 1.3, **YARN}),
    "deepseek_v3_direct_queries": deepseek_v3(q_lora_rank=None, attention_bias=True, norm_topk_prob=False, n_shared_experts=2),
    "kimi_k2": kimi_k2(rope_theta=50000.0),
    "kimi_k25": kimi_k25(rope_theta=50000.0, rope_scaling={"type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0, **YARN}),
    "glm4_moe_lite": glm4_moe_lite(num_hidden_layers=3, first_k_dense_replace=1),
    "glm4_moe_lite_halves": glm4_moe_lite(weights="F32", rope_interleave=False, mlp_layer_types=["sparse", "dense"]),
    "qwen3_moe_sliding": qwen3_moe(head_dim=16, use_sliding_window=True, sliding_window=12, attention_bias=True, num_experts_per_tok=4),
    "glm_moe_dsa": glm_moe_dsa(num_hidden_layers=3, indexer_types=["full", "shared", "full"], mlp_layer_types=["dense", "sparse", "sparse"]),
    "glm_moe_dsa_at_its_limit": glm_moe_dsa(weights="F32", index_topk=240, n_group=1, topk_group=1, attention_bias=True, moe_intermediate_size=16),
    "glm_moe_dsa_selecting": glm_moe_dsa_selecting(indexer_types=["full", "shared", "shared", "full"]),
    "glm_moe_dsa_selecting_in_turns": glm_moe_dsa_selecting(
        weights="F32", tokens=160, index_topk=13, index_n_heads=7, index_head_dim=16, index_topk_freq=2, index_skip_topk_offset=2,
        num_hidden_layers=4, n_group=1, topk_group=1, attention_bias=True, moe_intermediate_size=16,
        rope_scaling={"type": "yarn", "mscale": 0.8, "mscale_all_dim": 1.3, **YARN},
    ),
    "smollm3_by_default": smollm3(weights="F32", num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=ABSENT, rms_norm_eps=ABSENT, rope_theta=ABSENT, tie_word_embeddings=ABSENT),
    "smollm3_sliding": smollm3(no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=20, num_hidden_layers=3, **CARD),
    "smollm3_layer_types": smollm3(no_rope_layer_interval=2, use_sliding_window=True, sliding_window=17, num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_scaling={"type": "yarn", **YARN}, attention_bias=True, **CARD),
    "granite_by_default": granite(weights="F32", num_key_value_heads=ABSENT, rms_norm_eps=ABSENT, rope_theta=ABSENT, tie_word_embeddings=ABSENT),
    "granite_multiplied": granite(rms_norm_eps=0.05, attention_bias=True, num_hidden_layers=3, **GRANITE, **CARD),
    "granite_tied": granite(weights="F32", tie_word_embeddings=True, rope_theta=10000000.0, **{**GRANITE, "logits_scaling": 13.0, "residual_multiplier": 0.3}),
    "gpt_oss_f32": gpt_oss(weights="F32", hidden_size=48, num_hidden_layers=3, num_local_experts=6, num_experts_per_tok=3, swiglu_limit=1.2, swiglu_alpha=1.3),
    "gpt_oss_bf16": gpt_oss(num_attention_heads=6, attention_bias=False, rope_theta=ABSENT, rope_scaling=ABSENT, rope_parameters={"rope_type": "default", "rope_theta": 20000.0}, layer_types=["full_attention", "sliding_attention"], shards=2),
    "gpt_oss_as_gguf": gpt_oss(weights="MXFP4", intermediate_size=96, num_hidden_layers=3, swiglu_limit=ABSENT, quantization_config=MXFP4),
    "gpt_oss_mxfp4": gpt_oss(weights="MXFP4", intermediate_size=96, quantization_config=MXFP4, initial_context_length=64, experts_per_token=2),
}


def config_json(name: str) -> dict:
    """The case's config.json."""
    merged = {**BASE, **CASES[name]["config"]}
    return {key: value for key, value in merged.items() if value is not ABSENT}
