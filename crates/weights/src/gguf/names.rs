//! What GGUF's tensors are called in Hugging Face checkpoints, whose names architectures ask for.

use super::family::{GgufConventions, GgufExperts};

/// Whole names, without `.weight` or `.bias`.
const MODEL: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Names behind `blk.N.` and behind `model.layers.N.`.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The router of a layer's experts.
const ROUTER: &str = "ffn_gate_inp";

/// Projections of the experts that every token passes through.
const SHARED: [(&str, &str); 3] = [
    ("ffn_gate_shexp", "gate_proj"),
    ("ffn_up_shexp", "up_proj"),
    ("ffn_down_shexp", "down_proj"),
];

/// Projections of which a layer's experts are stored in one tensor.
const PROJECTIONS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// The tensors of queries and keys, without `.weight` or `.bias`.
pub(super) const QUERY: &str = "attn_q";
pub(super) const KEY: &str = "attn_k";

/// The tensor's name in a Hugging Face checkpoint. What is not in the lists keeps its name, by
/// which the census then reports it as a tensor that nothing asked for.
pub(super) fn hugging_face_name(name: &str, conventions: &GgufConventions) -> String {
    let Some((module, kind)) = split(name) else {
        return name.to_owned();
    };
    let found = |list: &[(&str, &str)], module: &str| {
        let entry = list.iter().find(|(theirs, _)| *theirs == module);
        entry.map(|(_, ours)| (*ours).to_owned())
    };
    let of_experts = |part: &str| {
        let GgufExperts {
            module,
            router,
            shared,
            ..
        } = conventions.experts?;
        if part == ROUTER {
            return Some(format!("{module}.{router}"));
        }
        let projection = found(&SHARED, part)?;
        Some(format!("{module}.{}.{projection}", shared?))
    };
    let in_a_layer = |part: &str| {
        let own = found(conventions.names, part).or_else(|| of_experts(part));
        let module = own.or_else(|| found(LAYER, part));
        let named = module.map(|module| format!("{module}.{kind}"));
        found(conventions.names, &format!("{part}.{kind}")).or(named)
    };
    let mapped = match in_layer(module) {
        Some((layer, part)) => in_a_layer(part).map(|part| format!("model.layers.{layer}.{part}")),
        None => found(MODEL, module).map(|module| format!("{module}.{kind}")),
    };
    mapped.unwrap_or_else(|| name.to_owned())
}

/// The name of one expert's tensor if this is one of all experts.
pub(super) fn expert_name(name: &str, expert: usize, experts: GgufExperts) -> Option<String> {
    let (module, kind) = split(name)?;
    let (layer, part) = in_layer(module)?;
    let index = PROJECTIONS.iter().position(|theirs| *theirs == part)?;
    let (module, projection) = (experts.module, experts.projections[index]);
    Some(format!(
        "model.layers.{layer}.{module}.experts.{expert}.{projection}.{kind}"
    ))
}

/// The part of a layer's tensor name between `blk.N.` and `.weight` or `.bias`.
pub(super) fn layer_part(name: &str) -> Option<&str> {
    let (module, _) = split(name)?;
    in_layer(module).map(|(_, part)| part)
}

fn split(name: &str) -> Option<(&str, &str)> {
    let (module, kind) = name.rsplit_once('.')?;
    matches!(kind, "weight" | "bias").then_some((module, kind))
}

fn in_layer(module: &str) -> Option<(&str, &str)> {
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((layer, part))
}
