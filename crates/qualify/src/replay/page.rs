//! A replay as one HTML file. It has no contents of requests or answers.

use backstop_pages::{Axis, Forest, ForestRow, Markup, Tone, facts, section, table, tiles};

use super::asking::Ending;
use super::log::told;
use super::summary::{Summary, share};
use super::table::{agreement, ratio_text, shift_text, sides};

/// The whole replay.
pub(crate) fn of(summary: &Summary) -> String {
    let [a, b] = &summary.names;
    let title = format!("{b} against {a}, on a log");
    let body = [
        heading(&title, summary),
        section(
            "agreement",
            "How far they agree",
            &agreement_markup(summary),
        ),
        section("differences", "What differs", &differences(summary)),
        section("answers", "How each answered", &sides_markup(summary)),
        section("asked", "What was asked", &asked(summary)),
    ];
    backstop_pages::page(&title, "", &body.into_iter().collect())
}

fn heading(title: &str, summary: &Summary) -> Markup {
    let shown = |name: &str| {
        let rate = summary.rate(name);
        rate.map_or("–".into(), |rate| {
            format!("{:.0} %", rate.share() * 100.0)
        })
    };
    let failed: u64 = summary
        .sides
        .iter()
        .map(|side| side.count(Ending::Failed))
        .sum();
    let tiles = tiles(&[
        ("requests", summary.requests.to_string()),
        ("same tools and arguments", shown("tool_arguments")),
        ("same JSON", shown("json_values")),
        ("failed requests", failed.to_string()),
    ]);
    Markup::raw(format!(
        "<header><h1>{}</h1>{}{tiles}</header>",
        Markup::from(title),
        paragraph(&summary.sentence)
    ))
}

fn agreement_markup(summary: &Summary) -> Markup {
    let [a, b] = &summary.names;
    let rows = agreement(summary).into_iter();
    let rows: Vec<Vec<Markup>> = rows.map(|row| row.map(Markup::from).to_vec()).collect();
    let heads = ["", "agree in", "the first, asked twice"];
    let forest = Forest {
        title: format!("How often {b} agrees with {a}; the diamond is {a} asked twice"),
        axis: Axis::linear("agreement").percent().between(0.0, 1.0),
        rows: summary
            .agreement
            .iter()
            .zip(agreement(summary))
            .map(|(rate, row)| {
                let repeated = summary
                    .repeated
                    .iter()
                    .find(|repeated| repeated.name == rate.name);
                let [name, ..] = row;
                ForestRow {
                    name,
                    value: rate.share(),
                    interval: rate
                        .interval
                        .as_ref()
                        .map(|interval| (interval.low, interval.high)),
                    reference: repeated.map(super::summary::Rate::share),
                    text: share(rate),
                    tone: Some(Tone::Open),
                }
            })
            .collect(),
    };
    if rows.is_empty() {
        return paragraph("There is no request that both answered.");
    }
    [forest.svg(), table(&heads, rows)].into_iter().collect()
}

fn differences(summary: &Summary) -> Markup {
    let shifts = summary
        .shifts
        .iter()
        .map(|shift| shift_text(shift, &summary.names));
    let ratios = summary
        .ratios
        .iter()
        .map(|ratio| ratio_text(ratio, &summary.names));
    let items: String = shifts
        .chain(ratios)
        .map(|text| format!("<li>{}</li>", Markup::from(text)))
        .collect();
    Markup::raw(format!("<ul>{items}</ul>"))
}

fn sides_markup(summary: &Summary) -> Markup {
    let [a, b] = &summary.names;
    let rows = sides(&summary.sides);
    table(
        &["", a, b],
        rows.into_iter()
            .map(|(name, [first, second])| vec![name.into(), first.into(), second.into()]),
    )
}

fn asked(summary: &Summary) -> Markup {
    let [a, b] = &summary.names;
    let mut rows: Vec<(Markup, Markup)> = [a, b]
        .into_iter()
        .enumerate()
        .map(|(side, name)| {
            let whom = format!("{} at {}", summary.models[side], summary.urls[side]);
            (name.as_str().into(), whom.into())
        })
        .collect();
    rows.extend(
        summary
            .settings
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.as_str().into(), value.to_string().into())),
    );
    rows.push(("program".into(), summary.program.as_str().into()));
    if !summary.bad_lines.is_empty() {
        rows.push((
            "lines that were passed over".into(),
            told(&summary.bad_lines).into(),
        ));
    }
    facts(rows)
}

fn paragraph(text: &str) -> Markup {
    Markup::raw(format!("<p>{}</p>", Markup::from(text)))
}
