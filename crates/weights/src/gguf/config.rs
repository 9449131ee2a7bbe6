//! Translates a GGUF file's metadata into the fields of `config.json`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::family::{GgufFamily, GgufField, GgufNorm};
use super::metadata::{Integers, Metadata};
use crate::header::HeaderEntry;

/// Keys behind the architecture's prefix that say nothing about the mathematics.
const INERT: &[&str] = &[
    "tensor_data_layout",
    "rope.scaling.finetuned",
    // Of no meaning without experts, and a number of experts is not understood.
    "expert_used_count",
];

/// Most layers for which a list is made.
const LAYERS_MAX: u64 = 4096;

/// The frequency base where a file does not state one.
const ROPE_BASE_DEFAULT: f64 = 10_000.0;

impl GgufFamily {
    /// The one that the file names.
    pub(super) fn of<'a>(
        families: &'a [Self],
        metadata: &mut Metadata,
    ) -> Result<&'a Self, String> {
        let Some(name) = metadata.text("general.architecture") else {
            return Err("the metadata lacks general.architecture".to_owned());
        };
        let has_experts = metadata
            .u32(&format!("{name}.expert_count"))
            .is_some_and(|count| count > 0);
        let of_name = || {
            families
                .iter()
                .filter(|known| known.conventions.name == name)
        };
        let fitting = of_name().find(|known| known.conventions.experts.is_some() == has_experts);
        fitting.or_else(|| of_name().next()).ok_or_else(|| {
            let names: BTreeSet<&str> = families
                .iter()
                .map(|known| known.conventions.name)
                .collect();
            let names: Vec<&str> = names.into_iter().collect();
            let shown: String = name.chars().take(64).collect();
            format!(
                "general.architecture {shown:?} is not supported; supported in GGUF files are: {}",
                names.join(", ")
            )
        })
    }

    /// The configuration. Problems are recorded in `metadata`.
    pub(super) fn config(
        &self,
        metadata: &mut Metadata,
        tensors: &[(usize, HeaderEntry)],
        rope_factors: Option<&[f32]>,
    ) -> Map<String, Value> {
        let conventions = &self.conventions;
        let mut fields = Fields {
            prefix: conventions.name,
            metadata,
            config: Map::new(),
        };
        fields.put("architectures", json!([conventions.class]));
        fields.put("model_type", json!(self.model_type));
        fields.put("hidden_act", json!("silu"));
        fields.copy_u32("block_count", "num_hidden_layers");
        fields.copy_u32("feed_forward_length", conventions.feed_forward);
        fields.copy_u32("context_length", "max_position_embeddings");
        fields.attention();
        fields.norm(conventions.norm);
        fields.rope(rope_factors);
        for field in conventions.fields {
            fields.of_family(*field);
        }
        // Some files without experts say so.
        if conventions.experts.is_none()
            && fields.u32("expert_count").is_some_and(|count| count > 0)
        {
            fields.problem(format!("{}.expert_count is not 0", conventions.name));
        }

        let find = |name: &str| {
            let mut entries = tensors.iter().map(|(_, entry)| entry);
            entries.find(|tensor| tensor.name == name)
        };
        let embedding_rows = find("token_embd.weight").map(|table| table.shape[0]);
        let stated = fields.u32("vocab_size").map(|size| size as usize);
        match stated.or(embedding_rows) {
            Some(size) => fields.put("vocab_size", json!(size)),
            None => fields.problem("there is no tensor \"token_embd.weight\""),
        }
        let tied = find("output.weight").is_none();
        fields.put("tie_word_embeddings", json!(tied));
        if conventions.states_biases && find("blk.0.attn_q.bias").is_some() {
            fields.put("attention_bias", json!(true));
        }
        let Fields { config, .. } = fields;
        let inert_here = conventions.fields.iter().filter_map(|field| match field {
            GgufField::Inert(key) => Some(*key),
            _ => None,
        });
        let inert: Vec<&str> = INERT.iter().copied().chain(inert_here).collect();
        for key in metadata.unread(&format!("{}.", conventions.name), &inert) {
            metadata.problem(format!("{key} is not understood"));
        }
        config
    }
}

struct Fields<'a> {
    prefix: &'static str,
    metadata: &'a mut Metadata,
    config: Map<String, Value>,
}

impl Fields<'_> {
    fn put(&mut self, field: &str, value: Value) {
        self.config.insert(field.to_owned(), value);
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.metadata.problem(problem.into());
    }

    fn u32(&mut self, key: &str) -> Option<u32> {
        self.metadata.u32(&format!("{}.{key}", self.prefix))
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        self.metadata.number(&format!("{}.{key}", self.prefix))
    }

    fn missing(&mut self, key: &str) {
        self.problem(format!("{}.{key} is missing", self.prefix));
    }

    fn copy_number(&mut self, key: &str, field: &str) {
        match self.number(key) {
            Some(number) => self.put(field, json!(number)),
            None => self.missing(key),
        }
    }

    fn copy_u32(&mut self, key: &str, field: &str) {
        match self.u32(key) {
            Some(number) => self.put(field, json!(number)),
            None => self.missing(key),
        }
    }

    fn of_family(&mut self, field: GgufField) {
        match field {
            GgufField::Integer { key, field } => self.copy_u32(key, field),
            GgufField::Number { key, field } => self.copy_number(key, field),
            GgufField::IntegerUnlessZero { key, field } => {
                if let Some(number) = self.u32(key).filter(|&number| number > 0) {
                    self.put(field, json!(number));
                }
            }
            GgufField::Flag { key, field } => {
                let flag = self.metadata.bool(&format!("{}.{key}", self.prefix));
                self.put(field, json!(flag.unwrap_or(false)));
            }
            GgufField::True(field) => self.put(field, json!(true)),
            GgufField::Only { key, number } => {
                if self.number(key).is_some_and(|stated| stated != number) {
                    self.problem(format!("{}.{key} is not {number}", self.prefix));
                }
            }
            GgufField::Inert(_) => {}
            GgufField::RampNotRounded => {
                if let Some(scaling) = self.config.get_mut("rope_scaling") {
                    scaling["truncate"] = json!(false);
                }
            }
            GgufField::RouterScores { field, default } => self.router_scores(field, default),
            GgufField::SlidingLayers { period, full_first } => {
                self.sliding_layers(period, full_first);
            }
        }
    }

    fn router_scores(&mut self, field: &str, default: &str) {
        let key = "expert_gating_func";
        let function = match self.u32(key) {
            // What no converter has set.
            None | Some(0) => default,
            Some(1) => "softmax",
            Some(2) => "sigmoid",
            Some(number) => {
                let prefix = self.prefix;
                return self.problem(format!("{prefix}.{key} {number} is not supported"));
            }
        };
        self.put(field, json!(function));
    }

    /// A window, and which layers have one.
    fn sliding_layers(&mut self, period: u32, full_first: bool) {
        self.copy_u32("attention.sliding_window", "sliding_window");
        let num_layers = self.config.get("num_hidden_layers").and_then(Value::as_u64);
        let num_layers = num_layers.unwrap_or(0).min(LAYERS_MAX);
        let key = format!("{}.attention.sliding_window_pattern", self.prefix);
        let slides: Vec<bool> = match self.metadata.integers_or_one(&key) {
            Some(Integers::List(list)) if list.len() as u64 == num_layers => {
                list.iter().map(|&slides| slides != 0).collect()
            }
            Some(Integers::List(_)) => {
                return self.problem(format!("{key} has no entry for each layer"));
            }
            stated => {
                let period = match stated {
                    Some(Integers::One(period)) => period,
                    _ => period,
                };
                let full = if full_first {
                    0
                } else {
                    period.saturating_sub(1)
                };
                (0..num_layers)
                    .map(|layer| (layer as u32).checked_rem(period) != Some(full))
                    .collect()
            }
        };
        let kind = |&slides: &bool| match slides {
            true => "sliding_attention",
            false => "full_attention",
        };
        let kinds: Vec<&str> = slides.iter().map(kind).collect();
        self.put("layer_types", json!(kinds));
    }

    fn attention(&mut self) {
        self.copy_u32("embedding_length", "hidden_size");
        self.copy_u32("attention.head_count", "num_attention_heads");
        let number = |config: &Map<String, Value>, field: &str| {
            config.get(field).and_then(Value::as_u64).unwrap_or(0)
        };
        let heads = number(&self.config, "num_attention_heads");
        let hidden = number(&self.config, "hidden_size");
        let key_heads = self.u32("attention.head_count_kv").map_or(heads, u64::from);
        self.put("num_key_value_heads", json!(key_heads));
        let derived = hidden.checked_div(heads).unwrap_or(0);
        let key_length = self.u32("attention.key_length").map(u64::from);
        let head_dim = key_length.unwrap_or(derived);
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(length) = self.u32(key)
                && u64::from(length) != head_dim
            {
                let prefix = self.prefix;
                self.problem(format!(
                    "{prefix}.{key} is {length}; only the length of keys, {head_dim}, is supported"
                ));
            }
        }
        self.put("head_dim", json!(head_dim));
    }

    /// The norms' epsilons. Files may have both; that of RMSNorm says that it is one.
    fn norm(&mut self, norm: GgufNorm) {
        const RMS: &str = "attention.layer_norm_rms_epsilon";
        const LAYER: &str = "attention.layer_norm_epsilon";
        if norm == GgufNorm::Rms {
            return self.copy_number(RMS, "rms_norm_eps");
        }
        let (rms, layer) = (self.number(RMS), self.number(LAYER));
        match (rms, layer) {
            (Some(epsilon), _) => self.put("rms_norm_eps", json!(epsilon)),
            (None, Some(epsilon)) => self.put("layer_norm_eps", json!(epsilon)),
            (None, None) => self.missing(RMS),
        }
    }

    fn rope(&mut self, factors: Option<&[f32]>) {
        let base = self.number("rope.freq_base").unwrap_or(ROPE_BASE_DEFAULT);
        self.put("rope_theta", json!(base));
        let key = format!("{}.rope.scaling.type", self.prefix);
        let kind = self.metadata.text(&key);
        let factor = self.number("rope.scaling.factor");
        let original = self.u32("rope.scaling.original_context_length");
        if self
            .number("rope.scaling.attn_factor")
            .is_some_and(|factor| factor != 1.0)
        {
            self.problem(format!("{}.rope.scaling.attn_factor is not 1", self.prefix));
        }
        let scaling = match (kind.as_deref(), factors) {
            (None | Some("none"), None) => return,
            (None | Some("none"), Some(factors)) => match self.llama3_scaling(base, factors) {
                Some(scaling) => scaling,
                None => {
                    self.problem("rope_freqs.weight does not hold the factors of Llama 3");
                    return;
                }
            },
            (Some(kind @ ("linear" | "yarn")), None) => {
                let Some(factor) = factor else {
                    self.missing("rope.scaling.factor");
                    return;
                };
                let mut scaling = json!({"rope_type": kind, "factor": factor});
                if let Some(original) = original {
                    scaling["original_max_position_embeddings"] = json!(original);
                }
                for name in ["beta_fast", "beta_slow"] {
                    if let Some(beta) = self.number(&format!("rope.scaling.yarn_{name}")) {
                        scaling[name] = json!(beta);
                    }
                }
                scaling
            }
            (Some(kind), _) => {
                let shown: String = kind.chars().take(64).collect();
                self.problem(format!("{key} {shown:?} is not supported"));
                return;
            }
        };
        self.put("rope_scaling", scaling);
    }

    /// As below, if there is a factor for each pair of a head.
    fn llama3_scaling(&self, base: f64, factors: &[f32]) -> Option<Value> {
        let head_dim = self.config.get("head_dim").and_then(Value::as_u64);
        let fits = head_dim == Some(2 * factors.len() as u64);
        fits.then(|| llama3_scaling(base, factors)).flatten()
    }
}

/// The settings of Llama 3's scaling that yield these factors on the wave lengths, if any do.
///
/// A GGUF file has the factors alone. Of the settings every known model has the same, but for the
/// largest factor (`convert_hf_to_gguf.py` of llama.cpp has the formula).
fn llama3_scaling(base: f64, factors: &[f32]) -> Option<Value> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL: f64 = 8192.0;
    let largest = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |index: usize| {
        let exponent = index as f64 / factors.len() as f64;
        let wave_length = std::f64::consts::TAU * base.powf(exponent);
        if wave_length < ORIGINAL / HIGH {
            return 1.0;
        }
        if wave_length > ORIGINAL / LOW {
            return largest;
        }
        let smooth = (ORIGINAL / wave_length - LOW) / (HIGH - LOW);
        1.0 / ((1.0 - smooth) / largest + smooth)
    };
    let agrees = |(index, &factor): (usize, &f32)| {
        let expected = expected(index);
        (f64::from(factor) - expected).abs() <= 1e-3 * expected
    };
    factors.iter().enumerate().all(agrees).then(|| {
        json!({
            "rope_type": "llama3",
            "factor": largest,
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL as u64,
        })
    })
}
