//! Berkeley's function-calling leaderboard (`bfcl-eval`): its own data, its own checks, and a model of any name.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

use crate::QualifyError;
use crate::record::Measure;
use crate::statistics::wilson;

use super::args::Mode;
use super::harness::HarnessRun;
use super::results::{find, first_line, settings, source};

const NAME: &str = "bfcl";
const LAUNCHER: &str = include_str!("bfcl_launcher.py");
const SCORE: &str = "_score.json";
/// One turn, in Python's types: what it checks without running anything.
const CATEGORIES: &str = "simple_python,multiple,parallel,parallel_multiple,irrelevance";
/// Parts of names of categories whose calls BFCL runs, or which go online.
const RUN: &[&str] = &["multi_turn", "memory", "web_search", "agentic"];
const IDS_FILE: &str = "test_case_ids_to_generate.json";

/// Runs it, and reads its scores.
pub(super) async fn run(run: &HarnessRun<'_>) -> Result<Vec<Measure>, QualifyError> {
    let mode = match run.args.mode {
        Mode::Plain => "fc",
        Mode::Prompt => "prompt",
        Mode::Chat => {
            return Err(QualifyError::new(
                "--mode chat is lm-eval's; BFCL has plain and prompt",
            ));
        }
    };
    let mut options = Options::parse(&run.args.arguments)?;
    if let Some(file) = &options.ids {
        options.categories = copy_ids(file, &run.directory)?;
    }
    if options.categories.split(',').any(is_run) {
        run.needs_containment(
            "in some of these categories BFCL evaluates calls that the model wrote as Python, or goes online",
            "name others with --test-category",
        )?;
    }
    let launcher = run.directory.join("launcher.py");
    std::fs::write(&launcher, LAUNCHER).map_err(|error| QualifyError::at(&launcher, error))?;
    let launcher = launcher.display().to_string();
    let root = run.directory.as_os_str();
    let environment: [(&str, &OsStr); 1] = [("BFCL_PROJECT_ROOT", root)];
    let threads = run.args.concurrency.to_string();
    let begin = [launcher.as_str(), &run.args.model, mode];
    let mut generate: Vec<&str> = begin.to_vec();
    generate.extend(["generate", "--model", "subject", "--num-threads", &threads]);
    generate.extend(["--temperature", &options.temperature]);
    let mut evaluate: Vec<&str> = begin.to_vec();
    evaluate.extend([
        "evaluate",
        "--model",
        "subject",
        "--test-category",
        &options.categories,
    ]);
    if options.ids.is_some() {
        generate.push("--run-ids");
        evaluate.push("--partial-eval");
    } else {
        generate.extend(["--test-category", &options.categories]);
    }
    run.run(&run.package.python, &generate, &environment)
        .await?;
    run.run(&run.package.python, &evaluate, &environment)
        .await?;
    let mut measures = read_as(&run.directory.join("score"), &run.package.name)?;
    for measure in &mut measures {
        measure
            .settings
            .insert("model".into(), json!(run.args.model));
        measure.settings.insert("mode".into(), json!(mode));
        measure.settings.insert(
            "temperature".into(),
            json!(options.temperature.parse::<f64>().ok()),
        );
        measure
            .settings
            .insert("partial".into(), json!(options.ids.is_some()));
    }
    Ok(measures)
}

/// What may be said of a run, in BFCL's words.
#[derive(Debug, PartialEq)]
struct Options {
    categories: String,
    temperature: String,
    ids: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, QualifyError> {
        let mut options = Self {
            categories: CATEGORIES.into(),
            // BFCL's own: as near to 0 as all vendors take.
            temperature: "0.001".into(),
            ids: None,
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), rest.next().cloned()),
            };
            let value = value.ok_or_else(|| QualifyError::new(format!("{name} needs a value")))?;
            match name {
                "--test-category" => options.categories = value,
                "--temperature" => options.temperature = value,
                "--run-ids" => options.ids = Some(value),
                _ => {
                    return Err(QualifyError::new(format!(
                        "{name:?} cannot be given to BFCL here: --test-category NAMES, --temperature NUMBER and --run-ids FILE can"
                    )));
                }
            }
        }
        Ok(options)
    }
}

/// Whether BFCL runs calls of this category, or of one in this group.
fn is_run(category: &str) -> bool {
    let category = category.trim();
    category == "all"
        || category.starts_with("all_")
        || RUN.iter().any(|part| category.starts_with(part))
}

/// Puts a file of ids where BFCL looks for it, and returns the categories that it has.
fn copy_ids(file: &str, directory: &Path) -> Result<String, QualifyError> {
    let file = Path::new(file);
    let ids: Value = super::results::json(file)?;
    let categories: Vec<&str> = ids
        .as_object()
        .map(|ids| ids.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if categories.is_empty() {
        return Err(QualifyError::at(
            file,
            "expected an object with a list of ids for each category",
        ));
    }
    let to = directory.join(IDS_FILE);
    std::fs::write(&to, ids.to_string()).map_err(|error| QualifyError::at(&to, error))?;
    Ok(categories.join(","))
}

/// Reads scores: one file, or each in a directory.
pub(super) fn read(path: &Path, version: Option<&str>) -> Result<Vec<Measure>, QualifyError> {
    read_as(path, &source(NAME, version))
}

/// Of each category. BFCL's overall scores are not taken: they count categories that were not run as wrong.
fn read_as(path: &Path, source: &str) -> Result<Vec<Measure>, QualifyError> {
    let mut measures = Vec::new();
    for file in find(path, |name| {
        name.starts_with("BFCL_") && name.ends_with(SCORE)
    })? {
        let score = first_line(&file)?;
        let (Some(value), Some(right), Some(count)) = (
            score["accuracy"].as_f64(),
            score["correct_count"].as_u64(),
            score["total_count"].as_u64(),
        ) else {
            return Err(QualifyError::at(
                &file,
                "this is no score of BFCL: it has no accuracy of so many",
            ));
        };
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut parts = name.trim_end_matches(SCORE).splitn(3, '_').skip(1);
        let (data, category) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        measures.push(Measure {
            suite: format!("bfcl/{category}"),
            metric: "accuracy".into(),
            value,
            interval: wilson(right, count),
            count,
            samples: 1,
            settings: settings([("data", json!(data))]),
            source: source.to_owned(),
        });
    }
    Ok(measures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, QualifyError> {
        let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn options_are_those_that_there_are() {
        let options = parse(&["--test-category=live", "--temperature", "0.7"]).unwrap();
        assert_eq!(
            (options.categories.as_str(), options.temperature.as_str()),
            ("live", "0.7")
        );
        assert_eq!(parse(&[]).unwrap().categories, CATEGORIES);
        assert!(parse(&["--num-gpus", "2"]).is_err());
        assert!(parse(&["--run-ids"]).is_err());
    }

    #[test]
    fn categories_whose_calls_are_run_are_known() {
        assert!(
            [
                "all",
                "all_scoring",
                "multi_turn_base",
                " memory",
                "agentic"
            ]
            .into_iter()
            .all(is_run)
        );
        assert!(!CATEGORIES.split(',').any(is_run) && !is_run("live_parallel"));
    }
}
