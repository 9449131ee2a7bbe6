//! Whether two results were measured alike: what makes them incomparable, and what is only worth a note.

use backstop_models::{Claim, ClaimSettings, ClaimValue};
use serde_json::Value;

use super::Circumstances;
use super::benchmarks::Benchmark;
use crate::record::Measure;

/// Temperatures that differ by less are noted.
const TEMPERATURES_NEAR: f64 = 0.25;

/// What is different.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Each makes the results incomparable.
    pub(super) obstacles: Vec<String>,
    /// None does.
    pub(super) notes: Vec<String>,
}

/// Compares all that either says of how it was measured.
pub(super) fn compare(
    claim: &Claim,
    benchmark: &Benchmark,
    measure: &Measure,
    served: &Circumstances,
) -> Findings {
    let mut findings = Findings::default();
    findings.metric(claim, measure);
    findings.tasks(&claim.settings, measure);
    findings.harness(&claim.settings, benchmark, measure);
    findings.temperature(&claim.settings, measure);
    findings.attempts(&claim.settings);
    let settings = &claim.settings;
    let shots = settings.shots.map(|shots| shots.to_string());
    findings.same("shots", shots, text(measure, &["shots", "num_fewshot"]));
    let ours = text(measure, &["reasoning", "reasoning_effort"]);
    findings.same("reasoning", settings.reasoning.clone(), ours);
    let context = settings.context.map(|tokens| tokens.to_string());
    findings.noted(
        "context",
        context,
        text(measure, &["context", "max_model_len"]),
    );
    let longest = settings.max_tokens.map(|tokens| tokens.to_string());
    findings.noted(
        "longest answer",
        longest,
        text(measure, &["max_tokens", "max_gen_toks"]),
    );
    let top_p = settings.top_p.map(|top_p| top_p.to_string());
    findings.noted("top_p", top_p, text(measure, &["top_p"]));
    findings.form(measure);
    findings.weights(&claim.settings, served);
    findings
}

/// Whether two names are of one metric: spaces, hyphens and case do not matter.
pub(super) fn is_same_metric(one: &str, other: &str) -> bool {
    let plain = |name: &str| -> String {
        let kept = name
            .chars()
            .filter(|letter| letter.is_alphanumeric() || *letter == '@');
        kept.flat_map(char::to_lowercase).collect()
    };
    plain(one) == plain(other)
}

impl Findings {
    fn metric(&mut self, claim: &Claim, measure: &Measure) {
        match &claim.metric {
            Some(metric) if is_same_metric(metric, &measure.metric) => {}
            Some(metric) => {
                let ours = &measure.metric;
                self.obstacles
                    .push(format!("the claim is {metric}, ours is {ours}"));
            }
            None => {
                let ours = &measure.metric;
                self.notes
                    .push(format!("the vendor names no metric; ours is {ours}"));
            }
        }
    }

    fn tasks(&mut self, settings: &ClaimSettings, measure: &Measure) {
        if let Some(tasks) = settings.tasks.filter(|tasks| *tasks != measure.count) {
            let ours = measure.count;
            self.obstacles
                .push(format!("the claim is of {tasks} tasks, ours of {ours}"));
        }
    }

    fn harness(&mut self, settings: &ClaimSettings, benchmark: &Benchmark, measure: &Measure) {
        let ours = text(measure, &["harness"]).unwrap_or_else(|| measure.source.clone());
        let Some(theirs) = &settings.harness else {
            self.notes
                .push("the vendor does not say by which harness".into());
            return;
        };
        if ours.to_lowercase().starts_with(&theirs.to_lowercase()) {
            return;
        }
        let difference = format!("the vendor's harness is {theirs}, ours is {ours}");
        match benchmark.needs_same_harness() {
            true => self.obstacles.push(difference),
            false => self.notes.push(format!(
                "{difference}: the same problems and tests, other prompts and another way to find the code"
            )),
        }
    }

    fn temperature(&mut self, settings: &ClaimSettings, measure: &Measure) {
        let ours = measure.settings.get("temperature").and_then(Value::as_f64);
        match (settings.temperature, ours) {
            (Some(theirs), Some(ours)) if (theirs - ours).abs() < f64::EPSILON => {}
            (Some(theirs), Some(ours)) => {
                let difference = format!("the claim is at temperature {theirs}, ours at {ours}");
                match (theirs - ours).abs() < TEMPERATURES_NEAR {
                    true => self.notes.push(difference),
                    false => self.obstacles.push(difference),
                }
            }
            (Some(theirs), None) => self.notes.push(format!(
                "the claim is at temperature {theirs}; ours is the server's own"
            )),
            (None, Some(ours)) => self.notes.push(format!(
                "the vendor does not say at which temperature; ours is {ours}"
            )),
            (None, None) => {}
        }
    }

    fn attempts(&mut self, settings: &ClaimSettings) {
        match &settings.attempts {
            None => {}
            Some(ClaimValue::Number(attempts)) if *attempts == 1.0 => {}
            Some(ClaimValue::Number(attempts)) => self
                .obstacles
                .push(format!("the claim allows {attempts} attempts, ours one")),
            Some(ClaimValue::Text(attempts)) => self
                .obstacles
                .push(format!("the claim is of attempts: {attempts}; ours of one")),
        }
    }

    /// Base models continue a text; the claims of chat models are of chats.
    fn form(&mut self, measure: &Measure) {
        if measure.settings.get("completion") == Some(&Value::Bool(true)) {
            self.notes
                .push("ours continues a text, and is no chat".into());
        }
    }

    fn weights(&mut self, settings: &ClaimSettings, served: &Circumstances) {
        let theirs = settings.weights.as_deref();
        match (&served.weights, theirs) {
            (Some(ours), Some(theirs)) if ours.eq_ignore_ascii_case(theirs) => {}
            (Some(ours), Some(theirs)) => self.notes.push(format!(
                "the claim is of {theirs} weights, {ours} were served"
            )),
            (Some(ours), None) if is_quantized(ours) => self
                .notes
                .push(format!("quantised weights were served: {ours}")),
            (Some(_), None) => {}
            (None, _) => self
                .notes
                .push("the server does not say in which format its weights are".into()),
        }
    }

    /// What makes results incomparable if both say it and differ.
    fn same(&mut self, name: &str, theirs: Option<String>, ours: Option<String>) {
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if theirs == ours => {}
            (Some(theirs), Some(ours)) => self
                .obstacles
                .push(format!("{name}: {theirs} in the claim, {ours} in ours")),
            (Some(theirs), None) => self
                .notes
                .push(format!("{name}: {theirs} in the claim, not said in ours")),
            (None, _) => {}
        }
    }

    fn noted(&mut self, name: &str, theirs: Option<String>, ours: Option<String>) {
        if let (Some(theirs), Some(ours)) = (theirs, ours)
            && theirs != ours
        {
            self.notes
                .push(format!("{name}: {theirs} in the claim, {ours} in ours"));
        }
    }
}

fn is_quantized(format: &str) -> bool {
    let format = format.to_lowercase();
    ![
        "bf16", "f16", "fp16", "f32", "fp32", "bfloat16", "float16", "float32",
    ]
    .contains(&format.as_str())
}

/// The first of these settings, as text.
fn text(measure: &Measure, names: &[&str]) -> Option<String> {
    let value = names.iter().find_map(|name| measure.settings.get(*name))?;
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
