//! The report as one page that needs nothing else: what decides comes first, then what it rests on.

mod claims;
mod decision;
mod identity;
mod measures;
mod operation;

use backstop_pages::{Markup, Tone, badge, page, section, tiles};

use super::model::Report;
use super::summary::{Verdict, Weight};
use crate::claims::Verdict as ClaimVerdict;
use crate::conformance::CheckOutcome;

const STYLE: &str = include_str!("report.css");
/// Of a timestamp: its day.
const DAY_CHARACTERS: usize = 10;

/// The whole page.
pub(super) fn of(report: &Report) -> String {
    let parts = [
        ("claims", "What the vendor says", claims::of(report)),
        ("measures", "What was measured", measures::of(report)),
        ("noise", "Asked again", measures::noise(report)),
        ("speed", "Speed under rising load", operation::speed(report)),
        (
            "conformance",
            "Behind a gateway",
            operation::conformance(report),
        ),
        (
            "drill",
            "When the primary is gone",
            operation::drill(report),
        ),
        ("decision", "Decision matrix", decision::of(report)),
        (
            "identity",
            "What exactly was qualified",
            identity::of(report),
        ),
        ("limits", "What this report does not say", limits(report)),
        ("verify", "How to check it", verify(report)),
    ];
    let shown: Vec<_> = parts
        .into_iter()
        .filter(|(.., body)| !body.is_empty())
        .collect();
    let contents: String = shown
        .iter()
        .map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>"))
        .collect();
    let contents = Markup::raw(format!(
        "<nav class=\"contents\" aria-label=\"Contents\">{contents}</nav>"
    ));
    let sections = shown
        .iter()
        .map(|(id, title, body)| section(id, *title, body));
    let body: Markup = [header(report), contents]
        .into_iter()
        .chain(sections)
        .collect();
    let title = format!("Qualification of {}", report.identity.subject.model);
    page(&title, STYLE, &body)
}

fn header(report: &Report) -> Markup {
    let subject = &report.identity.subject;
    let verdict = report.summary.verdict;
    let tone = match verdict {
        Verdict::AsClaimed => Tone::Good,
        Verdict::OpenPoints => Tone::Warning,
        Verdict::FallsShort => Tone::Bad,
    };
    let findings: String = report
        .summary
        .findings
        .iter()
        .map(|finding| {
            let (mark, class, said) = match finding.weight {
                Weight::Good => ("✓", "good", "in order"),
                Weight::Bad => ("✗", "bad", "not in order"),
                Weight::Open => ("○", "warning", "open"),
                Weight::Neutral => ("·", "open", "for information"),
            };
            format!(
                "<li><span class=\"mark {class}\" role=\"img\" aria-label=\"{said}\">{mark}</span>\
                 <a href=\"#{}\">{}</a></li>",
                finding.section,
                Markup::from(finding.sentence.as_str())
            )
        })
        .collect();
    let missing = match report.summary.missing.is_empty() {
        true => String::new(),
        false => format!(
            "<p class=\"faint\">Not part of this report: {}.</p>",
            report.summary.missing.join("; ")
        ),
    };
    Markup::raw(format!(
        "<header><h1>Qualification of {} {}</h1>\
         <p>at {}, run {}, reported {}, <b>holds until {}</b></p>{}<p class=\"meaning\"><b>{}</b></p><ul class=\"lead\">{findings}</ul>{missing}</header>",
        Markup::from(subject.model.as_str()),
        badge(tone, verdict.text()),
        Markup::from(subject.url.as_str()),
        day(&report.began),
        day(&report.built),
        day(&report.expires),
        numbers(report),
        verdict.meaning()
    ))
}

/// What people look for first.
fn numbers(report: &Report) -> Markup {
    let mut shown: Vec<(&str, String)> = Vec::new();
    let claims = &report.claims;
    if !claims.is_empty() {
        let met = |verdict| matches!(verdict, ClaimVerdict::Reproduced | ClaimVerdict::Higher);
        let met = claims.iter().filter(|claim| met(claim.verdict)).count();
        shown.push(("claims met", format!("{met} of {}", claims.len())));
    }
    if let Some(conformance) = &report.conformance {
        let passed = conformance.count(CheckOutcome::Passed);
        let tried = passed + conformance.count(CheckOutcome::Failed);
        shown.push(("gateway behaviours seen", format!("{passed} of {tried}")));
    }
    if let Some(drill) = &report.drill {
        let passed = drill.count("passed");
        shown.push((
            "failures of the primary caught",
            format!("{passed} of {}", passed + drill.count("failed")),
        ));
    }
    let best = report.speed.as_ref().and_then(|speed| speed.best());
    if let Some(tokens) = best.and_then(|point| point.output_tokens_per_s) {
        shown.push(("tokens a second, in all", backstop_pages::number(tokens)));
    }
    if let Some(cost) = &report.cost {
        let price = format!(
            "{} {}",
            backstop_pages::number(cost.per_million_output_tokens),
            cost.currency
        );
        shown.push(("a million tokens of answers", price));
    }
    if let Some(tokens) = report.identity.context() {
        shown.push(("tokens of context", tokens.to_string()));
    }
    tiles(&shown)
}

fn limits(report: &Report) -> Markup {
    let items: String = report
        .limits
        .iter()
        .map(|limit| format!("<li>{}</li>", Markup::from(limit.as_str())))
        .collect();
    Markup::raw(format!("<ul>{items}</ul>"))
}

fn verify(report: &Report) -> Markup {
    let text = "This page and its JSON can be signed with `backstop report sign`. Whoever has the envelope and, from the signer, the public \
                key, checks both with `backstop report verify ENVELOPE --key KEY.pub`: who signed, that not a byte was changed, and \
                whether the date of expiry has passed.";
    let rows = report
        .evidence
        .iter()
        .map(|(name, digest)| (name.as_str().into(), digest_markup(digest)));
    Markup::raw(format!(
        "<p>{}</p><details><summary>SHA-256 of the {} files that it was made of</summary>{}</details>\
         <p class=\"faint\">Made by {}.</p>",
        backstop_pages::code(text),
        report.evidence.len(),
        backstop_pages::facts(rows),
        report.program
    ))
}

fn digest_markup(digest: &str) -> Markup {
    Markup::raw(format!(
        "<span class=\"digest\">{}</span>",
        Markup::from(digest)
    ))
}

fn day(timestamp: &str) -> &str {
    timestamp.get(..DAY_CHARACTERS).unwrap_or(timestamp)
}

fn paragraph(text: &str) -> Markup {
    Markup::raw(format!("<p>{}</p>", Markup::from(text)))
}

/// A chart, which scrolls where it is too wide.
fn figure(svg: &Markup) -> Markup {
    Markup::raw(format!("<div class=\"wide\" tabindex=\"0\">{svg}</div>"))
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}
