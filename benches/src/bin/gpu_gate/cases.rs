//! One case after the other, in a process of their own.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use backstop_benches::statistics::{median, percentile};
use backstop_card::{Device, DeviceError, Stream};
use backstop_proof::bandwidth::MemoryTraffic;
use backstop_proof::catalog::{self, Case, CaseSpec, Cost, DeviceRun, DeviceWork};
use backstop_proof::invariance;
use serde_json::{Value, json};

use crate::device::{Stopwatch, open};
use crate::settings::DeviceKind;
use crate::worker::{Task, send};

/// What says what is wrong on a device.
type Failures = fn(&Arc<dyn Device>) -> Result<Vec<String>, DeviceError>;

/// Checks that have no cases in the catalog, each as if it were a kernel with one case.
pub(crate) const CHECKS: [(&str, Failures); 2] = [
    ("sample", backstop_proof::ops::sample::failures),
    ("invariance", invariance::failures),
];
/// Multiply-adds for which the naive reference of a benchmark's case is still worth its time.
const REFERENCE_MULTIPLY_ADDS_MAX: usize = 600_000_000;
/// The same on the host executor, which is slower than the reference itself.
const HOST_MULTIPLY_ADDS_MAX: usize = 100_000;
/// Cases of each kernel that are timed on the host executor.
const REHEARSED: usize = 4;
/// Memory that is read between timed launches, several times the L2 cache.
const FLUSH_BYTES: usize = 192 << 20;
/// Timed launches of one case, and about how long they may take together.
const LAUNCHES: (usize, usize) = (8, 40);
const LAUNCHES_MICROSECONDS: f64 = 150_000.0;
/// Launches in one recorded graph, and how often it is replayed.
const GRAPH_LAUNCHES: usize = 16;
const GRAPH_REPLAYS: usize = 8;

/// Launches for a profiler, of which it takes one of the last.
const PROFILED_LAUNCHES: usize = 3;

/// The cases of a task, in the order in which all processes count them.
pub(crate) fn specs(kernel: &str, task: Task, device: DeviceKind) -> Vec<CaseSpec> {
    let known = catalog::ALL.iter().find(|known| known.name == kernel);
    let all = known.map(|known| (known.cases)()).unwrap_or_default();
    let timed = task != Task::Check;
    // In a rehearsal, some cases that the host executor can run stand in for the benchmarks'.
    let rehearsal = device == DeviceKind::Host;
    let wanted = |spec: &CaseSpec| spec.benchmark_only == (timed && !rehearsal);
    let most = if timed && rehearsal {
        REHEARSED
    } else {
        usize::MAX
    };
    all.into_iter().filter(wanted).take(most).collect()
}

/// Runs the cases with these numbers and hands on their results.
pub(crate) fn work(
    device: DeviceKind,
    task: Task,
    kernel: &str,
    numbers: &[usize],
) -> io::Result<()> {
    let opened = match open(device) {
        Ok(opened) => opened,
        Err(reason) => {
            return send(&json!({"outcome": "failed", "detail": reason, "fatal": true}));
        }
    };
    send(&json!({"opened": true}))?;
    if let Some((_, failures)) = CHECKS.iter().find(|(name, _)| *name == kernel) {
        return send(&guarded(|| all_checks(failures(&opened)?)));
    }
    let mut bench = Bench {
        device: opened,
        kind: device,
        timer: None,
    };
    let specs = specs(kernel, task, device);
    for &number in numbers {
        let Some(spec) = specs.get(number) else {
            return Err(io::Error::other(format!("{kernel} has no case {number}")));
        };
        let mut result = guarded(|| bench.run(task, spec));
        result["index"] = json!(number);
        result["label"] = json!(spec.label);
        send(&result)?;
        if is_fatal(&result) {
            return Ok(());
        }
    }
    Ok(())
}

/// The device of a process, and what it times with.
struct Bench {
    device: Arc<dyn Device>,
    kind: DeviceKind,
    timer: Option<Timer>,
}

impl Bench {
    fn run(&mut self, task: Task, spec: &CaseSpec) -> Result<Value, DeviceError> {
        let device = &self.device;
        if task == Task::Time && self.timer.is_none() {
            self.timer = Some(Timer::new(device, self.kind)?);
        }
        if task != Task::Check
            && self.kind == DeviceKind::Cuda
            && let Some(work) = spec.on_device(device)
        {
            let work = work?;
            return match &self.timer {
                Some(timer) => timer.time(&work, false),
                None => launches(device, &work.launch),
            };
        }
        let case = spec.make();
        if self.kind == DeviceKind::Host && too_large_for_host(case.as_ref()) {
            return Ok(skipped("too large for the host executor"));
        }
        let Some(run) = case.device(device) else {
            return Ok(skipped("the device does not take this number format"));
        };
        let run = run?;
        match &self.timer {
            Some(timer) => timer.check_and_time(case.as_ref(), run),
            None if task == Task::Launch => launches(device, &run.launch),
            None => check(case.as_ref(), &run),
        }
    }
}

/// Launches, and nothing else.
fn launches(
    device: &Arc<dyn Device>,
    launch: &impl Fn() -> Result<(), DeviceError>,
) -> Result<Value, DeviceError> {
    (0..PROFILED_LAUNCHES).try_for_each(|_| launch())?;
    device.synchronize(Stream::Main)?;
    Ok(json!({"outcome": "launched", "detail": ""}))
}

fn too_large_for_host(case: &dyn Case) -> bool {
    let Cost {
        multiply_adds,
        bytes,
    } = case.cost();
    multiply_adds.max(bytes) > HOST_MULTIPLY_ADDS_MAX
}

/// A result, also of what panics or fails.
fn guarded(run: impl FnOnce() -> Result<Value, DeviceError>) -> Value {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => {
            json!({"outcome": "failed", "detail": error.to_string(), "fatal": error.fatal})
        }
        Err(panic) => json!({"outcome": "failed", "detail": words_of(panic.as_ref())}),
    }
}

/// The process that had this result has ended, since its device is of no further use.
pub(crate) fn is_fatal(result: &Value) -> bool {
    result["fatal"] == json!(true)
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}

fn skipped(why: &str) -> Value {
    json!({"outcome": "skipped", "detail": why})
}

fn all_checks(failures: Vec<String>) -> Result<Value, DeviceError> {
    let outcome = if failures.is_empty() {
        "passed"
    } else {
        "failed"
    };
    Ok(
        json!({"index": 0, "label": "all checks", "outcome": outcome, "detail": failures.join("; ")}),
    )
}

fn check(case: &dyn Case, run: &DeviceRun<'_>) -> Result<Value, DeviceError> {
    (run.launch)()?;
    Ok(match difference(case, run)? {
        None => json!({"outcome": "passed", "detail": ""}),
        Some(difference) => json!({"outcome": "failed", "detail": difference}),
    })
}

/// The first difference between the output and the reference.
fn difference(case: &dyn Case, run: &DeviceRun<'_>) -> Result<Option<String>, DeviceError> {
    let actual = (run.read)()?;
    let expected = (run.expected)();
    let columns = expected.len() / case.rows().max(1);
    Ok(run.tolerance.violation(&expected, &actual, columns))
}

struct Timer {
    device: Arc<dyn Device>,
    stopwatch: Stopwatch,
    flush: MemoryTraffic,
}

impl Timer {
    fn new(device: &Arc<dyn Device>, kind: DeviceKind) -> Result<Self, DeviceError> {
        let bytes = match kind {
            DeviceKind::Cuda => FLUSH_BYTES,
            DeviceKind::Host => 0,
        };
        Ok(Self {
            device: Arc::clone(device),
            stopwatch: Stopwatch::new(device, LAUNCHES.1)?,
            flush: MemoryTraffic::new(device, bytes)?,
        })
    }

    fn check_and_time(&self, case: &dyn Case, run: DeviceRun<'_>) -> Result<Value, DeviceError> {
        let cost = case.cost();
        // Before anything is launched again, as some operations add to their output.
        let checked = cost.multiply_adds <= REFERENCE_MULTIPLY_ADDS_MAX;
        if checked {
            (run.launch)()?;
            if let Some(difference) = difference(case, &run)? {
                return Ok(json!({"outcome": "failed", "detail": difference}));
            }
        }
        let work = DeviceWork {
            launch: run.launch,
            rows: case.rows(),
            cost,
        };
        self.time(&work, checked)
    }

    fn time(&self, work: &DeviceWork<'_>, checked: bool) -> Result<Value, DeviceError> {
        let cost = work.cost;
        (work.launch)()?;
        let cold = self.cold(work)?;
        let in_graph = self.in_graph(work)?;
        Ok(json!({
            "outcome": "timed",
            "detail": "",
            "checked": checked,
            "rows": work.rows,
            "multiply_adds": cost.multiply_adds,
            "bytes": cost.bytes,
            "cold_us": {
                "median": median(&cold),
                "fastest": percentile(&cold, 0.0),
                "launches": cold.len(),
            },
            "in_graph_us": median(&in_graph),
        }))
    }

    /// Microseconds of single launches that find nothing in the caches.
    fn cold(&self, work: &DeviceWork<'_>) -> Result<Vec<f64>, DeviceError> {
        let time = |launches| {
            self.stopwatch
                .time(launches, || self.flush.read(), || (work.launch)())
        };
        let first = median(&time(2)?).max(1.0);
        let launches = (LAUNCHES_MICROSECONDS / first) as usize;
        time(launches.clamp(LAUNCHES.0, LAUNCHES.1))
    }

    /// Microseconds of one launch among many in a recorded graph, as the engine launches them.
    fn in_graph(&self, work: &DeviceWork<'_>) -> Result<Vec<f64>, DeviceError> {
        self.device.begin_capture()?;
        let launched = (0..GRAPH_LAUNCHES).try_for_each(|_| (work.launch)());
        // Whatever came of it, or all that follows would be recorded as well.
        let graph = self.device.end_capture();
        launched?;
        let graph = graph?;
        self.device.replay(graph)?;
        let replay = || self.device.replay(graph);
        let times = self.stopwatch.time(GRAPH_REPLAYS, || Ok(()), replay)?;
        Ok(times
            .into_iter()
            .map(|time| time / GRAPH_LAUNCHES as f64)
            .collect())
    }
}
