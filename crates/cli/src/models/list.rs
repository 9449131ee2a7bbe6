//! `backstop models list`.

use std::process::ExitCode;

use backstop_executor::format_bytes;
use backstop_models::{Manifest, ModelLocator};

use super::verdict::{Verdict, judge};
use crate::args::ListArgs;
use crate::device;

const HEADS: [&str; 4] = ["NAME", "HERE", "RUNS", "CONTEXT"];

#[expect(clippy::print_stdout, reason = "the list is what the command is for")]
pub(super) fn run(args: &ListArgs) -> Result<ExitCode, String> {
    let locator = ModelLocator::from_environment();
    let mut verdicts = all(&locator);
    verdicts.retain(|verdict| !args.here || verdict.weight_bytes.is_some());
    if args.json {
        let text = serde_json::to_string_pretty(&verdicts).map_err(|error| error.to_string())?;
        println!("{text}");
    } else if verdicts.is_empty() {
        println!("none; looked in {:?}", locator.directories());
    } else {
        table(&verdicts).iter().for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What this machine makes of every known model.
fn all(locator: &ModelLocator) -> Vec<Verdict> {
    let device = device::best();
    let manifests = locator.manifests().into_iter();
    let verdicts = manifests.map(|(name, path)| match Manifest::read(&path) {
        Ok(manifest) => judge(locator, &name, Some(&manifest), &device),
        Err(error) => Verdict {
            note: Some(error.to_string()),
            ..judge(locator, &name, None, &device)
        },
    });
    verdicts.collect()
}

/// Lines with columns below each other.
fn table(verdicts: &[Verdict]) -> Vec<String> {
    let mut rows = vec![(HEADS.map(str::to_owned), "NOTE")];
    rows.extend(verdicts.iter().map(|verdict| {
        let note = verdict.note.as_deref().unwrap_or_default();
        (columns(verdict), note)
    }));
    let width = |column: usize| {
        let widths = rows.iter().map(|(row, _)| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(width);
    let lines = rows.iter().map(|([name, here, runs, context], note)| {
        let line = format!("{name:a$}  {here:>b$}  {runs:c$}  {context:>d$}  {note}");
        line.trim_end().to_owned()
    });
    lines.collect()
}

fn columns(verdict: &Verdict) -> [String; 4] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let runs = match (verdict.runs, &verdict.device) {
        (Some(true), Some(device)) => format!("on {device}"),
        (Some(true), None) => "yes".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => "unknown".to_owned(),
    };
    [
        verdict.name.clone(),
        or_dash(verdict.weight_bytes.map(format_bytes)),
        runs,
        or_dash(verdict.context.map(|tokens| tokens.to_string())),
    ]
}
