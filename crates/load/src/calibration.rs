//! What a server makes of prompts: whether it takes token ids, and how many words are a token.

use backstop_client::{Answer, Limits, ask_encoded};
use serde_json::{Map, json};

use crate::LoadError;
use crate::generator::Target;
use crate::random::text_tokens;
use crate::wire::{Backend, Prompts, Wire, words};
use crate::workload::{Content, Session};

/// Tokens of the prompt that shows whether ids are taken.
const TOKEN_IDS: u32 = 40;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Names of texts that no run has.
const STREAM: u64 = u64::MAX >> 1;

/// What a server makes of prompts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// What made-up prompts are to consist of.
    pub prompts: Prompts,
    /// Tokens of a prompt beside those of its words: a chat's template.
    pub overhead_tokens: Option<f64>,
    /// Whether the server counts tokens at all.
    pub has_usage: bool,
}

/// Asks one request with token ids, where there are such prompts, and else two whose tokens the server counts: of one word,
/// and of all words that prompts are made of.
///
/// # Errors
///
/// If it does not answer them.
pub async fn calibrate(target: &Target, wire: &Wire) -> Result<Calibration, LoadError> {
    if wire.backend == Backend::Completions {
        let answer = ask_token_ids(target, wire).await;
        if answer.is_whole() {
            return Ok(Calibration {
                prompts: Prompts::TokenIds,
                overhead_tokens: answer
                    .usage
                    .map(|usage| usage.prompt_tokens as f64 - f64::from(TOKEN_IDS)),
                has_usage: answer.usage.is_some(),
            });
        }
        // Only what says that the request is wrong can be about token ids.
        if !matches!(answer.status, Some(400 | 415 | 422 | 500 | 501)) {
            return Err(refusal(&answer));
        }
    }
    let words = words();
    let mut counted = [None; 2];
    for (count, tokens) in [1, words.len()].into_iter().zip(&mut counted) {
        let answer = ask_text(target, wire, words[..count].join(" ")).await;
        if !answer.is_whole() {
            return Err(refusal(&answer));
        }
        *tokens = answer.usage.map(|usage| usage.prompt_tokens as f64);
    }
    Ok(of_counts(counted, words.len()))
}

/// From the tokens of one word, which is taken for one, and of `words`.
fn of_counts(counted: [Option<f64>; 2], words: usize) -> Calibration {
    let has_usage = counted[0].is_some();
    if let [Some(one), Some(all)] = counted
        && all > one
    {
        return Calibration {
            prompts: Prompts::Words {
                per_token: (words - 1) as f64 / (all - one),
            },
            overhead_tokens: Some(one - 1.0),
            has_usage,
        };
    }
    Calibration {
        prompts: Prompts::Words { per_token: 1.0 },
        overhead_tokens: None,
        has_usage,
    }
}

async fn ask_token_ids(target: &Target, wire: &Wire) -> Answer {
    let mut body = Map::new();
    if let Some(model) = &wire.model {
        body.insert("model".into(), json!(model));
    }
    body.insert(
        "prompt".into(),
        json!(text_tokens(wire.seed, STREAM, TOKEN_IDS as usize)),
    );
    body.insert("max_tokens".into(), json!(1));
    ask(
        target,
        serde_json::Value::Object(body).to_string().into_bytes(),
    )
    .await
}

async fn ask_text(target: &Target, wire: &Wire, text: String) -> Answer {
    let ending = Wire {
        ignore_eos: false,
        ..wire.clone()
    };
    let session = Session::single(Content::Text(text), 1);
    ask(target, ending.body(&session, 0, &[])).await
}

async fn ask(target: &Target, body: Vec<u8>) -> Answer {
    let limits = Limits {
        patience: target.patience,
        bytes_max: ANSWER_BYTES_MAX,
    };
    ask_encoded(&target.endpoint, &target.path, body, limits).await
}

fn refusal(answer: &Answer) -> LoadError {
    let message = answer
        .failure
        .as_ref()
        .map_or("", |failure| failure.message.as_str());
    LoadError::new(format!(
        "the server does not answer a first short request: {message}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_template_are_told_apart() {
        // 12 tokens of template, one of the first word, 1.25 of each of the others.
        let calibration = of_counts([Some(13.0), Some(263.0)], 201);
        assert_eq!(calibration.prompts, Prompts::Words { per_token: 0.8 });
        assert_eq!(calibration.overhead_tokens, Some(12.0));
        assert!(calibration.has_usage);
    }

    #[test]
    fn without_a_count_a_word_is_a_token() {
        for counted in [[None, None], [Some(5.0), Some(5.0)]] {
            let calibration = of_counts(counted, 300);
            assert_eq!(calibration.prompts, Prompts::Words { per_token: 1.0 });
            assert_eq!(calibration.overhead_tokens, None);
        }
    }
}
