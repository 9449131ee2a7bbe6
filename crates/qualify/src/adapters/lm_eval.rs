//! EleutherAI's lm-evaluation-harness (`lm-eval` 0.4): its API models, and its `results_*.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::QualifyError;
use crate::record::{Interval, Measure};
use crate::statistics::{CONFIDENCE, wilson};

use super::args::Mode;
use super::harness::HarnessRun;
use super::results::{find, json as read_json, settings, source};

/// The normal distribution's middle 95 % are so many standard errors wide to each side.
const ERRORS_WIDE: f64 = 1.959_963_984_540_054;
/// Means of what is 0 or 1 for each question.
const RATES: &[&str] = &[
    "acc",
    "acc_norm",
    "exact_match",
    "em",
    "pass@1",
    "prompt_level_strict_acc",
    "prompt_level_loose_acc",
];

/// Runs it, and reads its results.
pub(super) async fn run(run: &HarnessRun<'_>) -> Result<Vec<Measure>, QualifyError> {
    let (model, path) = match run.args.mode {
        Mode::Plain => ("local-completions", "completions"),
        Mode::Chat => ("local-chat-completions", "chat/completions"),
        Mode::Prompt => {
            return Err(QualifyError::new(
                "--mode prompt is BFCL's; lm-eval has plain and chat",
            ));
        }
    };
    if run.value_of(&["--tasks", "-t"]).is_none() {
        return Err(QualifyError::new(
            "lm-eval needs tasks: -- --tasks NAME,NAME",
        ));
    }
    if run
        .args
        .arguments
        .iter()
        .any(|argument| argument == "--confirm_run_unsafe_code")
    {
        run.needs_containment(
            "with --confirm_run_unsafe_code, lm-eval runs code that the model wrote",
            "use this program's own code suites",
        )?;
    }
    if run.args.model.contains([',', '=']) {
        return Err(QualifyError::new(
            "lm-eval cannot ask for a model whose name has a comma or an equals sign",
        ));
    }
    let output = run.directory.join("results");
    let mut model_args = format!(
        "base_url={}/{path},model={},num_concurrent={},max_retries=3",
        run.base_url, run.args.model, run.args.concurrency
    );
    let mut own = Vec::new();
    let mut rest = run.args.arguments.iter();
    while let Some(argument) = rest.next() {
        // Their model arguments come behind ours, and win.
        if argument == "--model_args" || argument == "-a" {
            model_args.push(',');
            model_args.push_str(rest.next().map_or("", String::as_str));
        } else if let Some(more) = argument.strip_prefix("--model_args=") {
            model_args.push(',');
            model_args.push_str(more);
        } else {
            own.push(argument.clone());
        }
    }
    let mut arguments: Vec<String> = ["run", "--model", model, "--model_args", &model_args]
        .map(str::to_owned)
        .to_vec();
    arguments.push("--output_path".into());
    arguments.push(output.display().to_string());
    if run.args.mode == Mode::Chat {
        arguments.push("--apply_chat_template".into());
    }
    arguments.extend(own);
    run.run(&run.package.program("lm_eval"), &arguments, &[])
        .await?;
    read(&output)
}

/// Reads results. Of several files that have a task, the newest counts.
pub(super) fn read(path: &Path) -> Result<Vec<Measure>, QualifyError> {
    let files = find(path, |name| {
        name.starts_with("results_") && name.ends_with(".json")
    })?;
    let mut by_task: BTreeMap<String, (String, Vec<Measure>)> = BTreeMap::new();
    for file in files {
        let results = read_json(&file)?;
        let tasks = results["results"].as_object().ok_or_else(|| {
            QualifyError::at(
                &file,
                "these are no results of lm-eval: they have no \"results\"",
            )
        })?;
        // Their names begin with the time.
        let time = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for (task, values) in tasks {
            let Some(values) = values.as_object() else {
                return Err(QualifyError::at(
                    &file,
                    format!("results of {task} are no object"),
                ));
            };
            let measures = of_task(&results, task, values);
            let entry = by_task.entry(task.clone()).or_default();
            if entry.0 <= time {
                *entry = (time.clone(), measures);
            }
        }
    }
    Ok(by_task
        .into_values()
        .flat_map(|(_, measures)| measures)
        .collect())
}

fn of_task(results: &Value, task: &str, values: &Map<String, Value>) -> Vec<Measure> {
    let count = count(results, task, values);
    let mut measures = Vec::new();
    for (key, value) in values {
        let (metric, filter) = key.split_once(',').unwrap_or((key, "none"));
        let (Some(value), false) = (value.as_f64(), metric.ends_with("_stderr")) else {
            continue;
        };
        // `sample_len` and the like are no metrics.
        if !key.contains(',') {
            continue;
        }
        let error = values
            .get(&format!("{metric}_stderr,{filter}"))
            .and_then(Value::as_f64);
        measures.push(Measure {
            suite: format!("lm-eval/{task}"),
            metric: metric.to_owned(),
            value,
            interval: error.and_then(|error| interval(metric, value, error, count)),
            count,
            samples: 1,
            settings: settings_of(results, task, filter),
            source: source("lm-eval", results["lm_eval_version"].as_str()),
        });
    }
    measures
}

/// Questions that were asked. A group's are those of its tasks.
fn count(results: &Value, task: &str, values: &Map<String, Value>) -> u64 {
    let of = |task: &str| results["n-samples"][task]["effective"].as_u64();
    let of_group = || {
        let tasks = results["group_subtasks"][task].as_array()?;
        tasks.iter().map(|task| of(task.as_str()?)).sum()
    };
    let length = values.get("sample_len").and_then(Value::as_u64);
    of(task).or_else(of_group).or(length).unwrap_or(0)
}

/// From lm-eval's standard error. It has none where all are right or all are wrong, which says little of few questions.
fn interval(metric: &str, value: f64, error: f64, count: u64) -> Option<Interval> {
    let is_rate = RATES.contains(&metric) && (0.0..=1.0).contains(&value);
    if error == 0.0 {
        let is_one_sided = is_rate && (value == 0.0 || value == 1.0);
        return if is_one_sided {
            wilson((value * count as f64) as u64, count)
        } else {
            None
        };
    }
    let (mut low, mut high) = (value - ERRORS_WIDE * error, value + ERRORS_WIDE * error);
    if is_rate {
        (low, high) = (low.max(0.0), high.min(1.0));
    }
    Some(Interval {
        low,
        high,
        confidence: CONFIDENCE,
        method: "normal, of lm-eval's standard error".into(),
    })
}

fn settings_of(results: &Value, task: &str, filter: &str) -> BTreeMap<String, Value> {
    let (config, of_task) = (&results["config"], &results["configs"][task]);
    let generation = &of_task["generation_kwargs"];
    let temperature = [
        &config["gen_kwargs"]["temperature"],
        &generation["temperature"],
    ]
    .into_iter()
    .find(|value| !value.is_null())
    .cloned()
    .unwrap_or_default();
    // A template's name or text is long; that there was one is what matters.
    let chat_template = match &results["chat_template_sha"] {
        Value::Null => json!(config["model"] == "local-chat-completions"),
        digest => digest.clone(),
    };
    settings([
        ("filter", json!(filter)),
        ("shots", results["n-shot"][task].clone()),
        ("task_version", results["versions"][task].clone()),
        ("task_hash", results["task_hashes"][task].clone()),
        ("output_type", of_task["output_type"].clone()),
        ("temperature", temperature),
        ("max_tokens", generation["max_gen_toks"].clone()),
        ("model_type", config["model"].clone()),
        ("model", results["model_name"].clone()),
        ("chat_template", chat_template),
        ("limit", config["limit"].clone()),
        ("seed", config["random_seed"].clone()),
        ("fewshot_seed", config["fewshot_seed"].clone()),
        (
            "higher_is_better",
            results["higher_is_better"][task].clone(),
        ),
    ])
}
