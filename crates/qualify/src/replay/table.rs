//! A replay as a table in the terminal.

use std::fmt::Write;

use super::asking::Ending;
use super::log::told;
use super::summary::{Ratio, Shift, Side, Summary, share};
use crate::compare::{probability, quantile_rows};

/// The whole replay.
pub(crate) fn of(summary: &Summary) -> String {
    let mut text = format!("{}\n\n", summary.sentence);
    // Writing to a string does not fail.
    for row in agreement(summary) {
        let _ = writeln!(text, "  {:<34}{:<30}{}", row[0], row[1], row[2]);
    }
    text.push('\n');
    let [a, b] = &summary.names;
    let _ = writeln!(text, "  {:<34}{a:<30}{b}", "");
    for (name, values) in sides(&summary.sides) {
        let _ = writeln!(text, "  {name:<34}{:<30}{}", values[0], values[1]);
    }
    text.push('\n');
    for shift in &summary.shifts {
        let _ = writeln!(text, "  {}", shift_text(shift, &summary.names));
    }
    for ratio in &summary.ratios {
        let _ = writeln!(text, "  {}", ratio_text(ratio, &summary.names));
    }
    if !summary.bad_lines.is_empty() {
        let _ = writeln!(text, "\n! Passed over: {}.", told(&summary.bad_lines));
    }
    text
}

/// What the names of rates stand for.
fn rate_text(name: &str) -> &str {
    match name {
        "same_answer" => "the same answer, to the letter",
        "finish_reason" => "end for the same reason",
        "tool_trigger" => "both call tools, or neither",
        "tool_names" => "the same tools, where both call",
        "tool_arguments" => "and the same arguments",
        "json_keys" => "JSON: the same keys",
        "json_values" => "JSON: the same values",
        other => other,
    }
}

/// Name, how often the two agree, and how often the first agrees with itself.
pub(super) fn agreement(summary: &Summary) -> Vec<[String; 3]> {
    let mut rows: Vec<[String; 3]> = summary
        .agreement
        .iter()
        .map(|rate| {
            let repeated = summary
                .repeated
                .iter()
                .find(|repeated| repeated.name == rate.name);
            let itself = repeated.map(|rate| format!("itself: {}", share(rate)));
            let text = format!("{} of {}", share(rate), rate.of);
            [
                rate_text(&rate.name).to_owned(),
                text,
                itself.unwrap_or_default(),
            ]
        })
        .collect();
    if let Some(mean) = &summary.text_similarity {
        let interval = &mean.interval;
        let itself = summary.repeated_text_similarity.as_ref();
        rows.push([
            "similarity of texts, mean".into(),
            format!(
                "{:.3} ({:.3} to {:.3}) of {}",
                mean.value, interval.low, interval.high, mean.of
            ),
            itself.map_or_else(String::new, |mean| format!("itself: {:.3}", mean.value)),
        ]);
    }
    rows
}

/// What the two are like.
pub(super) fn sides(sides: &[Side; 2]) -> Vec<(String, [String; 2])> {
    let endings = [
        ("answered", Ending::Answered),
        ("refused", Ending::Refused),
        ("failed", Ending::Failed),
    ];
    let mut rows: Vec<(String, [String; 2])> = endings
        .into_iter()
        .map(|(name, ending)| {
            (
                name.to_owned(),
                [0, 1].map(|side| sides[side].count(ending).to_string()),
            )
        })
        .collect();
    let reasons = sides.iter().flat_map(|side| side.finish_reasons.keys());
    for reason in reasons.collect::<std::collections::BTreeSet<_>>() {
        let count = |side: usize| {
            sides[side]
                .finish_reasons
                .get(reason)
                .copied()
                .unwrap_or_default()
        };
        rows.push((
            format!("ended with {reason}"),
            [0, 1].map(|side| count(side).to_string()),
        ));
    }
    let quantiles = sides
        .each_ref()
        .map(|side| [side.characters, side.tokens, side.first_s, side.total_s]);
    let quantiles = quantile_rows(&quantiles);
    rows.extend(quantiles.map(|(name, texts)| (name.to_owned(), texts)));
    rows
}

/// A shift, for people.
pub(super) fn shift_text(shift: &Shift, names: &[String; 2]) -> String {
    let what = match shift.name.as_str() {
        "answered" => "gave an answer",
        "tools_called" => "called tools, where there were some",
        "json_valid" => "gave valid JSON, where it was asked for",
        other => other,
    };
    let [a, b] = names;
    let [share_a, share_b] = shift.shares().map(|share| share * 100.0);
    format!(
        "{what}: {a} {share_a:.1} %, {b} {share_b:.1} %: {:+.1} points ({:+.1} to {:+.1}; McNemar p {})",
        shift.difference * 100.0,
        shift.interval.low * 100.0,
        shift.interval.high * 100.0,
        probability(shift.mcnemar.exact_p)
    )
}

/// A ratio, for people.
pub(super) fn ratio_text(ratio: &Ratio, names: &[String; 2]) -> String {
    let what = match ratio.name.as_str() {
        "characters" => "length of answers",
        "first_s" => "time to the first piece",
        "total_s" => "time to the end",
        other => other,
    };
    let [a, b] = names;
    let interval = ratio.interval.as_ref();
    let interval =
        interval.map(|interval| format!("{:.2} to {:.2}, ", interval.low, interval.high));
    format!(
        "{what}: {b} has {:.2} times that of {a} ({}geometric mean of {})",
        ratio.value,
        interval.unwrap_or_default(),
        ratio.of
    )
}
