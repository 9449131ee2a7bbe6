//! Grammars are followed and budgets of reasoning kept, alone and among others, after preemptions and
//! failed steps; a grammar that fails ends its own sequence only.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers as well"
)]

mod common;

use std::sync::Arc;

use backstop_sched::{PromptLookup, Speculation};
use backstop_text::constraint::{Opening, ReasoningBudget};
use backstop_text::{Tokenizer, chat_format};
use backstop_types::Executor;
use common::{Drive, Driven, Flaky, Loaded, Request, cpu_executor, drive, drive_with, grammars};
use common::{load, repository};

/// Of the shortest answers.
const LENGTH: u32 = 12;

fn roomy() -> Drive {
    Drive {
        block_size: 16,
        blocks: 256,
        max_num_seqs: 40,
        max_num_batched_tokens: 256,
        enable_prefix_caching: true,
        num_threads: 2,
        speculation: None,
    }
}

fn requests(loaded: &Loaded) -> Vec<Request> {
    grammars::requests(common::vocabulary(loaded), 36, LENGTH)
}

/// Each request alone.
fn alone(loaded: &Loaded, requests: &[Request]) -> Driven {
    let waves: Vec<Vec<Request>> = requests.iter().map(|one| vec![one.clone()]).collect();
    drive(loaded, &roomy(), &waves)
}

fn assert_same(expected: &Driven, found: &Driven) {
    for index in 0..expected.tokens.len() {
        assert_eq!(expected.ids(index), found.ids(index), "answer {index}");
        assert_eq!(expected.ends[index], found.ends[index], "answer {index}");
    }
}

#[test]
fn grammars_are_followed_alone_and_among_others() {
    let loaded = load(&repository("models/demo"));
    let requests = requests(&loaded);
    let expected = alone(&loaded, &requests);
    grammars::check(&requests, LENGTH, &expected);
    assert_same(&expected, &drive(&loaded, &roomy(), &[requests]));
}

#[test]
fn grammars_are_followed_after_preemptions() {
    let loaded = load(&repository("models/demo"));
    let requests = requests(&loaded);
    let settings = Drive {
        block_size: 2,
        blocks: 40,
        enable_prefix_caching: false,
        ..roomy()
    };
    let found = drive(&loaded, &settings, std::slice::from_ref(&requests));
    assert!(found.preemptions >= 5, "{} preemptions", found.preemptions);
    assert_same(&alone(&loaded, &requests), &found);
}

#[test]
fn grammars_are_followed_after_failed_steps() {
    let loaded = load(&repository("models/demo"));
    let requests = requests(&loaded);
    let mut executor = cpu_executor(&loaded, &roomy());
    let spec = executor.kv_spec().clone();
    let mut flaky = Flaky::new(&mut executor, 4);
    let found = drive_with(&mut flaky, &spec, &roomy(), std::slice::from_ref(&requests));
    assert_same(&alone(&loaded, &requests), &found);
}

/// Requests whose answers begin within reasoning; two in three have a budget of a few tokens.
fn reasoning_requests(loaded: &Loaded) -> Vec<Request> {
    let tokenizer = repository("models/demo/tokenizer.json");
    let tokenizer = Arc::new(Tokenizer::from_file(tokenizer).unwrap());
    let mut requests = grammars::requests(common::vocabulary(loaded), 24, LENGTH);
    for (index, request) in requests.iter_mut().enumerate() {
        let budget = ReasoningBudget {
            tokens: index as u32 % 6,
            tokenizer: Arc::clone(&tokenizer),
            format: chat_format("cohere_cmd4").unwrap(),
            opening: Opening::Reasoning,
            grammar: None,
        };
        let constraint = budget.into_constraint();
        request.sampling.constraint = constraint.filter(|_| index % 3 < 2);
        request.stop_token_ids.clear();
    }
    requests
}

#[test]
fn budgets_of_reasoning_are_kept_alone_among_guesses_and_after_preemptions_and_failed_steps() {
    let loaded = load(&repository("models/demo"));
    let requests = reasoning_requests(&loaded);
    let expected = alone(&loaded, &requests);
    let tokenizer = Tokenizer::from_file(repository("models/demo/tokenizer.json")).unwrap();
    let end = tokenizer.token_to_id("<|END_THINKING|>").unwrap();
    for (index, request) in requests.iter().enumerate() {
        if request.sampling.constraint.is_some() {
            let ids = expected.ids(index);
            let found = ids.iter().position(|id| *id == end).unwrap();
            assert!(found <= index % 6, "answer {index}: {ids:?}");
        }
    }
    assert_same(
        &expected,
        &drive(&loaded, &roomy(), std::slice::from_ref(&requests)),
    );

    let settings = Drive {
        block_size: 2,
        blocks: 40,
        enable_prefix_caching: false,
        ..roomy()
    };
    let found = drive(&loaded, &settings, std::slice::from_ref(&requests));
    assert!(found.preemptions >= 5, "{} preemptions", found.preemptions);
    assert_same(&expected, &found);

    let guessing = Drive {
        speculation: Some(Speculation::PromptLookup(PromptLookup {
            max_draft_tokens: 3,
            min_ngram: 1,
            max_ngram: 3,
        })),
        ..roomy()
    };
    let found = drive(&loaded, &guessing, std::slice::from_ref(&requests));
    assert!(found.guessed.0 > 0);
    assert_same(&expected, &found);

    let mut executor = cpu_executor(&loaded, &roomy());
    let spec = executor.kv_spec().clone();
    let mut flaky = Flaky::new(&mut executor, 4);
    let found = drive_with(&mut flaky, &spec, &roomy(), std::slice::from_ref(&requests));
    assert_same(&expected, &found);
}
