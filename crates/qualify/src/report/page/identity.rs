//! What exactly was qualified.

use backstop_pages::{Markup, facts};

use super::super::model::Report;
use super::digest_markup;

pub(super) fn of(report: &Report) -> Markup {
    let identity = &report.identity;
    let subject = &identity.subject;
    let said = |value: Option<String>| value.map_or_else(not_said, Markup::from);
    let digest = |value: Option<&str>| value.map_or_else(not_said, digest_markup);
    let mut rows: Vec<(Markup, Markup)> = vec![
        ("address".into(), subject.url.as_str().into()),
        (
            "model, as it is asked for".into(),
            subject.model.as_str().into(),
        ),
        ("served as".into(), said(subject.backstop_model.clone())),
        (
            "fingerprint of version, weights and settings".into(),
            digest(subject.fingerprint.as_deref()),
        ),
        (
            "weights, as served".into(),
            digest(identity.served_weights()),
        ),
        (
            "tokenizer, SHA-256".into(),
            digest(identity.entry("/provenance/tokenizer").as_deref()),
        ),
        (
            "chat template, SHA-256".into(),
            digest(identity.entry("/provenance/chat_template").as_deref()),
        ),
        (
            "format of the weights".into(),
            said(identity.weights_format.clone()),
        ),
        (
            "version of the server".into(),
            said(identity.version("/version")),
        ),
        ("device".into(), said(identity.version("/device"))),
        (
            "hardware and driver".into(),
            said(identity.hardware.clone()),
        ),
        (
            "answers do not depend on the load".into(),
            said(identity.version("/batch_invariant").map(|is| {
                if is == "true" {
                    "yes".into()
                } else {
                    "no".into()
                }
            })),
        ),
    ];
    for (name, sha256) in &identity.files {
        rows.push((format!("{name}, SHA-256").into(), digest_markup(sha256)));
    }
    let settings = report.settings.iter().map(|(name, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.as_str().into(), value.into())
    });
    Markup::raw(format!(
        "{}<details><summary>Settings of the run</summary>{}</details>",
        facts(rows),
        facts(settings)
    ))
}

fn not_said() -> Markup {
    Markup::raw("<span class=\"faint\">it does not say</span>")
}
