//! The stages that check and time kernels.

use std::io;

use backstop_benches::report::Table;
use backstop_kernels::catalog;
use serde_json::{Map, Value, json};

use crate::cases::{SAMPLING, specs};
use crate::stage::{Record, Settings};
use crate::worker::{Job, Task};

/// What an H100 SXM multiplies at most, dense, in TFLOP/s, by its maker's data sheet.
const PEAK_BF16: f64 = 989.0;
const PEAK_E4M3: f64 = 1979.0;

/// All wanted kernels with the numbers of their cases.
fn jobs(settings: &Settings, task: Task) -> Vec<Job> {
    let names = catalog::ALL.iter().map(|kernel| kernel.name);
    let sampling = (task == Task::Check).then_some(SAMPLING);
    let wanted = |name: &&str| {
        settings.kernels.is_empty() || settings.kernels.iter().any(|kernel| kernel == name)
    };
    let jobs = names.chain(sampling).filter(wanted).map(|name| Job {
        device: settings.device,
        task,
        kernel: name.to_owned(),
        cases: if name == SAMPLING {
            1
        } else {
            specs(name, task, settings.device).len()
        },
    });
    jobs.collect()
}

fn text<'a>(result: &'a Value, field: &str) -> &'a str {
    result[field].as_str().unwrap_or_default()
}

/// Runs a job and notes its failures.
fn run_job(job: &Job, record: &mut Record) -> io::Result<Vec<Value>> {
    let (mut results, all) = job.run(|| record.left())?;
    if !all {
        let (done, cases) = (results.len(), job.cases);
        record.fail(format!(
            "{}: no time for {} of {cases} cases",
            job.kernel,
            cases - done
        ));
    }
    let specs = specs(&job.kernel, job.task, job.device);
    for (result, spec) in results.iter_mut().zip(&specs) {
        // Cases that took their process with them could not name themselves.
        result["label"] = json!(spec.label);
    }
    let untried = results
        .iter()
        .filter(|result| text(result, "outcome") == "not tried");
    match untried.count() {
        0 => {}
        count => record.fail(format!(
            "{}: {count} cases not tried, since too many before them ended their process",
            job.kernel
        )),
    }
    for result in &results {
        if text(result, "outcome") == "failed" {
            let (label, detail) = (text(result, "label"), text(result, "detail"));
            record.fail(format!("{} {label}: {detail}", job.kernel));
        }
    }
    Ok(results)
}

/// Every kernel against its reference.
pub(crate) fn check(settings: &Settings, record: &mut Record) -> io::Result<()> {
    let columns = [
        "kernel",
        "passed",
        "failed",
        "not tried",
        "not taken or too large",
    ];
    let mut table = Table::new("Kernels against their references", &columns);
    let mut all = Map::new();
    for job in jobs(settings, Task::Check) {
        let results = run_job(&job, record)?;
        let count = |outcome: &str| {
            let with = results
                .iter()
                .filter(|result| text(result, "outcome") == outcome);
            with.count().to_string()
        };
        table.rows.push(vec![
            job.kernel.clone(),
            count("passed"),
            count("failed"),
            count("not tried"),
            count("skipped"),
        ]);
        all.insert(job.kernel, json!(results));
        record.table(table.clone());
        record.measured("kernels", json!(all));
        record.save(false)?;
    }
    Ok(())
}

/// How long kernels take.
pub(crate) fn time(settings: &Settings, record: &mut Record) -> io::Result<()> {
    let bandwidth = measured_bandwidth(settings);
    if bandwidth.is_none() {
        record.note("Shares of bandwidth are missing: the stage `device` has not measured it.");
    }
    record.note(
        "Cold: one launch after a read of other memory has emptied the caches. In a graph: one of \
         16 launches in a row, which find their inputs in the L2 cache if they fit. GB/s counts \
         the bytes that must be moved at least once; shares are of the measured read bandwidth \
         and of the card's dense peak for BF16, or for FP8 where weights are FP8.",
    );
    let mut all = Map::new();
    let mut unchecked = 0;
    for job in jobs(settings, Task::Time) {
        if job.cases == 0 {
            continue;
        }
        let results = run_job(&job, record)?;
        let columns = [
            "case",
            "cold µs",
            "in a graph µs",
            "GB/s",
            "%",
            "TFLOP/s",
            "%",
        ];
        let mut table = Table::new(format!("Time of {}", job.kernel), &columns);
        let timed = results
            .iter()
            .filter(|result| text(result, "outcome") == "timed");
        for result in timed {
            unchecked += usize::from(result["checked"] == json!(false));
            table.rows.push(row(&job.kernel, result, bandwidth));
        }
        all.insert(job.kernel, json!(results));
        record.table(table);
        record.measured("kernels", json!(all));
        record.save(false)?;
    }
    record.note(format!(
        "{unchecked} of the timed cases are too large for the naive reference and were not \
         compared with it (`checked` in the JSON)."
    ));
    Ok(())
}

fn measured_bandwidth(settings: &Settings) -> Option<f64> {
    let text = std::fs::read_to_string(settings.out.join("device.json")).ok()?;
    let device: Value = serde_json::from_str(&text).ok()?;
    device["measurements"]["read_gb_per_second"].as_f64()
}

fn row(kernel: &str, result: &Value, bandwidth: Option<f64>) -> Vec<String> {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let cold = number(&result["cold_us"]["median"]);
    let peak = if kernel == "experts" && text(result, "label").starts_with("F8E4M3") {
        PEAK_E4M3
    } else {
        PEAK_BF16
    };
    let gigabytes = number(&result["bytes"]) / cold / 1e3;
    let teraflops = 2.0 * number(&result["multiply_adds"]) / cold / 1e6;
    let with = |value: f64, digits: usize| {
        if value > 0.0 && value.is_finite() {
            format!("{value:.digits$}")
        } else {
            "—".to_owned()
        }
    };
    vec![
        text(result, "label").to_owned(),
        with(cold, 1),
        with(number(&result["in_graph_us"]), 1),
        with(gigabytes, 0),
        with(bandwidth.map_or(0.0, |peak| 100.0 * gigabytes / peak), 0),
        with(teraflops, 1),
        with(100.0 * teraflops / peak, 1),
    ]
}
