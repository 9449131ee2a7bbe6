use backstop_client::Usage;

use super::*;
use crate::record::Outcome;
use crate::suites::testing::{
    assert_perfect, attempt, attempts, measuring, said, values, with_context,
};

const DEFINITION: &str = include_str!("../../../suites/retrieval.toml");
const LENGTHS: [u64; 3] = [1024, 2048, 4096];

fn suite() -> Retrieval {
    Retrieval::new(0, &LENGTHS, 5, measuring(DEFINITION)).unwrap()
}

/// A server that has 50 tokens of a template, four letters in a token, and digits and capitals by themselves.
fn count(request: &Value) -> u64 {
    let text = request["messages"][0]["content"].as_str().unwrap();
    let dense = text
        .chars()
        .filter(|character| character.is_ascii_digit())
        .count();
    50 + (text.chars().count() - dense).div_ceil(4) as u64 + dense as u64
}

fn counted(request: &Value, text: String) -> Reply {
    Reply {
        usage: Some(Usage {
            prompt_tokens: count(request),
            ..Usage::default()
        }),
        ..said(text)
    }
}

fn wanted(suite: &Retrieval, task: usize) -> Needles {
    let case = &suite.cases[task];
    suite.needles(case, &mut Random::new(case.seed))
}

#[test]
fn texts_are_as_long_as_they_should_be_and_never_longer() {
    let suite = suite();
    let mut counts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    attempts(&suite, |task, request, replies| {
        if replies.len() == 2 {
            let length = suite.cases[task].length;
            assert_eq!(request["max_tokens"], ANSWER_TOKENS);
            counts.entry(length).or_default().push(count(request));
        } else {
            assert_eq!(request["max_tokens"], 1);
        }
        counted(request, "no".into())
    });
    for (length, counts) in counts {
        assert_eq!(counts.len(), 25);
        for count in counts {
            let whole = count + u64::from(ANSWER_TOKENS);
            assert!(whole <= length, "{whole} of {length}");
            assert!(whole as f64 >= 0.88 * length as f64, "{whole} of {length}");
        }
    }
}

#[test]
fn who_finds_everything_has_one_everywhere_and_the_whole_context() {
    let suite = suite();
    let attempts = attempts(&suite, |task, request, replies| {
        let wanted = wanted(&suite, task).wanted;
        let text = if replies.len() == 2 {
            wanted.join(", ")
        } else {
            "x".into()
        };
        counted(request, text)
    });
    assert_perfect(&attempts);
    let measures = suite.measures(&attempts);
    let mut values = values(&measures);
    assert_eq!(values.remove("effective_context_tokens"), Some(4096.0));
    assert_eq!(values.len(), 3 * 6 + 5);
    assert!(values.values().all(|value| *value == 1.0), "{values:?}");
    assert!(measures[0].settings["prompt_tokens_mean"].as_u64().unwrap() > 700);
}

#[test]
fn the_effective_context_ends_before_the_first_length_that_is_not_mastered() {
    let suite = suite();
    let with = |failing: u64| {
        let attempts = attempts(&suite, |task, request, _| {
            let is_lost = suite.cases[task].length == failing;
            let text = if is_lost {
                "I do not know.".into()
            } else {
                wanted(&suite, task).wanted.join(" ")
            };
            counted(request, text)
        });
        values(&suite.measures(&attempts))
    };
    assert_eq!(with(4096)["effective_context_tokens"], 2048.0);
    let middle = with(2048);
    assert_eq!(middle["effective_context_tokens"], 1024.0);
    assert_eq!(
        (middle["accuracy@2048"], middle["accuracy@4096"]),
        (0.0, 1.0)
    );
    assert_eq!(with(1024)["effective_context_tokens"], 0.0);
}

#[test]
fn who_recites_everything_finds_nothing() {
    let suite = suite();
    let attempts = attempts(&suite, |task, request, _| {
        let needles = wanted(&suite, task);
        counted(
            request,
            [needles.wanted, needles.foreign].concat().join("\n"),
        )
    });
    let values = values(&suite.measures(&attempts));
    for (_, kind) in KINDS.iter().skip(1) {
        assert_eq!(values[&format!("{kind}@1024")], 0.0, "{kind}");
    }
}

#[test]
fn answers_in_part_and_numbers_in_groups() {
    let suite = suite();
    let task = suite
        .cases
        .iter()
        .position(|case| case.kind == Kind::MultiValue)
        .unwrap();
    let wanted = wanted(&suite, task).wanted;
    let judged = |text: String| {
        attempt(&suite, task, &mut |request, _| {
            counted(request, text.clone())
        })
    };
    let part = judged(wanted[..3].join(" and "));
    assert_eq!((part.outcome, part.score), (Outcome::Failed, 0.75));
    assert_eq!(part.reason.unwrap(), "3 of 4 found");
    let grouped: Vec<String> = wanted
        .iter()
        .map(|code| format!("**{},{},{}**", &code[..1], &code[1..4], &code[4..]))
        .collect();
    assert_eq!(judged(grouped.join(", ")).score, 1.0);
    assert_eq!(judged(wanted.join(",")).score, 1.0);
    let longer: Vec<String> = wanted.iter().map(|code| format!("{code}0")).collect();
    assert_eq!(judged(longer.join(" ")).score, 0.0);
}

#[test]
fn without_counts_texts_are_guessed_and_it_is_said() {
    let suite = suite();
    let attempt = attempt(&suite, 0, &mut |_, _| said("no"));
    assert_eq!(attempt.marks["calibrated"], false);
    assert!(!attempt.marks.contains_key("prompt_tokens"));
}

#[test]
fn the_context_is_the_servers_and_lengths_double_up_to_it() {
    assert_eq!(lengths(1024, 8192), [1024, 2048, 4096, 8192]);
    assert_eq!(lengths(1024, 5000), [1024, 2048, 4096, 5000]);
    assert_eq!(lengths(1024, 600), [600]);
    with_context(DEFINITION, |definition, context| {
        let lacking = build(definition, context).unwrap();
        assert!(matches!(lacking, Built::Lacking(what) if what.contains("--context")));
        for (served, is_enough) in [(8192, true), (100, false)] {
            let subject = crate::record::Subject {
                entry: Some(json!({"max_model_len": served})),
                ..Default::default()
            };
            let context = Context {
                subject: &subject,
                ..*context
            };
            let built = build(definition, &context).unwrap();
            assert_eq!(matches!(built, Built::Ready(_)), is_enough);
        }
    });
}

#[test]
fn the_same_seed_asks_the_same() {
    let last = |seed| {
        let suite = Retrieval::new(seed, &LENGTHS, 5, measuring(DEFINITION)).unwrap();
        let mut bodies = Vec::new();
        attempt(&suite, 7, &mut |request, _| {
            bodies.push(request.to_string());
            counted(request, "no".into())
        });
        bodies
    };
    assert_eq!(last(0), last(0));
    assert_ne!(last(0)[2], last(1)[2]);
}
