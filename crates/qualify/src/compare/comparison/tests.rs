//! A planted regression is found with the right sign, and between two copies there is none.

use serde_json::json;

use super::*;
use crate::compare::fixtures::{Planned, results};
use crate::random::Random;

fn names() -> [String; 2] {
    ["primary".into(), "fallback".into()]
}

/// 200 tasks, of which the first gets three in four right, and the second one in two.
fn regression() -> [Results; 2] {
    let mut random = Random::new(7);
    let plan: Vec<[f64; 2]> = (0..200)
        .map(|_| {
            let luck = random.below(100);
            [f64::from(luck < 75), f64::from(luck < 50)]
        })
        .collect();
    [0, 1].map(|side| {
        results(plan.iter().enumerate().map(|(task, scores)| Planned {
            task: format!("task/{task}"),
            score: scores[side],
            ..Planned::default()
        }))
    })
}

#[test]
fn a_planted_regression_has_the_right_sign_and_an_interval_without_zero() {
    let [a, b] = regression();
    let found = Comparison::of(names(), &[a, b], 0).unwrap();
    let overall = &found.overall;
    assert!((-0.35..-0.15).contains(&overall.difference), "{overall:?}");
    assert!(overall.interval.high < 0.0);
    assert!(overall.mcnemar.unwrap().exact_p < 1e-6);
    assert_eq!(overall.table.unwrap().only_b, 0);
    assert!(
        overall.sentence.contains("fallback is"),
        "{}",
        overall.sentence
    );
    assert!(
        overall
            .sentence
            .contains("points worse than primary (95 % interval:")
    );
    assert_eq!(
        found.suites[0].discordant.len() as u64,
        overall.table.unwrap().only_a
    );
    // The other way round it is better by as much.
    let [a, b] = regression();
    let turned = Comparison::of(names(), &[b, a], 0).unwrap();
    assert_eq!(turned.overall.difference, -overall.difference);
    assert!(turned.overall.interval.low > 0.0);
    assert!(turned.overall.sentence.contains("better than primary"));
}

#[test]
fn between_two_copies_there_is_no_difference() {
    let [a, _] = regression();
    let [copy, _] = regression();
    let found = Comparison::of(names(), &[a, copy], 0).unwrap();
    let overall = &found.overall;
    assert_eq!(overall.difference, 0.0);
    assert!(overall.interval.low < 0.0 && overall.interval.high > 0.0);
    assert_eq!(overall.mcnemar.unwrap().exact_p, 1.0);
    assert!(
        overall
            .sentence
            .contains("no difference between primary and fallback was found")
    );
    assert_eq!(found.suites[0].identical, 200);
    assert!(found.suites[0].discordant.is_empty());
}

#[test]
fn scores_between_right_and_wrong_are_resampled_by_task() {
    let side = |shift: f64| {
        results((0..60).flat_map(move |task| {
            (0..4).map(move |sample| Planned {
                task: format!("task/{task}"),
                sample,
                score: f64::from(task % 5) / 5.0 + shift * f64::from(sample % 2),
                ..Planned::default()
            })
        }))
    };
    let found = Comparison::of(names(), &[side(0.2), side(0.0)], 1).unwrap();
    let overall = &found.overall;
    assert_eq!((overall.tasks, found.suites[0].pairs), (60, 240));
    assert!((overall.difference + 0.1).abs() < 1e-12);
    assert!(overall.table.is_none() && overall.mcnemar.is_none());
    assert!(overall.interval.method.contains("bootstrap"));
    let measures = found.measures();
    assert_eq!(measures[1].suite, "compare/work");
    assert_eq!((measures[1].samples, measures[1].count), (4, 60));
}

#[test]
fn only_pairs_count_and_what_is_left_out_is_told() {
    let planned = |task: &str, outcome| Planned {
        task: task.into(),
        outcome: Some(outcome),
        score: f64::from(outcome == Outcome::Passed),
        ..Planned::default()
    };
    let a = results([planned("1", Outcome::Passed), planned("2", Outcome::Passed)]);
    let b = results([
        planned("2", Outcome::NoAnswer),
        planned("3", Outcome::Passed),
    ]);
    let found = Comparison::of(names(), &[a, b], 0).unwrap();
    assert_eq!(found.overall.tasks, 1);
    assert_eq!(found.overall.scores, [1.0, 0.0]);
    assert_eq!(found.suites[0].unpaired, [1, 1]);
    assert_eq!(found.suites[0].identical, 0);
    assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("fallback gave no answer 1 times"))
    );
}

#[test]
fn settings_that_differ_are_named() {
    let planned = || Planned {
        task: "1".into(),
        ..Planned::default()
    };
    let [mut a, mut b] = [results([planned()]), results([planned()])];
    a.run
        .settings
        .insert("work".into(), json!({"samples": 1, "temperature": 0}));
    b.run.settings.insert(
        "work".into(),
        json!({"samples": 1, "temperature": 1, "omit": ["seed"]}),
    );
    let found = Comparison::of(names(), &[a, b], 0).unwrap();
    let note = "work: the two were run with different settings: omit, temperature.";
    assert_eq!(found.notes, [note]);
}

#[test]
fn other_questions_are_no_pair() {
    let asked = |content: &str, answer: &str, seed: u64| {
        results([Planned {
            task: "1".into(),
            request: Some(json!({"model": answer, "seed": seed, "messages": [
                {"role": "user", "content": content},
                {"role": "assistant", "content": answer},
                {"role": "user", "content": format!("{answer}?")},
            ]})),
            ..Planned::default()
        }])
    };
    // What follows a model's own words is its own affair.
    Comparison::of(names(), &[asked("x", "a", 1), asked("x", "b", 2)], 0).unwrap();
    let error = Comparison::of(names(), &[asked("x", "a", 1), asked("y", "a", 1)], 0).unwrap_err();
    assert!(error.to_string().contains("different words"), "{error}");
    let nothing = results([]);
    let error = Comparison::of(names(), &[nothing, asked("x", "a", 1)], 0).unwrap_err();
    assert!(error.to_string().contains("no task in common"));
}

#[test]
fn a_comparison_is_the_same_each_time_and_survives_its_json() {
    let [a, b] = regression();
    let results = [a, b];
    let one = Comparison::of(names(), &results, 3).unwrap();
    assert_eq!(one, Comparison::of(names(), &results, 3).unwrap());
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), one);
    let page = super::super::page::of(&one);
    assert!(page.contains("fallback against primary") && page.contains("task/"));
    assert!(super::super::table::of(&one).contains("McNemar's exact test"));
}
