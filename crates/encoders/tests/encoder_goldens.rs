//! Vectors and scores against sentence-transformers and transformers (`scripts/goldens/encoders.py`).

mod common;

use backstop_types::{EncoderInput, EncoderKind};
use common::{cosine, difference, golden_names, numbers, open, read_json, texts, tokens};

/// Greatest difference of a number of a vector; the numbers are about one, normalised ones less.
const VECTOR_TOLERANCE: f32 = 2e-5;
const SCORE_TOLERANCE: f32 = 5e-6;
const COSINE_MIN: f64 = 0.999_999;

#[test]
fn every_golden_is_met() {
    let names = golden_names();
    assert!(names.len() >= 14, "{names:?}");
    for name in names {
        let expected = read_json(&common::golden(&name).join("expected.json"));
        let encoder = open(&name);
        let facts = encoder.facts();
        assert_eq!(
            u64::from(facts.max_tokens),
            expected["max_tokens"],
            "{name}"
        );
        match facts.kind {
            EncoderKind::Embedding { dimensions, .. } => {
                let inputs: Vec<EncoderInput> = texts(&expected["texts"])
                    .iter()
                    .map(|text| encoder.tokens(text, true).unwrap())
                    .collect();
                assert_eq!(tokens(&inputs), expected["tokens"], "{name}");
                let rows = encoder.encode(&inputs).unwrap();
                for (row, expected) in rows.iter().zip(numbers(&expected["vectors"])) {
                    assert_eq!(row.len(), dimensions as usize, "{name}");
                    let difference = difference(row, &expected);
                    assert!(difference < VECTOR_TOLERANCE, "{name}: {difference}");
                    let cosine = cosine(row, &expected);
                    assert!(cosine > COSINE_MIN, "{name}: {cosine}");
                }
            }
            EncoderKind::Relevance => {
                let pairs = expected["pairs"].as_array().unwrap();
                let inputs: Vec<EncoderInput> = pairs
                    .iter()
                    .map(|pair| {
                        let pair = texts(pair);
                        encoder.pair_tokens(&pair[0], &pair[1], true).unwrap()
                    })
                    .collect();
                assert_eq!(tokens(&inputs), expected["tokens"], "{name}");
                let segments: Vec<Option<u32>> =
                    inputs.iter().map(|input| input.second_segment).collect();
                assert_eq!(serde_json::json!(segments), expected["segments"], "{name}");
                let rows = encoder.encode(&inputs).unwrap();
                let expected = &numbers(&serde_json::json!([expected["scores"]]))[0];
                assert!(rows.iter().all(|row| row.len() == 1), "{name}");
                let difference = difference(&rows.concat(), expected);
                assert!(difference < SCORE_TOLERANCE, "{name}: {difference}");
            }
        }
    }
}
