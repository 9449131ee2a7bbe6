//! The GPU gate: what must hold on a card before anybody relies on the CUDA engine, and what is
//! measured there. `scripts/card/gpu_gate` packs it for machines with nothing but a driver.

mod answers;
mod cases;
mod comparison;
mod device;
mod judge;
mod kernels;
mod models;
mod report;
mod serving;
mod settings;
mod stage;
mod tools;
mod vocabulary;
mod worker;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use backstop_benches::machine;
use serde_json::{Value, json};

use settings::{DeviceKind, Settings, wrong};
use stage::{Record, Stage};
use worker::Task;

/// Exit status when the gate itself could not run; stages that fail are bits below.
const STATUS_BROKEN: u8 = 64;
/// Pause between two looks at whether a stage has ended.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait for the processes of a stage that was ended.
const ENDING: Duration = Duration::from_secs(3);
/// The first card, as long as it is open.
const CARD: &str = "/dev/nvidia0";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("run") => Settings::parse(&arguments[1..]).and_then(|settings| run(&settings)),
        Some("stage") => Settings::parse(&arguments[2..]).and_then(|settings| {
            let stage = arguments.get(1).and_then(|name| Stage::parse(name));
            run_stage(stage.ok_or_else(wrong)?, &settings)
        }),
        Some("answers") => Settings::parse(&arguments[1..])
            .and_then(|settings| models::prepare(&settings))
            .map(|()| 0),
        Some("worker") => work(&arguments[1..]).map(|()| 0),
        Some("shape") => match &arguments[1..] {
            [config, directory] => vocabulary::write_shape(config.as_ref(), directory.as_ref()),
            _ => Err(wrong()),
        }
        .map(|()| 0),
        _ => Err(wrong()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ignored = writeln!(io::stderr(), "{error}");
            ExitCode::from(STATUS_BROKEN)
        }
    }
}

/// Runs the wanted stages; the status has a bit for each that failed. The report is written anew
/// behind each, so that a run that is ended leaves one behind.
fn run(settings: &Settings) -> io::Result<u8> {
    std::fs::create_dir_all(&settings.out)?;
    // The driver switches a card off that nobody has open, and takes seconds to switch it on again
    // for each of the gate's processes.
    let _open = std::fs::File::open(CARD);
    let machine = facts(settings);
    // What an earlier run left behind must not be taken for this one's.
    for stage in &settings.stages {
        let _absent = std::fs::remove_file(settings.out.join(format!("{}.json", stage.name())));
    }
    let mut status = 0;
    let mut text = String::new();
    let began = Instant::now();
    for (index, &stage) in settings.stages.iter().enumerate() {
        let budget = settings.budget_of(&settings.stages[index..], began.elapsed());
        say(&format!(
            "{} ({} s at most) ...",
            stage.name(),
            budget.as_secs()
        ));
        let stage_began = Instant::now();
        match not_worth_it(settings, stage) {
            Some(reason) => skip(settings, stage, reason)?,
            None => run_within_budget(stage, budget)?,
        }
        let document = report::read(&settings.out, stage).unwrap_or(Value::Null);
        status |= tell(stage, &document, stage_began.elapsed());
        text = report::write(settings, &machine)?;
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(status)
}

/// Says what became of a stage; its bit if it failed.
fn tell(stage: Stage, document: &Value, took: Duration) -> u8 {
    let passed = document["passed"] == json!(true);
    let verdict = if passed { "passed" } else { "FAILED" };
    say(&format!(
        "{} {verdict} after {} s",
        stage.name(),
        took.as_secs()
    ));
    let failures = document["failures"].as_array().into_iter().flatten();
    for failure in failures.take(10) {
        say(&format!("  {}", failure.as_str().unwrap_or_default()));
    }
    if passed { 0 } else { stage.bit() }
}

/// Why a stage need not be tried after those before it.
fn not_worth_it(settings: &Settings, stage: Stage) -> Option<&'static str> {
    let models = report::read(&settings.out, Stage::Models)?;
    let ran = settings.stages.contains(&Stage::Models);
    let hung = ran && models["measurements"]["all_hung"] == json!(true);
    (stage == Stage::Serving && hung).then_some("not tried, since every model hung before")
}

fn skip(settings: &Settings, stage: Stage, reason: &str) -> io::Result<()> {
    let mut record = Record::new(settings, stage)?;
    record.fail(reason);
    record.save(true)
}

fn say(text: &str) {
    // Progress is for people; results are in files.
    let _ignored = writeln!(io::stderr(), "{text}");
}

/// Runs a stage with all its processes in a group, so that all of them can be ended.
fn run_within_budget(stage: Stage, budget: Duration) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["stage", stage.name()])
        .args(std::env::args().skip(2))
        .args(["--budget-ms", &budget.as_millis().to_string()])
        .process_group(0)
        .spawn()?;
    let began = Instant::now();
    while child.try_wait()?.is_none() && began.elapsed() < budget {
        thread::sleep(POLL);
    }
    // Also ends servers and workers that outlived a stage which failed.
    let group = child.id().to_string();
    signal(&group, "KILL");
    let _ended = child.kill();
    child.wait()?;
    // The next stage wants the card's memory, which they give back as they end.
    let killed = Instant::now();
    while signal(&group, "0") && killed.elapsed() < ENDING {
        thread::sleep(POLL);
    }
    Ok(())
}

/// Sends a signal to a group of processes; says whether there was one. Every shell can do that,
/// and not every machine has a program for it.
fn signal(group: &str, signal: &str) -> bool {
    let script = "kill -s \"$1\" -- \"-$2\" 2>/dev/null";
    let status = Command::new("sh")
        .args(["-c", script, "sh", signal, group])
        .status();
    status.is_ok_and(|status| status.success())
}

fn run_stage(stage: Stage, settings: &Settings) -> io::Result<u8> {
    let mut record = Record::new(settings, stage)?;
    let result = match stage {
        Stage::Device => device::run(settings.device, &mut record),
        Stage::Kernels => kernels::check(settings, &mut record),
        Stage::Timing => kernels::time(settings, &mut record),
        Stage::Models => models::run(settings, &mut record),
        Stage::Serving => serving::run(settings, &mut record),
        Stage::Judge => judge::run(settings, &mut record),
    };
    if let Err(error) = result {
        record.fail(error.to_string());
    }
    record.save(true)?;
    Ok(if record.passed() { 0 } else { stage.bit() })
}

fn work(arguments: &[String]) -> io::Result<()> {
    let [device, task, kernel, numbers] = arguments else {
        return Err(wrong());
    };
    let device = DeviceKind::parse(device).ok_or_else(wrong)?;
    let task = Task::parse(task).ok_or_else(wrong)?;
    let numbers: Result<Vec<usize>, _> = numbers.split(',').map(str::parse).collect();
    cases::work(device, task, kernel, &numbers.map_err(|_| wrong())?)
}

/// The machine, and the commit that was packed, which a bare machine cannot ask git for.
fn facts(settings: &Settings) -> Value {
    let mut facts = machine::facts();
    if let Ok(build) = std::fs::read_to_string(settings.pack.join("BUILD")) {
        for (name, value) in build.lines().filter_map(|line| line.split_once(": ")) {
            facts[name] = json!(value);
        }
    }
    facts
}
