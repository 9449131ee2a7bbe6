//! EvalPlus (`evalplus` 0.3): the model's programs are written by its `codegen`, and judged by its `evaluate`, which runs in
//! this program's isolation; its own limits are no containment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_isolation::{Ended, Interpreter, Isolation, Job, Limits};
use serde_json::{Value, json};

use crate::QualifyError;
use crate::record::Measure;
use crate::scratch::Scratch;
use crate::statistics::{TaskCount, pass_at_k};

use super::harness::HarnessRun;
use super::results::{digest, find, json as read_json, settings, source};

const NAME: &str = "evalplus";
/// As EvalPlus reports.
const PASS_AT: [u32; 3] = [1, 10, 100];
const RESULTS: &str = "_eval_results.json";
/// What each of its workers may take by its own limit, and room for them.
const MEMORY_BYTES_MAX: u64 = 8 << 30;
const OUTPUT_BYTES_MAX: usize = 512 << 20;
/// Data sets are some tens of megabytes.
const DISK_BYTES_MAX: u64 = 2 << 30;
const PROCESSES_MAX: u32 = 512;
/// Options of `evaluate` alone.
const OF_EVALUATION: &[&str] = &[
    "--base_only",
    "--parallel",
    "--test_details",
    "--min_time_limit",
    "--gt_time_limit_factor",
];
const REFUSED: &[&str] = &[
    "--mini",
    "--noextreme",
    "--samples",
    "--root",
    "--model",
    "--backend",
    "--base_url",
];

/// Runs it, and reads its results.
pub(super) async fn run(run: &HarnessRun<'_>) -> Result<Vec<Measure>, QualifyError> {
    let isolation = Isolation::available().map_err(|lack| QualifyError::new(lack.to_string()))?;
    let (generation, evaluation) = split(&run.args.arguments)?;
    let dataset = run.value_of(&["--dataset"]).unwrap_or("humaneval");
    if !["humaneval", "mbpp"].contains(&dataset) {
        return Err(QualifyError::new(format!(
            "EvalPlus has humaneval and mbpp, not {dataset:?}"
        )));
    }
    let root = run.directory.join("results");
    let mut arguments: Vec<String> = [
        "--model",
        &run.args.model,
        "--backend",
        "openai",
        "--base_url",
        &run.base_url,
        "--root",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(root.display().to_string());
    if run.value_of(&["--dataset"]).is_none() {
        arguments.extend(["--dataset".to_owned(), dataset.to_owned()]);
    }
    if run.value_of(&["--temperature"]).is_none() && !generation.iter().any(|one| one == "--greedy")
    {
        arguments.push("--greedy".into());
    }
    arguments.extend(generation);
    run.run(&run.package.program("evalplus.codegen"), &arguments, &[])
        .await?;
    let samples = find(&root.join(dataset), |name| {
        name.ends_with(".jsonl") && !name.ends_with(".raw.jsonl")
    })?;
    let [samples] = samples.as_slice() else {
        return Err(QualifyError::at(
            &root,
            "EvalPlus left no file of samples, or several",
        ));
    };
    let data = data_file(dataset)?;
    let judging = Judging {
        python: run.package.python.clone(),
        evaluate: run.package.program("evalplus.evaluate"),
        dataset: dataset.to_owned(),
        data: data.clone(),
        samples: samples.clone(),
        options: evaluation,
        time: run.args.timeout,
    };
    let results = tokio::task::spawn_blocking(move || judging.judge(&isolation))
        .await
        .map_err(|error| QualifyError::new(error.to_string()))??;
    let file = samples.with_extension("");
    let file = file.with_file_name(format!(
        "{}{RESULTS}",
        file.file_name().unwrap_or_default().to_string_lossy()
    ));
    std::fs::write(&file, results).map_err(|error| QualifyError::at(&file, error))?;
    let mut measures = of_file(&file, &run.package.name)?;
    for measure in &mut measures {
        measure
            .settings
            .insert("data_sha256".into(), digest(&data)?);
        measure
            .settings
            .insert("model".into(), json!(run.args.model));
        measure.settings.insert("top_p".into(), json!(0.95));
    }
    Ok(measures)
}

/// What is for writing programs, and what is for judging them.
fn split(arguments: &[String]) -> Result<(Vec<String>, Vec<String>), QualifyError> {
    let (mut generation, mut evaluation) = (Vec::new(), Vec::new());
    let mut is_of_evaluation = false;
    for argument in arguments {
        if argument.starts_with("--") {
            let name = argument
                .split('=')
                .next()
                .unwrap_or_default()
                .replace('-', "_");
            let name = format!("--{}", name.trim_start_matches('_'));
            if REFUSED.contains(&name.as_str()) {
                return Err(QualifyError::new(format!(
                    "{name} cannot be given to EvalPlus here"
                )));
            }
            is_of_evaluation = OF_EVALUATION.contains(&name.as_str());
        }
        if is_of_evaluation {
            evaluation.push(argument.clone());
        } else {
            generation.push(argument.clone());
        }
    }
    Ok((generation, evaluation))
}

/// The data set that `codegen` has used: the one that the environment names, or the one in its cache.
fn data_file(dataset: &str) -> Result<PathBuf, QualifyError> {
    let (variable, prefix) = match dataset {
        "mbpp" => ("MBPP_OVERRIDE_PATH", "MbppPlus-v"),
        _ => ("HUMANEVAL_OVERRIDE_PATH", "HumanEvalPlus-v"),
    };
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.unwrap_or_default().join(NAME);
    let found = find(&cache, |name| {
        name.starts_with(prefix) && name.ends_with(".jsonl")
    })?;
    found.into_iter().next_back().ok_or_else(|| {
        QualifyError::at(
            &cache,
            format!("EvalPlus has no data there; {variable} can name a file"),
        )
    })
}

/// EvalPlus' own judgement of samples, in isolation.
struct Judging {
    python: PathBuf,
    evaluate: PathBuf,
    dataset: String,
    data: PathBuf,
    samples: PathBuf,
    options: Vec<String>,
    time: Duration,
}

impl Judging {
    /// The content of its file of results.
    fn judge(&self, isolation: &Isolation) -> Result<Vec<u8>, QualifyError> {
        let scratch = Scratch::make("evalplus")?;
        for (from, name) in [(&self.data, "data.jsonl"), (&self.samples, "samples.jsonl")] {
            std::fs::copy(from, scratch.path().join(name))
                .map_err(|error| QualifyError::at(from, error))?;
        }
        let interpreter = Interpreter::find(&self.python)
            .map_err(|error| QualifyError::new(error.to_string()))?;
        // Nothing but the last part comes to standard output.
        let script = format!("\"$0\" \"$@\" >&2 </dev/null && cat samples{RESULTS}");
        let mut program: Vec<OsString> = ["/bin/sh", "-c", &script].map(OsString::from).to_vec();
        program.extend([interpreter.program.into(), self.evaluate.clone().into()]);
        program
            .extend(["--dataset", &self.dataset, "--samples", "samples.jsonl"].map(OsString::from));
        program.extend(self.options.iter().map(OsString::from));
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let job = Job {
            program: &program,
            directory: Some(scratch.path()),
            read_only: interpreter.read_only,
            environment: vec![
                variable("HUMANEVAL_OVERRIDE_PATH", "/work/data.jsonl"),
                variable("MBPP_OVERRIDE_PATH", "/work/data.jsonl"),
                variable("XDG_CACHE_HOME", "/tmp/cache"),
                variable("HF_HUB_OFFLINE", "1"),
                // Its own limit wants a larger stack than it may have here, and isolation limits memory anyway.
                variable("EVALPLUS_MAX_MEMORY_BYTES", "-1"),
                variable("PYTHONDONTWRITEBYTECODE", "1"),
            ],
            input: &[],
            limits: Limits {
                wall: self.time,
                cpu: self.time,
                memory_bytes: MEMORY_BYTES_MAX,
                processes: PROCESSES_MAX,
                disk_bytes: DISK_BYTES_MAX,
                file_bytes: DISK_BYTES_MAX,
                output_bytes: OUTPUT_BYTES_MAX,
            },
        };
        let finished = isolation
            .run(&job)
            .map_err(|error| QualifyError::new(error.to_string()))?;
        if finished.ended != Ended::Exited(0) {
            let errors = String::from_utf8_lossy(&finished.errors);
            let mut begin = errors.len().saturating_sub(3000);
            while !errors.is_char_boundary(begin) {
                begin += 1;
            }
            return Err(QualifyError::new(format!(
                "evalplus.evaluate ended in isolation: {:?}\n{}",
                finished.ended,
                &errors[begin..]
            )));
        }
        Ok(finished.output)
    }
}

/// Reads results: one file, or each in a directory.
pub(super) fn read(path: &Path, version: Option<&str>) -> Result<Vec<Measure>, QualifyError> {
    let source = source(NAME, version);
    let mut measures = Vec::new();
    for file in find(path, |name| {
        name.ends_with(RESULTS) || name == "eval_results.json"
    })? {
        measures.extend(of_file(&file, &source)?);
    }
    Ok(measures)
}

fn of_file(file: &Path, source: &str) -> Result<Vec<Measure>, QualifyError> {
    let results = read_json(file)?;
    let tasks = results["eval"]
        .as_object()
        .filter(|tasks| !tasks.is_empty())
        .ok_or_else(|| {
            QualifyError::at(
                file,
                "these are no results of EvalPlus: they have no \"eval\"",
            )
        })?;
    let (mut base, mut plus) = (Vec::new(), Vec::new());
    for (task, samples) in tasks {
        let samples = samples.as_array().map_or(&[][..], Vec::as_slice);
        let passes = |sample: &Value, of: &str| sample[of] == "pass";
        let count = |is_right: &dyn Fn(&Value) -> bool| TaskCount {
            task: task.clone(),
            samples: samples.len() as u32,
            passed: samples.iter().filter(|sample| is_right(sample)).count() as u32,
        };
        base.push(count(&|sample| passes(sample, "base_status")));
        if samples
            .iter()
            .all(|sample| !sample["plus_status"].is_null())
        {
            plus.push(count(&|sample| {
                passes(sample, "base_status") && passes(sample, "plus_status")
            }));
        }
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let settings = settings([
        ("data_md5", results["hash"].clone()),
        (
            "temperature",
            temperature(&name).map_or(Value::Null, |value| json!(value)),
        ),
    ]);
    let dataset = match tasks.keys().next() {
        Some(task) if task.starts_with("Mbpp/") => "mbpp",
        _ => "humaneval",
    };
    let mut measures = Vec::new();
    for (counts, suite) in [(&base, dataset.to_owned()), (&plus, format!("{dataset}+"))] {
        // Without extra tests for all, there is no such number.
        if counts.len() == tasks.len() {
            measures.extend(of_counts(counts, &suite, &settings, source));
        }
    }
    Ok(measures)
}

fn of_counts(
    counts: &[TaskCount],
    suite: &str,
    settings: &BTreeMap<String, Value>,
    source: &str,
) -> Vec<Measure> {
    let samples = counts.iter().map(|count| count.samples).min().unwrap_or(0);
    PASS_AT
        .into_iter()
        .filter(|k| *k <= samples)
        .filter_map(|k| {
            let (value, interval, count) = pass_at_k(counts, k, 0)?;
            Some(Measure {
                suite: format!("evalplus/{suite}"),
                metric: format!("pass@{k}"),
                value,
                interval,
                count,
                samples,
                settings: settings.clone(),
                source: source.to_owned(),
            })
        })
        .collect()
}

/// From the name that EvalPlus gives its files: `MODEL_BACKEND_temp_0.8_eval_results.json`.
fn temperature(name: &str) -> Option<f64> {
    let (_, behind) = name.rsplit_once("_temp_")?;
    behind.split('_').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_where_they_belong() {
        let arguments = [
            "--n_samples",
            "5",
            "--base-only",
            "--parallel=2",
            "--temperature",
            "0.8",
        ];
        let (generation, evaluation) = split(&arguments.map(str::to_owned)).unwrap();
        assert_eq!(generation, ["--n_samples", "5", "--temperature", "0.8"]);
        assert_eq!(evaluation, ["--base-only", "--parallel=2"]);
        assert!(split(&["--mini".to_owned()]).is_err());
        assert!(split(&["--base-url=http://x".to_owned()]).is_err());
    }

    #[test]
    fn the_temperature_is_in_the_name() {
        assert_eq!(
            temperature("a_temp_x_openai_temp_0.8_eval_results.json"),
            Some(0.8)
        );
        assert_eq!(temperature("eval_results.json"), None);
    }
}
