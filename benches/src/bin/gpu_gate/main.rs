//! The GPU gate: what must hold on a card before anybody relies on the CUDA engine, and what is
//! measured there. `scripts/gpu_gate` packs it for machines with nothing but a driver.

mod cases;
mod device;
mod kernels;
mod models;
mod report;
mod serving;
mod stage;
mod vocabulary;
mod worker;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use backstop_benches::machine;
use serde_json::{Value, json};

use stage::{DeviceKind, Record, Settings, Stage};
use worker::Task;

const USAGE: &str = "usage: gpu_gate run OUT [--stages device,kernels,timing,models,serving]
           [--kernels NAME,...] [--device cuda|host] [--pack DIRECTORY]
           [--server ADDRESS:PORT]
       gpu_gate shape CONFIG DIRECTORY";
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
        Some("run") => parse(&arguments[1..]).and_then(|settings| run(&settings)),
        Some("stage") => parse(&arguments[2..]).and_then(|settings| {
            let stage = arguments.get(1).and_then(|name| Stage::parse(name));
            run_stage(stage.ok_or_else(wrong)?, &settings)
        }),
        Some("worker") => work(&arguments[1..]).map(|()| 0),
        Some("shape") => match &arguments[1..] {
            [config, directory] => vocabulary::write_shape(config.as_ref(), directory.as_ref()),
            _ => Err(wrong()),
        }
        .map(|()| 0),
        Some("goldens") => models::names()
            .try_for_each(|name| writeln!(io::stdout(), "{name}"))
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

fn wrong() -> io::Error {
    io::Error::other(USAGE)
}

fn parse(arguments: &[String]) -> io::Result<Settings> {
    let (out, options) = arguments.split_first().ok_or_else(wrong)?;
    let executable = std::env::current_exe()?;
    let mut settings = Settings {
        out: PathBuf::from(out),
        pack: executable.parent().map(PathBuf::from).unwrap_or_default(),
        device: DeviceKind::Cuda,
        server: None,
        stages: Stage::ALL.to_vec(),
        kernels: Vec::new(),
    };
    for pair in options.chunks(2) {
        let [name, value] = pair else {
            return Err(wrong());
        };
        let names = value.split(',');
        match name.as_str() {
            "--device" => settings.device = DeviceKind::parse(value).ok_or_else(wrong)?,
            "--server" => settings.server = Some(value.parse().map_err(|_| wrong())?),
            "--pack" => settings.pack = PathBuf::from(value),
            "--kernels" => settings.kernels = names.map(str::to_owned).collect(),
            "--stages" => {
                let stages: Option<Vec<Stage>> = names.map(Stage::parse).collect();
                settings.stages = stages.ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(settings)
}

/// Runs the wanted stages; the status has a bit for each that failed.
fn run(settings: &Settings) -> io::Result<u8> {
    std::fs::create_dir_all(&settings.out)?;
    // The driver switches a card off that nobody has open, and takes seconds to switch it on again
    // for each of the gate's processes.
    let _open = std::fs::File::open(CARD);
    let mut status = 0;
    for &stage in &settings.stages {
        // What an earlier run left behind must not be taken for this one's.
        let _absent = std::fs::remove_file(settings.out.join(format!("{}.json", stage.name())));
        say(&format!("{} ...", stage.name()));
        let began = Instant::now();
        run_within_budget(stage, settings)?;
        let document = report::read(&settings.out, stage).unwrap_or(Value::Null);
        let passed = document["passed"] == json!(true);
        status |= if passed { 0 } else { stage.bit() };
        let verdict = if passed { "passed" } else { "FAILED" };
        let seconds = began.elapsed().as_secs();
        say(&format!("{} {verdict} after {seconds} s", stage.name()));
        for failure in document["failures"]
            .as_array()
            .into_iter()
            .flatten()
            .take(10)
        {
            say(&format!("  {}", failure.as_str().unwrap_or_default()));
        }
    }
    let text = report::write(settings, &facts(settings))?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(status)
}

fn say(text: &str) {
    // Progress is for people; results are in files.
    let _ignored = writeln!(io::stderr(), "{text}");
}

/// Runs a stage with all its processes in a group, so that all of them can be ended.
fn run_within_budget(stage: Stage, settings: &Settings) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["stage", stage.name()])
        .args(std::env::args().skip(2))
        .process_group(0)
        .spawn()?;
    let (began, budget) = (Instant::now(), stage.budget(settings.device));
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
    };
    if let Err(error) = result {
        record.fail(error.to_string());
    }
    record.save(true)?;
    Ok(if record.passed() { 0 } else { stage.bit() })
}

fn work(arguments: &[String]) -> io::Result<()> {
    let [device, task, kernel, first] = arguments else {
        return Err(wrong());
    };
    let device = DeviceKind::parse(device).ok_or_else(wrong)?;
    let task = Task::parse(task).ok_or_else(wrong)?;
    let first = first.parse().map_err(|_| wrong())?;
    cases::work(device, task, kernel, first)
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
