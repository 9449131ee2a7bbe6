//! A comparison as a table in the terminal.

use std::fmt::Write;

use super::comparison::{Comparison, Difference, Quantiles, SuiteComparison};
use crate::record::Outcome;

/// Tasks of each suite that are named; the JSON has more.
const TASKS_MAX: usize = 10;

/// The whole comparison.
pub(crate) fn of(comparison: &Comparison) -> String {
    let mut text = format!("{}\n", comparison.overall.sentence);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", significance(&comparison.overall));
    let [a, b] = &comparison.names;
    for suite in &comparison.suites {
        let _ = writeln!(text, "\n{}\n  {}", suite.suite, suite.difference.sentence);
        let _ = writeln!(text, "  {}", significance(&suite.difference));
        let _ = writeln!(text, "  {:<28}{:>14}{:>14}", "", shortened(a), shortened(b));
        for (name, values) in rows(suite) {
            let _ = writeln!(text, "  {name:<28}{:>14}{:>14}", values[0], values[1]);
        }
        let _ = writeln!(
            text,
            "  the same answer in {} of {} pairs",
            suite.identical, suite.pairs
        );
        for task in suite.discordant.iter().take(TASKS_MAX) {
            let [a, b] = task.scores;
            let _ = writeln!(text, "  {a:.2} → {b:.2}  {}", task.task);
        }
        let more =
            suite.discordant.len().saturating_sub(TASKS_MAX) as u64 + suite.discordant_left_out;
        if more > 0 {
            let _ = writeln!(text, "  and {more} further tasks in which they differ");
        }
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "\n! {note}");
    }
    text
}

/// What stands behind the sentence.
pub(super) fn significance(difference: &Difference) -> String {
    let method = &difference.interval.method;
    match (&difference.table, &difference.mcnemar) {
        (Some(table), Some(test)) => format!(
            "Right in one alone: {} and {} tasks; McNemar's exact test p {}, mid-p {}; interval: {method}.",
            table.only_a,
            table.only_b,
            probability(test.exact_p),
            probability(test.mid_p)
        ),
        _ => format!("Interval: {method}."),
    }
}

/// What stands behind the letter p.
pub(crate) fn probability(p: f64) -> String {
    if p < 0.0001 {
        "< 0.0001".into()
    } else {
        format!("= {p:.4}")
    }
}

/// What the two are like beside being right.
pub(super) fn rows(suite: &SuiteComparison) -> Vec<(&'static str, [String; 2])> {
    let sides = &suite.sides;
    let outcomes = [
        ("passed", Outcome::Passed),
        ("failed", Outcome::Failed),
        ("refused", Outcome::Refused),
        ("cut off at the longest length", Outcome::Truncated),
        ("no answer", Outcome::NoAnswer),
    ];
    let mut rows: Vec<(&'static str, [String; 2])> = outcomes
        .into_iter()
        .map(|(name, outcome)| {
            (
                name,
                [0, 1].map(|side| sides[side].count(outcome).to_string()),
            )
        })
        .collect();
    let quantiles = sides
        .each_ref()
        .map(|side| [side.characters, side.tokens, side.first_s, side.total_s]);
    rows.extend(quantile_rows(&quantiles));
    rows
}

/// What is told of lengths and times, beside what `quantile_rows` is given of them: units, and digits behind the point.
const QUANTILES: [(&str, &str, usize); 4] = [
    ("characters p50, p90", "", 0),
    ("tokens p50, p90", "", 0),
    ("first piece p50, p90", " s", 2),
    ("whole answer p50, p90", " s", 2),
];

/// Rows of characters, tokens, and the times of the first piece and of the whole answer, as far as one of the two has them.
pub(crate) fn quantile_rows(
    sides: &[[Option<Quantiles>; 4]; 2],
) -> impl Iterator<Item = (&'static str, [String; 2])> {
    QUANTILES
        .iter()
        .enumerate()
        .map(|(number, told)| (told, sides.map(|side| side[number])))
        .filter(|(_, of)| *of != [None, None])
        .map(|((name, unit, digits), of)| {
            let text = |of: Option<Quantiles>| of.map_or("–".into(), |of| of.text(unit, *digits));
            (*name, of.map(text))
        })
}

fn shortened(name: &str) -> String {
    name.chars().take(13).collect()
}
