//! A comparison as one HTML file.

use backstop_pages::{Axis, Forest, ForestRow, Markup, Tone, badge, facts, section, table, tiles};

use super::comparison::{Comparison, Difference, Discordant, SuiteComparison};
use super::table::{rows, significance};

/// Tasks of each suite that are listed; the JSON has more.
const TASKS_MAX: usize = 200;

/// The whole comparison.
pub(crate) fn of(comparison: &Comparison) -> String {
    let [a, b] = &comparison.names;
    let title = format!("{b} against {a}");
    let mut body = vec![heading(&title, comparison)];
    body.push(section("suites", "By suite", &forest(comparison)));
    for (number, suite) in comparison.suites.iter().enumerate() {
        body.push(suite_section(number, suite, &comparison.names));
    }
    body.push(section(
        "compared",
        "What was compared",
        &subjects(comparison),
    ));
    backstop_pages::page(&title, "", &body.into_iter().collect())
}

fn heading(title: &str, comparison: &Comparison) -> Markup {
    let overall = &comparison.overall;
    let [a, b] = &comparison.names;
    let notes: Markup = comparison
        .notes
        .iter()
        .map(|note| paragraph(note))
        .collect();
    let (tone, verdict) = verdict(overall);
    let tiles = tiles(&[
        (a.as_str(), percent(overall.scores[0])),
        (b.as_str(), percent(overall.scores[1])),
        (
            "difference, points",
            format!("{:+.1}", overall.difference * 100.0),
        ),
        ("tasks", overall.tasks.to_string()),
    ]);
    Markup::raw(format!(
        "<header><h1>{} {}</h1>{}{tiles}{}{notes}</header>",
        Markup::from(title),
        badge(tone, verdict),
        paragraph(&overall.sentence),
        paragraph(&significance(overall)),
    ))
}

fn verdict(difference: &Difference) -> (Tone, &'static str) {
    if difference.interval.high < 0.0 {
        (Tone::Bad, "worse")
    } else if difference.interval.low > 0.0 {
        (Tone::Good, "better")
    } else {
        (Tone::Open, "no difference found")
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

fn paragraph(text: &str) -> Markup {
    Markup::raw(format!("<p>{}</p>", Markup::from(text)))
}

/// The difference in each suite and in all, with its interval; the diamond is no difference.
fn forest(comparison: &Comparison) -> Markup {
    let row = |name: &str, difference: &Difference| {
        let interval = &difference.interval;
        let points = |value: f64| format!("{:+.1}", value * 100.0);
        ForestRow {
            name: name.to_owned(),
            value: difference.difference,
            interval: Some((interval.low, interval.high)),
            reference: Some(0.0),
            text: format!(
                "{} ({} to {})",
                points(difference.difference),
                points(interval.low),
                points(interval.high)
            ),
            tone: Some(verdict(difference).0),
        }
    };
    let suites = comparison.suites.iter();
    let rows = suites.map(|suite| row(&suite.suite, &suite.difference));
    let [a, b] = &comparison.names;
    Forest {
        title: format!("How much better or worse {b} is than {a}, by suite"),
        axis: Axis::linear(format!("score of {b} less that of {a}")).percent(),
        rows: rows
            .chain([row("all tasks", &comparison.overall)])
            .collect(),
    }
    .svg()
}

fn suite_section(number: usize, suite: &SuiteComparison, names: &[String; 2]) -> Markup {
    let [a, b] = names;
    let numbers = table(
        &["", a, b],
        rows(suite).into_iter().map(|(name, values)| {
            vec![
                name.into(),
                values[0].clone().into(),
                values[1].clone().into(),
            ]
        }),
    );
    let same = format!(
        "The same answer in {} of {} pairs.",
        suite.identical, suite.pairs
    );
    let body: Markup = [
        paragraph(&suite.difference.sentence),
        paragraph(&significance(&suite.difference)),
        numbers,
        paragraph(&same),
        discordant(suite, names),
    ]
    .into_iter()
    .collect();
    section(&format!("suite-{number}"), suite.suite.as_str(), &body)
}

/// Tasks in which one did better, those first that the second is worse in.
fn discordant(suite: &SuiteComparison, names: &[String; 2]) -> Markup {
    if suite.discordant.is_empty() {
        return paragraph("There is no task in which one did better than the other.");
    }
    let mut tasks: Vec<&Discordant> = suite.discordant.iter().collect();
    tasks.sort_by(|one, other| one.change().total_cmp(&other.change()));
    let [a, b] = names;
    let rows = tasks.iter().take(TASKS_MAX).map(|task| {
        let [score_a, score_b] = task.scores.map(|score| Markup::from(format!("{score:.2}")));
        let (tone, better) = match task.change() < 0.0 {
            true => (Tone::Bad, a),
            false => (Tone::Good, b),
        };
        let reason = task.reason.as_deref().unwrap_or_default();
        vec![
            task.task.as_str().into(),
            badge(tone, better),
            score_a,
            score_b,
            reason.into(),
        ]
    });
    let listed = table(&["task", "better", a, b, "what the other one lacks"], rows);
    let left_out = tasks.len().saturating_sub(TASKS_MAX) as u64 + suite.discordant_left_out;
    let more = match left_out {
        0 => Markup::default(),
        more => paragraph(&format!("{more} further tasks are in the JSON.")),
    };
    [listed, more].into_iter().collect()
}

fn subjects(comparison: &Comparison) -> Markup {
    let [a, b] = &comparison.names;
    let of = |value: &dyn Fn(usize) -> Option<String>| {
        [0, 1].map(|side| Markup::from(value(side).unwrap_or_else(|| "it does not say".into())))
    };
    let subject = |side: usize| &comparison.subjects[side];
    let rows = [
        ("address", of(&|side| Some(subject(side).url.clone()))),
        ("model", of(&|side| Some(subject(side).model.clone()))),
        (
            "Backstop's model",
            of(&|side| subject(side).backstop_model.clone()),
        ),
        ("fingerprint", of(&|side| subject(side).fingerprint.clone())),
    ];
    let rows = rows.map(|(name, [first, second])| vec![name.into(), first, second]);
    let program = facts([
        ("program".into(), comparison.program.as_str().into()),
        (
            "seed of resampling".into(),
            comparison.seed.to_string().into(),
        ),
    ]);
    [table(&["", a, b], rows), program].into_iter().collect()
}
