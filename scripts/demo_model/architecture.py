"""The shape of the demo model: North Mini Code's architecture in small."""

from transformers import Cohere2MoeConfig

SLIDING_WINDOW = 256


def configuration(**overrides) -> Cohere2MoeConfig:
    """The configuration used for training.

    A served sliding layer sees the token itself and `sliding_window` tokens before it; transformers counts the
    token itself as part of the window. So training uses one more than what the exported config.json says.
    """
    layers = overrides.pop("num_hidden_layers", 6)
    values = dict(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=96,
        prefix_dense_intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=12,
        num_experts_per_tok=2,
        num_shared_experts=0,
        expert_selection_fn="sigmoid",
        norm_topk_prob=False,
        first_k_dense_replace=1,
        prefix_dense_sliding_window_pattern=1,
        layer_types=["full_attention" if i % 4 == 0 else "sliding_attention" for i in range(layers)],
        sliding_window=SLIDING_WINDOW + 1,
        max_position_embeddings=4096,
        rope_theta=50000.0,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        rms_norm_eps=1e-6,
        layer_norm_eps=1e-5,
        logit_scale=0.25,
        tie_word_embeddings=True,
        attention_bias=False,
        bos_token_id=5,
        eos_token_id=4084,
        pad_token_id=0,
    )
    return Cohere2MoeConfig(**{**values, **overrides})
