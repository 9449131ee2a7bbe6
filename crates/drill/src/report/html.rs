//! The report as one page that needs nothing else.

use std::fmt::Write;

use super::watch::Watch;
use super::{Report, chart, date};
use crate::advice::Advice;
use crate::statistics::{Quantiles, Summary};
use crate::verdict::{Outcome, Verdict};

const STYLE: &str = include_str!("report.css");

/// All of a drill.
pub(super) fn drill(report: &Report) -> String {
    let body = [
        heading(report),
        overview(&report.failures),
        advice(&report.advice),
        report.failures.iter().map(failure).collect(),
        subject(report),
    ];
    page(
        &format!("Blackout drill: {}", report.verdict.text()),
        &body.concat(),
    )
}

/// What came of looking on.
pub(super) fn watch(watch: &Watch) -> String {
    let body = format!(
        "<header><h1>Looking on <span class=\"verdict {0}\">{1}</span></h1><p>{2} with the model <b>{3}</b>, {4}, {5:.0} s</p></header>\
         <section><div class=\"wide\">{6}</div>{LEGEND}{7}</section>",
        mark(watch.verdict),
        watch.verdict.text(),
        escape(&watch.gateway),
        escape(&watch.model),
        date(watch.began_unix_s),
        watch.took_s,
        chart::svg(&watch.records, None),
        phases(&[("all", &watch.summary)])
    );
    page("Looking on at a gateway", &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )
}

fn heading(report: &Report) -> String {
    let failures = &report.failures;
    let sum = |of: fn(&Summary) -> usize| -> usize {
        let phases = failures
            .iter()
            .flat_map(|failure| [&failure.before, &failure.during, &failure.after]);
        phases.map(of).sum()
    };
    let longest = failures
        .iter()
        .filter_map(|failure| failure.during.fallback_first_token_s);
    let longest = longest.map(|waits| waits.max).reduce(f64::max);
    let mixed = sum(|phase| phase.twice + phase.foreign + phase.restarted);
    let tiles = [
        (
            "failures passed",
            format!("{} of {}", report.count(Verdict::Passed), failures.len()),
        ),
        (
            "requests lost",
            format!(
                "{} of {}",
                sum(|phase| phase.lost),
                sum(|phase| phase.requests)
            ),
        ),
        ("answers doubled or mixed", mixed.to_string()),
        (
            "longest wait for the fallback's first token",
            longest.map_or("–".into(), seconds),
        ),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(name, value)| format!("<div><dd>{value}</dd><dt>{name}</dt></div>"))
        .collect();
    format!(
        "<header><h1>Blackout drill <span class=\"verdict {0}\">{1}</span></h1>\
         <p>{2} with the model <b>{3}</b>, {4}, {5:.0} s</p><dl class=\"tiles\">{tiles}</dl></header>",
        mark(report.verdict),
        report.verdict.text(),
        escape(&report.subject.gateway),
        escape(&report.subject.model),
        date(report.began_unix_s),
        report.took_s
    )
}

/// One line for each failure.
fn overview(failures: &[Outcome]) -> String {
    let rows: String = failures
        .iter()
        .map(|outcome| {
            format!(
                "<tr><td><a href=\"#{0}\">{0}</a></td><td><span class=\"verdict {1}\">{2}</span></td><td>{3}</td>\
                 <td>{4}</td><td>{5}</td></tr>",
                outcome.name,
                mark(outcome.verdict),
                outcome.verdict.text(),
                format_args!("{} of {}", outcome.during.lost, outcome.during.requests),
                outcome.during.fallback_first_token_s.map_or("–".into(), |waits| seconds(waits.max)),
                outcome.rehearsal.recovery_s.map_or("–".into(), seconds)
            )
        })
        .collect();
    format!(
        "<section><h2>Failures</h2><div class=\"wide\"><table><thead><tr><th>failure</th><th>verdict</th><th>lost</th>\
         <th>first token, longest</th><th>primary back after</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn advice(advice: &[Advice]) -> String {
    if advice.is_empty() {
        return String::new();
    }
    let items: String = advice
        .iter()
        .map(|advice| {
            let now = advice.now.as_deref().map(|now| format!("<p class=\"now\">Now: <code>{}</code></p>", escape(now)));
            let names: Vec<String> =
                advice.failures.iter().map(|name| format!("<a href=\"#{name}\">{name}</a>")).collect();
            format!(
                "<li><h3><code>{}</code></h3>{}<p><b>LiteLLM:</b> {}</p><p><b>Any gateway:</b> {}</p><p class=\"now\">Shown by {}</p></li>",
                advice.setting,
                now.unwrap_or_default(),
                code(&escape(advice.litellm)),
                code(&escape(advice.any_gateway)),
                names.join(", ")
            )
        })
        .collect();
    format!("<section><h2>What to change</h2><ul class=\"advice\">{items}</ul></section>")
}

fn failure(outcome: &Outcome) -> String {
    let reasons: String = outcome
        .reasons
        .iter()
        .map(|reason| format!("<li>{}</li>", escape(reason)))
        .collect();
    let rehearsal = &outcome.rehearsal;
    format!(
        "<section id=\"{0}\"><h2>{0} <span class=\"verdict {1}\">{2}</span></h2><p>The primary: {3}. Expected: {4}.</p>\
         <ul class=\"reasons\">{reasons}</ul><div class=\"wide\">{5}</div>{LEGEND}{6}</section>",
        outcome.name,
        mark(outcome.verdict),
        outcome.verdict.text(),
        escape(outcome.what),
        outcome.expected,
        chart::svg(
            &rehearsal.records,
            Some((rehearsal.fails_from_s, rehearsal.fails_to_s))
        ),
        phases(&[
            ("before", &outcome.before),
            ("during", &outcome.during),
            ("after", &outcome.after)
        ])
    )
}

fn phases(phases: &[(&str, &Summary)]) -> String {
    let rows: String = phases
        .iter()
        .map(|(name, summary)| phase(name, summary))
        .collect();
    format!(
        "<div class=\"wide\"><table><thead><tr><th></th><th>sent</th><th>lost</th><th>primary</th><th>Backstop</th>\
         <th>continued</th><th>other</th><th>p50</th><th>p99</th><th>first token p50</th><th>p99</th></tr></thead>\
         <tbody>{rows}</tbody></table></div>"
    )
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"primary\">primary</span><span class=\"fallback\">Backstop</span>\
                      <span class=\"continued\">begun by the primary, finished by Backstop</span>\
                      <span class=\"lost\">lost or mixed</span><span class=\"fails\">the primary fails</span>\
                      <span>seconds to the end of an answer, by when it was asked for; circles are streams</span></p>";

fn phase(name: &str, summary: &Summary) -> String {
    let quantile = |quantiles: Option<Quantiles>, of: fn(Quantiles) -> f64| {
        quantiles.map_or("–".into(), |quantiles| seconds(of(quantiles)))
    };
    let cells = [
        summary.requests.to_string(),
        summary.lost.to_string(),
        summary.from_primary.to_string(),
        summary.from_fallback.to_string(),
        summary.continued.to_string(),
        (summary.refused + summary.from_unknown).to_string(),
        quantile(summary.total_s, |of| of.p50),
        quantile(summary.total_s, |of| of.p99),
        quantile(summary.first_token_s, |of| of.p50),
        quantile(summary.first_token_s, |of| of.p99),
    ];
    let cells: String = cells
        .iter()
        .map(|cell| format!("<td>{cell}</td>"))
        .collect();
    format!("<tr><th>{name}</th>{cells}</tr>")
}

/// What was drilled, and how.
fn subject(report: &Report) -> String {
    let mut rows = String::new();
    // Writing to a string does not fail.
    let mut row = |name: &str, value: &str| {
        let _ = write!(
            rows,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(value)
        );
    };
    let pace = &report.pace;
    row("program", report.program);
    row("requests a second", &pace.requests_per_second.to_string());
    row("tokens of an answer, at most", &pace.max_tokens.to_string());
    row(
        "a client waits for the end",
        &seconds(pace.patience.as_secs_f64()),
    );
    row(
        "a client may wait for the first token",
        &seconds(report.first_token_limit_s),
    );
    match &report.fallback {
        Some(identity) => {
            row(
                "Backstop's model",
                identity.model.as_deref().unwrap_or("it does not say"),
            );
            row(
                "Backstop's fingerprint",
                identity.fingerprint.as_deref().unwrap_or("it does not say"),
            );
        }
        None => row("Backstop", "known by its header alone"),
    }
    if let Some(parties) = &report.subject.parties {
        row("primary", &parties.primary);
        row("taken by the blackout too", &parties.others.join(", "));
        row("fallback", &parties.fallback);
        row(
            "left out of the configuration",
            &parties.left_out.join(", "),
        );
    }
    for (name, value) in report
        .subject
        .settings
        .iter()
        .flat_map(|settings| settings.all())
    {
        row(name, &value.to_string());
    }
    format!(
        "<section><h2>Drilled</h2><div class=\"wide\"><table class=\"facts\"><tbody>{rows}</tbody></table></div></section>"
    )
}

/// A name in the style sheet.
fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::NotRehearsed => "open",
    }
}

fn seconds(value: f64) -> String {
    let digits = if value < 0.1 {
        3
    } else if value < 10.0 {
        2
    } else {
        1
    };
    format!("{value:.digits$} s")
}

/// What stands between backticks, in escaped text, as code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(number, part)| {
            if number % 2 == 1 {
                format!("<code>{part}</code>")
            } else {
                part.to_owned()
            }
        })
        .collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
        assert_eq!(code("set `a: 1` now"), "set <code>a: 1</code> now");
        assert_eq!(seconds(0.0456), "0.046 s");
        assert_eq!(seconds(20.04), "20.0 s");
    }
}
