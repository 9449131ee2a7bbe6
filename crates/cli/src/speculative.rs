//! `--speculative-config`: vLLM's setting of that name, as far as it is about n-grams and EAGLE heads.

use backstop_engine::{PromptLookup, Speculation};
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
    model: Option<String>,
    num_speculative_tokens: u32,
    prompt_lookup_max: Option<u32>,
    prompt_lookup_min: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Ngram,
    Eagle,
}

/// A draft head that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadChoice<'a> {
    /// Its directory, or a name.
    pub(crate) model: &'a str,
    /// Tokens that it guesses at once.
    pub(crate) num_tokens: u32,
}

impl SpeculativeConfig {
    /// Reads JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The scheduler's form.
    pub(crate) fn speculation(&self) -> Result<Speculation, String> {
        let max_draft_tokens = self.num_speculative_tokens;
        within(
            "num_speculative_tokens",
            max_draft_tokens,
            1..=MAX_DRAFT_TOKENS,
        )?;
        match self.method {
            Method::Eagle => {
                self.head()?;
                Ok(Speculation::Proposals { max_draft_tokens })
            }
            Method::Ngram => self.lookup().map(Speculation::PromptLookup),
        }
    }

    /// The draft head, if there is to be one.
    pub(crate) fn head(&self) -> Result<Option<HeadChoice<'_>>, String> {
        if self.method != Method::Eagle {
            return Ok(None);
        }
        if self.prompt_lookup_max.or(self.prompt_lookup_min).is_some() {
            return Err(
                "prompt_lookup_max and prompt_lookup_min in --speculative-config are for the \
                 method ngram"
                    .into(),
            );
        }
        let model = self.model.as_deref();
        let model = model.ok_or("the method eagle in --speculative-config needs a model")?;
        Ok(Some(HeadChoice {
            model,
            num_tokens: self.num_speculative_tokens,
        }))
    }

    /// As in vLLM, one of the lookup lengths alone stands for both.
    fn lookup(&self) -> Result<PromptLookup, String> {
        if self.model.is_some() {
            return Err("model in --speculative-config is for the method eagle".into());
        }
        let (min_ngram, max_ngram) = match (self.prompt_lookup_min, self.prompt_lookup_max) {
            (Some(min), Some(max)) => (min, max),
            (Some(both), None) | (None, Some(both)) => (both, both),
            (None, None) => (DEFAULT_MIN_NGRAM, DEFAULT_MAX_NGRAM),
        };
        within("prompt_lookup_max", max_ngram, 1..=MAX_NGRAM)?;
        within("prompt_lookup_min", min_ngram, 1..=max_ngram)?;
        Ok(PromptLookup {
            max_draft_tokens: self.num_speculative_tokens,
            min_ngram,
            max_ngram,
        })
    }
}

fn within(name: &str, value: u32, range: std::ops::RangeInclusive<u32>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(format!(
        "{name} in --speculative-config must lie between {least} and {most}"
    ))
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
            let Speculation::PromptLookup(lookup) = read(text).unwrap() else {
                panic!("{text} looks up");
            };
            (lookup.min_ngram, lookup.max_ngram)
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
    fn eagle_takes_a_head_and_a_number_of_guesses() {
        let text = r#"{"method": "eagle", "model": "heads/north", "num_speculative_tokens": 3}"#;
        let proposals = Speculation::Proposals {
            max_draft_tokens: 3,
        };
        assert_eq!(read(text), Ok(proposals));
        let config = SpeculativeConfig::parse(text).unwrap();
        let head = HeadChoice {
            model: "heads/north",
            num_tokens: 3,
        };
        assert_eq!(config.head(), Ok(Some(head)));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (text, named) in [
            (r#"{"num_speculative_tokens": 5}"#, "method"),
            (
                r#"{"method": "eagle", "num_speculative_tokens": 5}"#,
                "needs a model",
            ),
            (
                r#"{"method": "eagle", "num_speculative_tokens": 33, "model": "x"}"#,
                "between 1 and 32",
            ),
            (
                r#"{"method": "eagle", "num_speculative_tokens": 5, "model": "x", "prompt_lookup_max": 4}"#,
                "for the method ngram",
            ),
            (
                r#"{"method": "eagle3", "num_speculative_tokens": 5, "model": "x"}"#,
                "eagle3",
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
