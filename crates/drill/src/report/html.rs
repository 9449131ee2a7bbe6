//! The report as one page that needs nothing else.

use backstop_pages::{Markup, Tone, badge, code, facts, page, seconds, section, table, tiles};

use super::watch::Watch;
use super::{Report, chart, date};
use crate::advice::Advice;
use crate::statistics::{Quantiles, Summary};
use crate::verdict::{Outcome, Verdict};

const STYLE: &str = include_str!("report.css");

/// All of a drill.
pub(super) fn drill(report: &Report) -> String {
    let body: Markup = [
        heading(report),
        overview(&report.failures),
        advice(&report.advice),
        report.failures.iter().map(failure).collect(),
        subject(report),
    ]
    .into_iter()
    .collect();
    page(
        &format!("Blackout drill: {}", report.verdict.text()),
        STYLE,
        &body,
    )
}

/// What came of looking on.
pub(super) fn watch(watch: &Watch) -> String {
    let chart = Markup::raw(format!(
        "<div class=\"wide\" tabindex=\"0\">{}</div>{LEGEND}{}",
        chart::svg(&watch.records, None),
        phases(&[("all", &watch.summary)])
    ));
    let body = [
        header(
            "Looking on",
            watch.verdict,
            [&watch.gateway, &watch.model],
            (watch.began_unix_s, watch.took_s),
        ),
        Markup::raw("</header>"),
        section("answers", "Answers", &chart),
    ];
    page(
        "Looking on at a gateway",
        STYLE,
        &body.into_iter().collect(),
    )
}

/// The opening of a page's head: whom, when, how long.
fn header(
    title: &str,
    verdict: Verdict,
    [gateway, model]: [&str; 2],
    (began_unix_s, took_s): (u64, f64),
) -> Markup {
    Markup::raw(format!(
        "<header><h1>{title} {}</h1><p>{} with the model <b>{}</b>, {}, {took_s:.0} s</p>",
        mark(verdict),
        Markup::from(gateway),
        Markup::from(model),
        date(began_unix_s)
    ))
}

fn heading(report: &Report) -> Markup {
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
    let passed = report.count(Verdict::Passed);
    let (lost, requests) = (sum(|phase| phase.lost), sum(|phase| phase.requests));
    let numbers = tiles(&[
        ("failures passed", format!("{passed} of {}", failures.len())),
        ("requests lost", format!("{lost} of {requests}")),
        ("answers doubled or mixed", mixed.to_string()),
        (
            "longest wait for the fallback's first token",
            longest.map_or("–".into(), seconds),
        ),
    ]);
    let subject = &report.subject;
    [
        header(
            "Blackout drill",
            report.verdict,
            [&subject.gateway, &subject.model],
            (report.began_unix_s, report.took_s),
        ),
        numbers,
        Markup::raw("</header>"),
    ]
    .into_iter()
    .collect()
}

/// One line for each failure.
fn overview(failures: &[Outcome]) -> Markup {
    let rows = failures.iter().map(|outcome| {
        let first = outcome.during.fallback_first_token_s;
        vec![
            link(outcome.name),
            mark(outcome.verdict),
            format!("{} of {}", outcome.during.lost, outcome.during.requests).into(),
            first.map_or("–".into(), |waits| seconds(waits.max)).into(),
            outcome
                .rehearsal
                .recovery_s
                .map_or("–".into(), seconds)
                .into(),
        ]
    });
    let heads = [
        "failure",
        "verdict",
        "lost",
        "first token, longest",
        "primary back after",
    ];
    section("failures", "Failures", &table(&heads, rows))
}

fn link(failure: &str) -> Markup {
    let name = Markup::from(failure);
    Markup::raw(format!("<a href=\"#{name}\">{name}</a>"))
}

fn advice(advice: &[Advice]) -> Markup {
    if advice.is_empty() {
        return Markup::default();
    }
    let items: String = advice
        .iter()
        .map(|advice| {
            let now = advice.now.as_deref().map(|now| {
                format!("<p class=\"now\">Now: <code>{}</code></p>", Markup::from(now))
            });
            let names: Vec<String> =
                advice.failures.iter().map(|name| link(name).to_string()).collect();
            format!(
                "<li><h3><code>{}</code></h3>{}<p><b>LiteLLM:</b> {}</p><p><b>Any gateway:</b> {}</p><p class=\"now\">Shown by {}</p></li>",
                advice.setting,
                now.unwrap_or_default(),
                code(advice.litellm),
                code(advice.any_gateway),
                names.join(", ")
            )
        })
        .collect();
    let list = Markup::raw(format!("<ul class=\"advice\">{items}</ul>"));
    section("advice", "What to change", &list)
}

fn failure(outcome: &Outcome) -> Markup {
    let reasons: String = outcome
        .reasons
        .iter()
        .map(|reason| format!("<li>{}</li>", Markup::from(reason.as_str())))
        .collect();
    let rehearsal = &outcome.rehearsal;
    let body = Markup::raw(format!(
        "<p>The primary: {}. Expected: {}.</p><ul class=\"reasons\">{reasons}</ul>\
         <div class=\"wide\" tabindex=\"0\">{}</div>{LEGEND}{}",
        Markup::from(outcome.what),
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
    ));
    let heading = Markup::raw(format!("{} {}", outcome.name, mark(outcome.verdict)));
    section(outcome.name, heading, &body)
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"primary\">primary</span><span class=\"fallback\">Backstop</span>\
                      <span class=\"continued\">begun by the primary, finished by Backstop</span>\
                      <span class=\"lost\">lost or mixed</span><span class=\"fails\">the primary fails</span>\
                      <span>seconds to the end of an answer, by when it was asked for; circles are streams</span></p>";

fn phases(phases: &[(&str, &Summary)]) -> Markup {
    let heads = [
        "",
        "sent",
        "lost",
        "primary",
        "Backstop",
        "continued",
        "other",
        "p50",
        "p99",
        "first token p50",
        "p99",
    ];
    table(
        &heads,
        phases.iter().map(|(name, summary)| phase(name, summary)),
    )
}

fn phase(name: &str, summary: &Summary) -> Vec<Markup> {
    let quantile = |quantiles: Option<Quantiles>, of: fn(Quantiles) -> f64| {
        quantiles.map_or("–".into(), |quantiles| seconds(of(quantiles)))
    };
    let cells = [
        name.to_owned(),
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
    cells.into_iter().map(Markup::from).collect()
}

/// What was drilled, and how.
fn subject(report: &Report) -> Markup {
    let mut rows: Vec<(Markup, Markup)> = Vec::new();
    let mut row = |name: &str, value: &str| rows.push((name.into(), value.into()));
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
    section("drilled", "Drilled", &facts(rows))
}

fn mark(verdict: Verdict) -> Markup {
    let tone = match verdict {
        Verdict::Passed => Tone::Good,
        Verdict::Failed => Tone::Bad,
        Verdict::NotRehearsed => Tone::Open,
    };
    badge(tone, verdict.text())
}
