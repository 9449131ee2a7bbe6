//! `backstop models list`.

use std::process::ExitCode;

use backstop_executor::format_bytes;
use backstop_models::{Manifest, ModelLocator};

use super::verdict::{Verdict, judge};
use crate::args::ListArgs;
use crate::device;

#[expect(clippy::print_stdout, reason = "the list is what the command is for")]
pub(super) fn run(args: &ListArgs) -> Result<ExitCode, String> {
    let locator = ModelLocator::from_environment();
    let device = device::best();
    let manifests = locator.manifests();
    let verdicts = manifests.iter().map(|(name, path)| {
        let manifest = Manifest::read(path);
        let verdict = judge(&locator, name, manifest.as_ref().ok(), &device);
        match manifest {
            Ok(_) => verdict,
            Err(error) => Verdict {
                note: Some(error.to_string()),
                ..verdict
            },
        }
    });
    let verdicts: Vec<Verdict> = verdicts
        .filter(|verdict| !args.here || verdict.weight_bytes.is_some())
        .collect();
    if args.json {
        let text = serde_json::to_string_pretty(&verdicts).map_err(|error| error.to_string())?;
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 4]> = verdicts.iter().map(row).collect();
    let heads = ["NAME", "HERE", "RUNS", "CONTEXT"].map(str::to_owned);
    let width = |column: usize| {
        let all = rows.iter().chain([&heads]);
        all.map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    let notes = verdicts.iter().map(|verdict| verdict.note.as_deref());
    let line = |row: &[String; 4], note: &str| {
        let [name, here, runs, context] = row;
        let [a, b, c, d] = widths;
        let line = format!("{name:a$}  {here:>b$}  {runs:c$}  {context:>d$}  {note}");
        line.trim_end().to_owned()
    };
    println!("{}", line(&heads, "NOTE"));
    for (row, note) in rows.iter().zip(notes) {
        println!("{}", line(row, note.unwrap_or_default()));
    }
    if verdicts.is_empty() {
        println!("none; looked in {:?}", locator.directories());
    }
    Ok(ExitCode::SUCCESS)
}

fn row(verdict: &Verdict) -> [String; 4] {
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
