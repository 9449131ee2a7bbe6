//! The stages that check and time kernels.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use backstop_benches::report::Table;
use backstop_card::cubins::DIRECTORY_VARIABLE;
use backstop_proof::catalog;
use serde_json::{Map, Value, json};

use crate::cases::{CHECKS, specs};
use crate::settings::{DeviceKind, Settings};
use crate::stage::Record;
use crate::tools;
use crate::worker::{Job, Task};

/// What an H100 SXM multiplies at most, dense, in TFLOP/s, by its maker's data sheet.
const PEAK_BF16: f64 = 989.0;
const PEAK_E4M3: f64 = 1979.0;

/// Kernels that are checked at the same time on a card.
const AT_ONCE: usize = 4;
/// Time without which no case is looked at more closely.
const TOOL_TIME_MIN: Duration = Duration::from_secs(8);
/// The cases that a profiler looks at: a product of decode, one of prefill, and attention of
/// decode, by the ends of their labels.
const PROFILED: [(&str, &str); 3] = [
    ("linear", "[5120, 2048], 8 tokens"),
    ("linear", "[5120, 2048], 8192 tokens"),
    ("attention", "BF16, blocks of 16, Full, 64 of (1023, 1)"),
];

/// All wanted kernels with the numbers of their cases, the most important first. Those that the
/// card has no kernels for are left out.
fn jobs(settings: &Settings, task: Task) -> Vec<Job> {
    let names = catalog::ON_DEVICE.iter().copied();
    let checks = CHECKS.iter().map(|(name, _)| *name);
    let checks = checks.filter(|_| task == Task::Check);
    let jobs = names.chain(checks).map(|name| {
        let is_check = CHECKS.iter().any(|(check, _)| *check == name);
        let count = match is_check {
            true => 1,
            false => specs(name, task, settings.device).len(),
        };
        Job {
            device: settings.device,
            task,
            kernel: name.to_owned(),
            cases: settings.selection.cases(name, count),
            cubins: bounded(settings).filter(|_| task == Task::Check),
        }
    });
    jobs.filter(|job| !job.cases.is_empty()).collect()
}

/// Kernels whose barriers do not wait for ever, unless others are to be used.
fn bounded(settings: &Settings) -> Option<PathBuf> {
    let directory = settings.pack.join("bounded");
    let on_card = settings.device == DeviceKind::Cuda;
    let asked = std::env::var_os(DIRECTORY_VARIABLE).is_some();
    (on_card && !asked && directory.is_dir()).then_some(directory)
}

fn text<'a>(result: &'a Value, field: &str) -> &'a str {
    result[field].as_str().unwrap_or_default()
}

/// Runs a job; its results, and what failed.
fn run_job(job: &Job, left: impl Fn() -> Duration) -> io::Result<(Vec<Value>, Vec<String>)> {
    let (mut results, all) = job.run(left)?;
    let mut failures = Vec::new();
    if !all {
        let (done, cases) = (results.len(), job.cases.len());
        let missing = cases - done;
        failures.push(format!(
            "{}: no time for {missing} of {cases} cases",
            job.kernel
        ));
    }
    let specs = specs(&job.kernel, job.task, job.device);
    for (result, &number) in results.iter_mut().zip(&job.cases) {
        // Cases that took their process with them could not name themselves.
        result["index"] = json!(number);
        if let Some(spec) = specs.get(number) {
            result["label"] = json!(spec.label);
        }
    }
    for result in results.iter().filter(|it| text(it, "outcome") == "failed") {
        let (label, detail) = (text(result, "label"), text(result, "detail"));
        let number = &result["index"];
        failures.push(format!("{}:{number} ({label}): {detail}", job.kernel));
    }
    let untried: Vec<&str> = results
        .iter()
        .filter(|result| text(result, "outcome") == "not tried")
        .map(|result| text(result, "detail"))
        .collect();
    if let Some(why) = untried.first() {
        let count = untried.len();
        failures.push(format!("{}: {count} cases not tried: {why}", job.kernel));
    }
    Ok((results, failures))
}

/// What a memory checker says of the first case that failed, unless that hung.
fn look_closer(job: &Job, results: &[Value], left: Duration) -> Option<(String, String)> {
    let failed = results
        .iter()
        .find(|result| text(result, "outcome") == "failed" && result["hung"] != json!(true))?;
    let number = usize::try_from(failed["index"].as_u64()?).ok()?;
    if job.device == DeviceKind::Host || left < TOOL_TIME_MIN {
        return None;
    }
    let said = tools::memcheck(job, number, left)?;
    Some((format!("memcheck of {}:{number}", job.kernel), said))
}

/// The stage that checks kernels, as its jobs see it.
struct Checks<'a> {
    record: &'a mut Record,
    table: Table,
    all: Map<String, Value>,
    queue: std::vec::IntoIter<Job>,
}

impl Checks<'_> {
    fn add(&mut self, job: &Job, results: Vec<Value>, failures: Vec<String>) -> io::Result<()> {
        let count = |outcome: &str| {
            let with = results
                .iter()
                .filter(|result| text(result, "outcome") == outcome);
            with.count().to_string()
        };
        self.table.rows.push(vec![
            job.kernel.clone(),
            count("passed"),
            count("failed"),
            count("not tried"),
            count("skipped"),
        ]);
        for failure in failures {
            self.record.fail(failure);
        }
        self.all.insert(job.kernel.clone(), json!(results));
        self.record.table(self.table.clone());
        self.record.measured("kernels", json!(self.all));
        self.record.save(false)
    }
}

fn lock<'a, 'b>(checks: &'a Mutex<Checks<'b>>) -> MutexGuard<'a, Checks<'b>> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes jobs as long as there are any.
fn check_jobs(checks: &Mutex<Checks<'_>>) -> io::Result<()> {
    loop {
        let next = lock(checks).queue.next();
        let Some(job) = next else {
            return Ok(());
        };
        let left = || lock(checks).record.left();
        let (results, failures) = run_job(&job, left)?;
        let closer = look_closer(&job, &results, left());
        let mut checks = lock(checks);
        if let Some((title, said)) = closer {
            checks.record.listing(title, said);
        }
        checks.add(&job, results, failures)?;
    }
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
    let jobs = jobs(settings, Task::Check);
    if jobs.is_empty() {
        record.fail("none of the kernels named has cases for the card");
    }
    if bounded(settings).is_some() {
        record.note("The kernels are those whose waits for barriers end in a trap.");
    }
    let checks = Mutex::new(Checks {
        record,
        table: Table::new("Kernels against their references", &columns),
        all: Map::new(),
        queue: jobs.into_iter(),
    });
    let threads = match settings.device {
        DeviceKind::Cuda => AT_ONCE,
        DeviceKind::Host => 1,
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| check_jobs(&checks)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let joined = thread.join();
            joined.unwrap_or_else(|_| Err(io::Error::other("a thread of the stage panicked")))
        })
    })
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
        let (results, failures) = run_job(&job, || record.left())?;
        for failure in failures {
            record.fail(failure);
        }
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
        if !table.rows.is_empty() {
            record.table(table);
        }
        record.measured("kernels", json!(all));
        record.save(false)?;
    }
    record.note(format!(
        "{unchecked} of the timed cases have data that the device made, or are too large for the \
         naive reference, and were not compared with it (`checked` in the JSON)."
    ));
    profile(settings, record)
}

/// What a profiler says of some cases, if there is one and time for it.
fn profile(settings: &Settings, record: &mut Record) -> io::Result<()> {
    for (kernel, end) in PROFILED {
        let specs = specs(kernel, Task::Launch, settings.device);
        let number = specs.iter().position(|spec| spec.label.ends_with(end));
        let Some(number) = number.filter(|_| record.left() >= TOOL_TIME_MIN) else {
            continue;
        };
        let job = Job {
            device: settings.device,
            task: Task::Launch,
            kernel: kernel.to_owned(),
            cases: vec![number],
            cubins: None,
        };
        let Some(said) = tools::profile(&job, record.left()) else {
            return Ok(());
        };
        record.listing(format!("Profile of {kernel} {}", specs[number].label), said);
        record.save(false)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_profiled_is_timed_on_cards() {
        for (kernel, end) in PROFILED {
            let specs = specs(kernel, Task::Launch, DeviceKind::Cuda);
            let found = specs.iter().filter(|spec| spec.label.ends_with(end));
            assert_eq!(found.count(), 1, "{kernel} {end}");
        }
    }
}
