//! The families of models: one file and one line in [`FAMILIES`] each.

mod cohere;
mod cohere2;
pub(crate) mod cohere2_moe;
mod deepseek_v3;
mod glm4_moe_lite;
mod glm_moe_dsa;
mod gpt_oss;
mod granite;
mod kimi_k2;
mod kimi_k25;
mod llama;
mod mistral;
mod mixtral;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use crate::registry::Architecture;

/// All of them.
pub(crate) const FAMILIES: &[&dyn Architecture] = &[
    &cohere::FAMILY,
    &cohere2::FAMILY,
    &cohere2_moe::FAMILY,
    &deepseek_v3::FAMILY,
    &glm4_moe_lite::FAMILY,
    &glm_moe_dsa::FAMILY,
    &gpt_oss::FAMILY,
    &granite::FAMILY,
    &kimi_k2::FAMILY,
    &kimi_k25::FAMILY,
    &llama::FAMILY,
    &mistral::FAMILY,
    &mixtral::FAMILY,
    &phi3::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &smollm3::FAMILY,
];
