//! Reading rotary position embeddings: `rope_parameters`, as transformers 5 writes it, or
//! `rope_theta` and `rope_scaling`, as transformers 4 did.

use backstop_kernels::backend::{Rope, RopePairing, RopeScaling};
use backstop_weights::StrictFields;
use serde_json::Value;

use crate::config::DecoderShape;

/// What the family says of its embedding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeDefaults {
    /// Elements of a head, or of the part of it that is for positions.
    pub(crate) head_dim: u32,
    pub(crate) pairing: RopePairing,
    pub(crate) theta: f64,
    pub(crate) max_position_embeddings: u32,
}

impl RopeDefaults {
    /// For whole heads, whose halves are paired.
    pub(crate) fn halves(shape: &DecoderShape, theta: f64) -> Self {
        Self {
            head_dim: shape.attention.head_dim,
            pairing: RopePairing::Halves,
            theta,
            max_position_embeddings: shape.max_position_embeddings,
        }
    }
}

/// Reads the embedding of whole heads.
pub(crate) fn read(fields: &mut StrictFields<'_>, defaults: RopeDefaults) -> Rope {
    fields.only("partial_rotary_factor", &Value::from(1.0));
    let theta = fields.optional_f64("rope_theta");
    let newer = fields.optional_object("rope_parameters");
    let older = fields.optional_object("rope_scaling");
    if newer.is_some() && older.is_some() {
        fields.problem("rope_parameters and rope_scaling are both given");
    }
    let mut nested_theta = None;
    let mut scaling = RopeScaling::None;
    if let Some(mut nested) = newer.or(older) {
        nested.only("partial_rotary_factor", &Value::from(1.0));
        nested_theta = nested.optional_f64("rope_theta");
        scaling = read_scaling(&mut nested, defaults.max_position_embeddings);
        // The reference implementation warns of what it does not know of the kind of embedding, and goes on.
        fields.adopt(nested, &[]);
    }
    if let (Some(a), Some(b)) = (theta, nested_theta)
        && (a - b).abs() > 1e-6 * a.abs()
    {
        fields.problem("rope_theta and rope_parameters.rope_theta contradict each other");
    }
    let theta = theta.or(nested_theta).unwrap_or(defaults.theta) as f32;
    if !(theta > 1.0 && theta.is_finite()) {
        fields.problem("rope_theta must be more than 1");
    }
    Rope {
        theta,
        dimensions: defaults.head_dim,
        pairing: defaults.pairing,
        scaling,
    }
}

fn read_scaling(nested: &mut StrictFields<'_>, max_position_embeddings: u32) -> RopeScaling {
    let old_name = nested.optional_string("type");
    let kind = nested.optional_string("rope_type").or(old_name);
    match kind.as_deref() {
        None | Some("default") => {
            // Some writers leave it where nothing is scaled.
            nested.only("factor", &Value::from(1.0));
            RopeScaling::None
        }
        Some("linear") => RopeScaling::Linear {
            factor: positive(nested, "factor", None),
        },
        Some("llama3") => {
            let scaling = RopeScaling::Llama3 {
                factor: positive(nested, "factor", None),
                low_frequency_factor: positive(nested, "low_freq_factor", None),
                high_frequency_factor: positive(nested, "high_freq_factor", None),
                original_positions: original_positions(nested, max_position_embeddings),
            };
            if let RopeScaling::Llama3 {
                low_frequency_factor: low,
                high_frequency_factor: high,
                ..
            } = scaling
                && low >= high
            {
                nested.problem("low_freq_factor must be less than high_freq_factor");
            }
            scaling
        }
        Some("yarn") => read_yarn(nested, max_position_embeddings),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            nested.problem(format!(
                "rope_type {other:?} is not supported; supported are default, linear, llama3, yarn"
            ));
            RopeScaling::None
        }
    }
}

fn read_yarn(nested: &mut StrictFields<'_>, max_position_embeddings: u32) -> RopeScaling {
    let original_positions = original_positions(nested, max_position_embeddings);
    let ratio = f64::from(max_position_embeddings) / f64::from(original_positions);
    let factor = positive(nested, "factor", Some(ratio));
    let magnitudes = ["mscale", "mscale_all_dim"].map(|name| {
        let weight = nested.optional_f64(name);
        weight.filter(|&weight| weight != 0.0)
    });
    let derived = match magnitudes {
        [Some(weight), Some(of_all)] => {
            yarn_magnitude(factor, weight) / yarn_magnitude(factor, of_all)
        }
        _ => yarn_magnitude(factor, 1.0),
    };
    RopeScaling::Yarn {
        factor,
        beta_fast: positive(nested, "beta_fast", Some(32.0)),
        beta_slow: positive(nested, "beta_slow", Some(1.0)),
        original_positions,
        truncate: nested.optional_bool("truncate").unwrap_or(true),
        magnitude: positive(nested, "attention_factor", Some(derived)),
    }
}

/// What else DeepSeek's models do to scores where YaRN stretches their embedding: the square of its
/// magnitude for `mscale_all_dim`.
pub(crate) fn yarn_score_factor(fields: &mut StrictFields<'_>, rope: &Rope) -> f32 {
    let RopeScaling::Yarn { factor, .. } = rope.scaling else {
        return 1.0;
    };
    let nested = ["rope_parameters", "rope_scaling"]
        .iter()
        .find_map(|name| fields.value(name));
    let weight = nested.and_then(|nested| nested.get("mscale_all_dim")?.as_f64());
    let magnitude = weight.map_or(1.0, |weight| yarn_magnitude(factor, weight));
    (magnitude * magnitude) as f32
}

/// What stretching by `factor` should do to the softmax's temperature (Peng et al. 2023, 3.4).
fn yarn_magnitude(factor: f32, weight: f64) -> f64 {
    if factor <= 1.0 {
        return 1.0;
    }
    0.1 * weight * f64::from(factor).ln() + 1.0
}

fn original_positions(nested: &mut StrictFields<'_>, max_position_embeddings: u32) -> f32 {
    let default = Some(f64::from(max_position_embeddings));
    positive(nested, "original_max_position_embeddings", default)
}

/// A positive number, required unless there is a default.
fn positive(nested: &mut StrictFields<'_>, name: &str, default: Option<f64>) -> f32 {
    let value = match default {
        None => nested.f64(name),
        Some(default) => nested.optional_f64(name).unwrap_or(default),
    } as f32;
    if !(value > 0.0 && value.is_finite()) {
        nested.problem(format!("{name} must be positive"));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_from(config: &Value) -> Result<Rope, Vec<String>> {
        let object = config.as_object().expect("an object");
        let mut fields = StrictFields::new("config.json", object);
        let rope = read(
            &mut fields,
            RopeDefaults {
                head_dim: 64,
                pairing: RopePairing::Halves,
                theta: 1e4,
                max_position_embeddings: 131_072,
            },
        );
        fields.finish(&[]).map(|()| rope)
    }

    #[test]
    fn the_older_and_the_newer_spelling_say_the_same() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let older = json!({"rope_theta": 5e5, "rope_scaling": scaling});
        let mut newer = scaling;
        newer["rope_theta"] = json!(5e5);
        let newer = json!({"rope_parameters": newer});
        let rope = read_from(&newer).expect("understood");
        assert_eq!(rope.theta, 5e5);
        assert!(matches!(rope.scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
        assert_eq!(read_from(&older).expect("understood"), rope);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (config, named) in [
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
                "\"dynamic\"",
            ),
            (
                json!({"rope_scaling": {"rope_type": "longrope"}}),
                "\"longrope\"",
            ),
            (
                json!({"rope_scaling": {"type": "linear"}}),
                "factor is missing",
            ),
            (
                json!({"rope_scaling": {"type": "linear", "factor": 0.0}}),
                "factor must be",
            ),
            (
                json!({"partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
            ),
            (json!({"rope_theta": 0.5}), "rope_theta must be"),
            (
                json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}),
                "contradict",
            ),
            (
                json!({"rope_parameters": {}, "rope_scaling": {}}),
                "both given",
            ),
        ] {
            let problems = read_from(&config).expect_err("refused");
            assert!(
                problems.iter().any(|problem| problem.contains(named)),
                "{config}: {problems:?}"
            );
        }
    }
}
