//! The vendor's claims beside ours.

use backstop_models::ClaimValue;
use backstop_pages::{Axis, Forest, ForestRow, Markup, Tone, badge, table};

use super::super::model::Report;
use super::{figure, paragraph, percent};
use crate::claims::{ClaimResult, Verdict};

pub(super) fn of(report: &Report) -> Markup {
    if report.claims.is_empty() {
        return paragraph("No manifest with claims was given (--manifest).");
    }
    let mut parts = vec![paragraph(
        "Each number that the vendor publishes, beside our own with its interval of 95 %. What was measured in another way is not compared.",
    )];
    parts.extend(chart(&report.claims));
    let heads = ["claim", "verdict", "vendor", "ours", "why"];
    let (mut sources, mut rows) = (Vec::new(), Vec::new());
    for claim in &report.claims {
        let source = source(claim);
        let number = sources.iter().position(|known| *known == source);
        let number = number.unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        rows.push(row(claim, number + 1));
    }
    let rows = table(&heads, rows);
    parts.push(Markup::raw(format!(
        "<div class=\"claims stacked\">{rows}</div>"
    )));
    parts.push(listed(&sources));
    parts.into_iter().collect()
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Reproduced | Verdict::Higher => Tone::Good,
        Verdict::Lower => Tone::Bad,
        Verdict::NotComparable => Tone::Warning,
        Verdict::NotRun => Tone::Open,
    }
}

/// Those with a measurement; the diamond is what the vendor says.
fn chart(claims: &[ClaimResult]) -> Option<Markup> {
    let row = |claim: &ClaimResult| {
        let measure = claim
            .measured
            .as_ref()
            .filter(|measure| (0.0..=1.0).contains(&measure.value))?;
        let interval = measure.interval.as_ref();
        Some(ForestRow {
            name: claim.claim.name.clone(),
            value: measure.value,
            interval: interval.map(|interval| (interval.low, interval.high)),
            reference: claim.claimed(),
            text: format!("{} · {}", percent(measure.value), claim.verdict.text()),
            tone: Some(tone(claim.verdict)),
        })
    };
    let rows: Vec<ForestRow> = claims.iter().filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let forest = Forest {
        title: "What the vendor says, and what was measured with its interval".to_owned(),
        axis: Axis::linear("of the tasks").percent().between(0.0, 1.0),
        rows,
    };
    let key = "<p class=\"key\"><span>● ours, with its interval</span><span>◇ what the vendor says</span></p>";
    Some(
        [figure(&forest.svg()), Markup::raw(key)]
            .into_iter()
            .collect(),
    )
}

fn row(claim: &ClaimResult, source: usize) -> Vec<Markup> {
    let theirs = match (&claim.claim.value, claim.claimed()) {
        (_, Some(rate)) => percent(rate),
        (ClaimValue::Number(number), None) => number.to_string(),
        (ClaimValue::Text(text), None) => text.clone(),
    };
    let ours = claim
        .measured
        .as_ref()
        .map_or("–".to_owned(), |measure| percent(measure.value));
    let notes: String = claim
        .notes
        .iter()
        .map(|note| format!("<li>{}</li>", Markup::from(note.as_str())))
        .collect();
    let notes = if notes.is_empty() {
        notes
    } else {
        format!("<ul class=\"notes\">{notes}</ul>")
    };
    let why = format!(
        "<div class=\"why\">{} <a href=\"#source-{source}\">[{source}]</a>{notes}</div>",
        Markup::from(format!("{}.", claim.reason))
    );
    vec![
        claim.claim.name.as_str().into(),
        badge(tone(claim.verdict), claim.verdict.text()),
        theirs.into(),
        ours.into(),
        Markup::raw(why),
    ]
}

/// Where a claim is stated, and how the vendor measured.
fn source(claim: &ClaimResult) -> String {
    match &claim.claim.method {
        Some(method) => format!("{}; {method}", claim.claim.source),
        None => claim.claim.source.clone(),
    }
}

fn listed(sources: &[String]) -> Markup {
    let items = sources.iter().enumerate().map(|(number, source)| {
        let (number, source) = (number + 1, Markup::from(source.as_str()));
        format!("<li id=\"source-{number}\">{source}</li>")
    });
    let items: String = items.collect();
    Markup::raw(format!(
        "<p class=\"faint\">Where the vendor says so:</p><ol class=\"faint sources\">{items}</ol>"
    ))
}
