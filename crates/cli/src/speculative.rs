//! `--speculative-config`: vLLM's setting of that name, as far as it is about n-grams.

use backstop_engine::Speculation;
use serde::Deserialize;

/// Tokens that can be guessed at once.
const MAX_DRAFT_TOKENS: u32 = 32;
/// Tokens that can be compared.
const MAX_NGRAM: u32 = 64;
const DEFAULT_MAX_NGRAM: u32 = 4;
const DEFAULT_MIN_NGRAM: u32 = 2;

/// What the setting says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpeculativeConfig {
    method: Method,
    num_speculative_tokens: u32,
    prompt_lookup_max: Option<u32>,
    prompt_lookup_min: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Ngram,
}

impl SpeculativeConfig {
    /// Reads JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The scheduler's form. As in vLLM, one of the lookup lengths alone stands for both.
    pub(crate) fn speculation(&self) -> Result<Speculation, String> {
        let Method::Ngram = self.method;
        let (min_ngram, max_ngram) = match (self.prompt_lookup_min, self.prompt_lookup_max) {
            (Some(min), Some(max)) => (min, max),
            (Some(both), None) | (None, Some(both)) => (both, both),
            (None, None) => (DEFAULT_MIN_NGRAM, DEFAULT_MAX_NGRAM),
        };
        let within = |name: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (least, most) = range.into_inner();
            Err(format!(
                "{name} in --speculative-config must lie between {least} and {most}"
            ))
        };
        let guessed = self.num_speculative_tokens;
        within("num_speculative_tokens", guessed, 1..=MAX_DRAFT_TOKENS)?;
        within("prompt_lookup_max", max_ngram, 1..=MAX_NGRAM)?;
        within("prompt_lookup_min", min_ngram, 1..=max_ngram)?;
        Ok(Speculation {
            max_draft_tokens: guessed,
            min_ngram,
            max_ngram,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Speculation, String> {
        SpeculativeConfig::parse(text).and_then(|config| config.speculation())
    }

    #[test]
    fn lookup_lengths_have_defaults() {
        let lengths = |text: &str| {
            let speculation = read(text).unwrap();
            (speculation.min_ngram, speculation.max_ngram)
        };
        let with =
            |rest: &str| format!(r#"{{"method": "ngram", "num_speculative_tokens": 5{rest}}}"#);
        assert_eq!(lengths(&with("")), (2, 4));
        assert_eq!(lengths(&with(r#", "prompt_lookup_max": 3"#)), (3, 3));
        assert_eq!(lengths(&with(r#", "prompt_lookup_min": 7"#)), (7, 7));
        let both = r#", "prompt_lookup_min": 1, "prompt_lookup_max": 6"#;
        assert_eq!(lengths(&with(both)), (1, 6));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (text, named) in [
            (r#"{"num_speculative_tokens": 5}"#, "method"),
            (
                r#"{"method": "eagle", "num_speculative_tokens": 5}"#,
                "eagle",
            ),
            (r#"{"method": "ngram"}"#, "num_speculative_tokens"),
            (
                r#"{"method": "ngram", "num_speculative_tokens": 0}"#,
                "num_speculative_tokens",
            ),
            (
                r#"{"method": "ngram", "num_speculative_tokens": 33}"#,
                "between 1 and 32",
            ),
            (
                r#"{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 5, "prompt_lookup_max": 4}"#,
                "prompt_lookup_min",
            ),
            (
                r#"{"method": "ngram", "num_speculative_tokens": 3, "model": "x"}"#,
                "model",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
