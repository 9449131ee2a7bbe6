//! mini-SWE-agent (version 2): one task by `mini`, or SWE-bench instances by `mini-extra swebench`; its trajectories, and
//! the report of SWE-bench's harness if there is one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

use crate::QualifyError;
use crate::record::Measure;
use crate::statistics::{bootstrap_mean, wilson};

use super::args::Mode;
use super::harness::HarnessRun;
use super::results::{find, json as read_json, settings, source};

const NAME: &str = "mini-swe-agent";
const TRAJECTORY: &str = ".traj.json";
/// Its environments that keep commands away from this machine.
const CONTAINED: &[&str] = &[
    "docker",
    "singularity",
    "swerex_docker",
    "swerex_modal",
    "contree",
    "bubblewrap",
];
const REFUSED: &[&str] = &["-m", "--model", "-o", "--output"];

/// Runs it, and reads what it did.
pub(super) async fn run(run: &HarnessRun<'_>) -> Result<Vec<Measure>, QualifyError> {
    if run.args.mode != Mode::Plain {
        return Err(QualifyError::new(
            "mini-SWE-agent has no other --mode than plain",
        ));
    }
    let arguments = &run.args.arguments;
    let name_of = |argument: &String| argument.split('=').next().unwrap_or_default().to_owned();
    if let Some(name) = arguments
        .iter()
        .map(name_of)
        .find(|name| REFUSED.contains(&name.as_str()))
    {
        return Err(QualifyError::new(format!(
            "{name} cannot be given to mini-SWE-agent here"
        )));
    }
    let environment_class = run.value_of(&["--environment-class"]);
    if !environment_class.is_some_and(|class| CONTAINED.contains(&class)) {
        run.needs_containment(
            "mini-SWE-agent runs the commands that the model writes",
            "choose one of its containers, such as -- --environment-class docker",
        )?;
    }
    let output = run.directory.join("results");
    std::fs::create_dir_all(&output).map_err(|error| QualifyError::at(&output, error))?;
    let model = format!("openai/{}", run.args.model);
    let mut own: Vec<String> = vec!["-m".into(), model, "-o".into()];
    let program = if arguments.first().is_some_and(|first| first == "swebench") {
        own.insert(0, "swebench".into());
        own.push(output.display().to_string());
        own.extend(["-w".into(), run.args.concurrency.to_string()]);
        own.extend(arguments[1..].iter().cloned());
        "mini-extra"
    } else {
        if run.value_of(&["-t", "--task"]).is_none() {
            return Err(QualifyError::new(
                "mini-SWE-agent needs a task (-- --task TEXT), or -- swebench --subset NAME",
            ));
        }
        own.push(
            output
                .join(format!("task{TRAJECTORY}"))
                .display()
                .to_string(),
        );
        own.extend(["--yolo".into(), "--exit-immediately".into()]);
        own.extend(arguments.iter().cloned());
        "mini"
    };
    // Its settings are this run's own, not those of whoever runs it.
    let settings_directory = run.directory.join("settings");
    let environment: [(&str, &OsStr); 5] = [
        ("MSWEA_GLOBAL_CONFIG_DIR", settings_directory.as_os_str()),
        ("MSWEA_CONFIGURED", OsStr::new("true")),
        ("MSWEA_SILENT_STARTUP", OsStr::new("1")),
        // Nobody has a price for this server.
        ("MSWEA_COST_TRACKING", OsStr::new("ignore_errors")),
        ("LITELLM_LOCAL_MODEL_COST_MAP", OsStr::new("True")),
    ];
    run.run(&run.package.program(program), &own, &environment)
        .await?;
    read(&output)
}

/// Reads trajectories, and the harness's reports beside them.
pub(super) fn read(path: &Path) -> Result<Vec<Measure>, QualifyError> {
    let mut trajectories = Vec::new();
    let mut measures = Vec::new();
    for file in find(path, |name| name.ends_with(".json"))? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(TRAJECTORY) {
            let trajectory = read_json(&file)?;
            if !trajectory["info"]["model_stats"]["api_calls"].is_u64() {
                return Err(QualifyError::at(
                    &file,
                    "this is no trajectory of mini-SWE-agent 2",
                ));
            }
            trajectories.push(trajectory);
        } else if name != "preds.json" {
            measures.extend(resolved(&read_json(&file)?));
        }
    }
    if !trajectories.is_empty() {
        measures.extend(of_trajectories(&trajectories));
    }
    Ok(measures)
}

/// How many agents submitted something, and what it took. Whether that was right is not in trajectories.
fn of_trajectories(trajectories: &[Value]) -> Vec<Measure> {
    let count = trajectories.len() as u64;
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for trajectory in trajectories {
        let status = trajectory["info"]["exit_status"]
            .as_str()
            .unwrap_or("unknown");
        *ends.entry(status.to_owned()).or_insert(0) += 1;
    }
    let info = &trajectories[0]["info"];
    let config = &info["config"];
    let settings = settings([
        ("model", config["model"]["model_name"].clone()),
        (
            "temperature",
            config["model"]["model_kwargs"]["temperature"].clone(),
        ),
        ("step_limit", config["agent"]["step_limit"].clone()),
        ("environment", config["environment_type"].clone()),
        ("ends", json!(ends)),
    ]);
    let source = source(NAME, info["mini_version"].as_str());
    let measure = |metric: &str, value: f64, interval| Measure {
        suite: NAME.into(),
        metric: metric.into(),
        value,
        interval,
        count,
        samples: 1,
        settings: settings.clone(),
        source: source.clone(),
    };
    let submitted = ends.get("Submitted").copied().unwrap_or(0);
    let calls: Vec<f64> = trajectories
        .iter()
        .filter_map(|one| one["info"]["model_stats"]["api_calls"].as_f64())
        .collect();
    let mean = calls.iter().sum::<f64>() / count as f64;
    vec![
        measure("attempts", count as f64, None),
        measure(
            "submitted",
            submitted as f64 / count as f64,
            wilson(submitted, count),
        ),
        measure("requests_mean", mean, bootstrap_mean(&calls, 0)),
    ]
}

/// From the report of SWE-bench's harness; other files have none.
fn resolved(report: &Value) -> Option<Measure> {
    let number = |name: &str| report[name].as_u64();
    let (right, count) = (number("resolved_instances")?, number("total_instances")?);
    if count == 0 || right > count {
        return None;
    }
    Some(Measure {
        suite: "mini-swe-agent/swebench".into(),
        metric: "resolved".into(),
        value: right as f64 / count as f64,
        interval: wilson(right, count),
        count,
        samples: 1,
        settings: settings([
            ("submitted", report["submitted_instances"].clone()),
            ("completed", report["completed_instances"].clone()),
            ("empty_patches", report["empty_patch_instances"].clone()),
            ("errors", report["error_instances"].clone()),
            (
                "infrastructure_failures",
                report["infra_failure_instances"].clone(),
            ),
            ("report_schema", report["schema_version"].clone()),
        ]),
        source: "swebench, version not recorded".into(),
    })
}
