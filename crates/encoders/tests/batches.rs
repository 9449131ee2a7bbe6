//! What a batch may and may not change, and how much of hostile inputs is worked on.

mod common;

use std::time::{Duration, Instant};

use backstop_types::{EncoderInput, EncoderInputFault};
use common::{Copy, cosine, difference, golden_names, open};

/// Texts of these numbers of tokens; ids are spread over the vocabulary.
fn inputs(lengths: &[u32], vocabulary: u32) -> Vec<EncoderInput> {
    let token = |length: u32, at: u32| 5 + (length * 31 + at * 17) % (vocabulary - 5);
    lengths
        .iter()
        .map(|&length| EncoderInput {
            tokens: (0..length).map(|at| token(length, at)).collect(),
            second_segment: None,
        })
        .collect()
}

#[test]
fn a_text_has_the_same_vector_alone_and_among_others() {
    for name in golden_names() {
        let encoder = open(&name);
        let longest = encoder.facts().max_tokens;
        let lengths = [3, longest, 7, 1, longest / 2, 3, 7, 20, longest - 1, 3];
        let inputs = inputs(&lengths, encoder.facts().vocabulary);
        let together = encoder.encode(&inputs).unwrap();
        for (input, among_others) in inputs.iter().zip(&together) {
            let alone = &encoder.encode(std::slice::from_ref(input)).unwrap()[0];
            let difference = difference(alone, among_others);
            assert!(difference < 1e-5, "{name}: {difference}");
            assert!(cosine(alone, among_others) > 0.999_999, "{name}");
        }
        // Texts of one length are computed together, and still are texts of their own.
        assert!(difference(&together[0], &together[5]) < 1e-5, "{name}");
    }
}

#[test]
fn rows_are_in_the_order_of_their_texts() {
    let encoder = open("bert_mean");
    let lengths: Vec<u32> = (0..300).map(|number| 1 + number * 7 % 60).collect();
    let inputs = inputs(&lengths, encoder.facts().vocabulary);
    let rows = encoder.encode(&inputs).unwrap();
    assert_eq!(rows.len(), inputs.len());
    for at in [0, 1, 150, 299] {
        let alone = &encoder.encode(&inputs[at..=at]).unwrap()[0];
        assert!(difference(alone, &rows[at]) < 1e-5, "{at}");
    }
    assert!(encoder.encode(&[]).unwrap().is_empty());
}

#[test]
fn a_text_that_is_too_long_is_refused_or_cut() {
    let encoder = open("bert_mean");
    let text = "fox ".repeat(100);
    assert_eq!(
        encoder.tokens(&text, false),
        Err(EncoderInputFault::TooLong { tokens: Some(102) })
    );
    let cut = encoder.tokens(&text, true).unwrap();
    assert_eq!(cut.tokens.len(), 64);
    assert_eq!(cut.tokens[63], 3);
    let pair = encoder.pair_tokens("fox", &text, true).unwrap();
    assert_eq!(pair.tokens.len(), 64);
    assert_eq!(pair.second_segment, Some(3));
    // A query is never cut.
    let fault = encoder.pair_tokens(&text, "fox", true).unwrap_err();
    assert_eq!(fault, EncoderInputFault::TooLong { tokens: Some(104) });
    let fault = encoder.pair_tokens("fox", &text, false).unwrap_err();
    assert_eq!(fault, EncoderInputFault::TooLong { tokens: Some(104) });
}

#[test]
fn endless_texts_are_not_worked_through() {
    for name in ["bert_mean", "xlm_roberta_plain", "modernbert_cls"] {
        let encoder = open(name);
        for piece in [
            "a", " ", "word ", "日", "e\u{301}", "\u{0}", "[CLS]", "</s>",
        ] {
            let text = piece.repeat((32 << 20) / piece.len());
            let start = Instant::now();
            assert_eq!(
                encoder.tokens(&text, false),
                Err(EncoderInputFault::TooLong { tokens: None }),
                "{name} {piece:?}"
            );
            let cut = encoder.tokens(&text, true).unwrap();
            assert!(cut.tokens.len() <= encoder.facts().max_tokens as usize);
            assert!(start.elapsed() < Duration::from_secs(5), "{name} {piece:?}");
            assert!(encoder.encode(&[cut]).is_ok());
        }
    }
}

#[test]
fn tokens_have_their_text() {
    let encoder = open("bert_mean");
    let input = encoder.tokens("The quick brown fox", false).unwrap();
    assert_eq!(
        encoder.text(&input.tokens),
        "[CLS] the quick brown fox [SEP]"
    );
}

#[test]
fn results_that_are_no_numbers_and_ids_without_vectors_are_errors() {
    let encoder = open("bert_mean");
    let beyond = EncoderInput {
        tokens: vec![encoder.facts().vocabulary],
        second_segment: None,
    };
    assert!(encoder.encode(&[beyond]).is_err());

    let copy = Copy::of("bert_mean", "infinite");
    let path = copy.path("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header_bytes, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let info = metadata
        .info("encoder.layer.1.output.dense.weight")
        .unwrap();
    let (start, end) = info.data_offsets;
    for number in bytes[8 + header_bytes..][start..end].as_chunks_mut::<4>().0 {
        *number = f32::MAX.to_le_bytes();
    }
    std::fs::write(&path, bytes).unwrap();
    let encoder = copy.open().unwrap();
    let input = encoder.tokens("fox", false).unwrap();
    let error = encoder.encode(&[input]).unwrap_err();
    assert!(error.contains("not a finite number"), "{error}");
}
